#!/usr/bin/env python3
"""modules.py MODULES OUT NAME...: copies the modules of these names and all that they depend on, uncompressed, from a kernel's
folder of modules into OUT, and lists them in OUT/list in the order in which to load them."""
import lzma, os, subprocess, sys

modules, out, *wanted = sys.argv[1:]


def name_of(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


dependencies = {}
with open(f"{modules}/modules.dep") as file:
    for line in file:
        path, rest = line.split(":", 1)
        dependencies[path] = rest.split()
paths = {name_of(path): path for path in dependencies}
order = []
for name in wanted:
    if name not in paths:
        continue  # it is built in
    for path in [*reversed(dependencies[paths[name]]), paths[name]]:
        if path not in order:
            order.append(path)
with open(f"{out}/list", "w") as listing:
    for path in order:
        with open(f"{modules}/{path}", "rb") as file:
            content = file.read()
        if path.endswith(".xz"):
            content = lzma.decompress(content)
        elif path.endswith(".zst"):
            content = subprocess.run(["zstd", "-dc"], input=content, stdout=subprocess.PIPE, check=True).stdout
        with open(f"{out}/{name_of(path)}.ko", "wb") as file:
            file.write(content)
        listing.write(f"{name_of(path)}.ko\n")
