#!/usr/bin/env python3
"""programs.py update|check: the compiled eBPF programs that the repository carries (enforce/programs).

"update" compiles them and puts them there, with SOURCES, which says from what: see enforce/build/carried.rs.
"check" compiles them and compares: where SOURCES holds, each must be the very file that is carried.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ROOT / "enforce/programs"


def sources():
    """The lines of SOURCES: what the programs are compiled from, and the crates that are compiled in."""
    patterns = ["launcher-ebpf/Cargo.toml", "launcher-ebpf/src/**/*.rs", "common/Cargo.toml", "common/src/**/*.rs", "enforce/build/compile.rs"]
    files = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}" for path in files]
    return lines + locked("aya-ebpf")


def locked(first):
    """The lines of Cargo.lock with the checksums of a crate and of all that it depends on."""
    crates = {}
    for stanza in (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]:
        lines = stanza.strip().splitlines()
        values = dict(line.split(" = ", 1) for line in lines if " = " in line)
        uses = [line.strip(' ",').split()[0] for line in lines if line.startswith(' "')]
        crates.setdefault(values["name"].strip('"'), []).append((values.get("checksum"), uses))
    wanted, found = [first], set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += [use for _, uses in crates[name] for use in uses]
    return sorted(f"checksum = {checksum}" for name in found for checksum, _ in crates[name] if checksum)


def compiled():
    """The folder with the object files, newly compiled."""
    command = ["cargo", "build", "--package", "guard-enforce", "--locked", "--message-format", "json"]
    environment = os.environ | {"GUARD_RUN_BUILD_EBPF": "1"}
    output = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return next(
        Path(message["out_dir"])
        for message in messages
        if message["reason"] == "build-script-executed" and "/guard-enforce-" in message["out_dir"]
    )


def main(what):
    objects = sorted(compiled().glob("*.o"))
    if what == "update":
        CARRIED.mkdir(exist_ok=True)
        for old in CARRIED.glob("*.o"):
            old.unlink()
        for path in objects:
            (CARRIED / path.name).write_bytes(path.read_bytes())
        (CARRIED / "SOURCES").write_text("\n".join(sources()) + "\n")
        return None
    if (CARRIED / "SOURCES").read_text().splitlines() != sources():
        print("programs.py: the sources have changed since enforce/programs was made; `make programs` makes it anew")
        return None
    names = sorted(path.name for path in CARRIED.glob("*.o"))
    if names != [path.name for path in objects]:
        return f"enforce/programs has {names}, and {[path.name for path in objects]} are compiled"
    different = [path.name for path in objects if path.read_bytes() != (CARRIED / path.name).read_bytes()]
    return f"not what is compiled from the sources: {', '.join(different)}; `make programs` makes them anew" if different else None


if __name__ == "__main__":
    if sys.argv[1:] not in (["update"], ["check"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
