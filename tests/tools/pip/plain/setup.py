import setuptools

setuptools.setup(name="plain", version="1.0", packages=["plain"])
