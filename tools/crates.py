#!/usr/bin/env python3
"""Compares ARCHITECTURE.md's table of crates with the manifests, and looks for files that it or docs/design names and nobody has.

A row of the table is: the crate's folder, what it is, and the crates that it may use, each in backquotes; "pure" in the
second column is a promise that it forbids unsafe code.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "ARCHITECTURE.md"


def table():
    """folder → (what it is, the folders that it may use)"""
    rows = {}
    lines = iter(DOCUMENT.read_text().splitlines())
    for line in lines:
        if line.startswith("| crate |"):
            break
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if folder := re.match(r"`([\w-]+)/`", cells[0]):
            rows[folder[1]] = (cells[1], set(re.findall(r"`([\w-]+)`", cells[2])))
    return rows


def manifests():
    """folder → the folders of the crates of this workspace that it depends on, but for its tests"""
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]
    folder_of = {str(Path(package["manifest_path"]).parent): Path(package["manifest_path"]).parent.name for package in packages}
    used = {}
    for package in packages:
        ours = [folder_of.get(dependency.get("path", "")) for dependency in package["dependencies"] if dependency["kind"] != "dev"]
        used[Path(package["manifest_path"]).parent.name] = {folder for folder in ours if folder}
    return used


def main():
    faults = []
    rows, used = table(), manifests()
    for folder in sorted(used.keys() - rows.keys()):
        faults.append(f"the crate {folder} is not in the table")
    for folder in sorted(rows.keys() - used.keys()):
        faults.append(f"there is no crate {folder}")
    for folder in sorted(rows.keys() & used.keys()):
        what, may = rows[folder]
        for other in sorted(used[folder] - may):
            faults.append(f"{folder} uses {other}, which the table doesn't allow")
        for other in sorted(may - used[folder]):
            faults.append(f"{folder} doesn't use {other}, though the table says so")
        root = ROOT / folder / "src/lib.rs"
        if "pure" in what and "#![forbid(unsafe_code)]" not in root.read_text():
            faults.append(f"{folder} is said to be pure, and doesn't forbid unsafe code")
    for document in [DOCUMENT, *(ROOT / "docs/design").glob("*.md")]:
        for name in re.findall(r"`([\w./-]+/[\w./-]*)`", document.read_text()):
            if not name.startswith("/") and name.split("/")[0] in used and not (ROOT / name).exists():
                faults.append(f"{document.name}: there is no {name}")
    for fault in faults:
        print(f"ARCHITECTURE.md: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
