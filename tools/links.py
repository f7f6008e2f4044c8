#!/usr/bin/env python3
"""Looks whether every relative link in the tracked Markdown files leads to a file of the checkout, and every anchor to a heading there."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.M)


def prose(text):
    """The text without code, in which brackets mean something else."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.S)


def anchors(text):
    """The anchors of a document's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*#*$", re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S), re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def main():
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    faults = 0
    for document in tracked.splitlines():
        text = (ROOT / document).read_text()
        for target in ("".join(groups) for groups in LINK.findall(prose(text))):
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            file = (ROOT / document).parent / path if path else ROOT / document
            if not file.exists():
                why = "there is no such file"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                why = "there is no such heading"
            else:
                continue
            print(f"{document}: {target}: {why}", file=sys.stderr)
            faults += 1
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
