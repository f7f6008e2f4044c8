import subprocess

import setuptools

# Some ask what they are built with.
subprocess.run(["cc", "--version"], check=True, stdout=subprocess.DEVNULL)
setuptools.setup(
    name="hello",
    version="1.0",
    py_modules=["hello"],
    ext_modules=[],
    install_requires=["plain>=1.0"],
    entry_points={"console_scripts": ["hello=hello:main"]},
)
