#!/usr/bin/env python3
"""extract-vmlinux.py BZIMAGE OUT: the uncompressed kernel in a bzImage. QEMU boots it without the decompression, which takes
longer than the rest of the boot where there is no hardware virtualisation."""
import subprocess, sys

COMPRESSIONS = {
    b"\x28\xb5\x2f\xfd": ["zstd", "-dc"],
    b"\xfd7zXZ\0": ["xz", "-dc"],
    b"\x1f\x8b\x08": ["gzip", "-dc"],
}

with open(sys.argv[1], "rb") as file:
    image = file.read()
for magic, command in COMPRESSIONS.items():
    place = image.find(magic)
    while place >= 0:
        # What follows the compressed kernel makes the programs complain; what they have written by then is whole.
        result = subprocess.run(command, input=image[place:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if result.stdout[:4] == b"\x7fELF":
            with open(sys.argv[2], "wb") as file:
                file.write(result.stdout)
            sys.exit(0)
        place = image.find(magic, place + 1)
sys.exit(f"{sys.argv[1]}: no kernel found in it")
