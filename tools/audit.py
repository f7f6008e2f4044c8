#!/usr/bin/env python3
"""What has to be read to trust guard-run with root's rights: lines of code and `unsafe` on the privileged path.

Lines of code are those that are neither empty nor a comment, and not in a `#[cfg(test)]` module. The privileged path is
the crates that link into guard-run and do something with capabilities in effect, or hand something to who has; the rest
of guard-run has given up all capabilities before it looks at what a user names (see `privilege::give_up`).
"""

import re
import sys
from pathlib import Path

# The crates and modules of the privileged path, and modules in them that run when everything is given up.
PATHS = [Path("enforce/src"), Path("launcher/src"), Path("hooks/src")]
GIVEN_UP = {"check.rs", "explain.rs", "selftest.rs"}

UNSAFE = re.compile(r"\bunsafe\s+(?:\{|impl\b|fn\b|trait\b|extern\b)")


def code(text):
    """The lines of code of a Rust file."""
    text = re.split(r"^#\[cfg\(test\)\]\nmod tests", text, maxsplit=1, flags=re.M)[0]
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]


def count(folder):
    files = [file for file in sorted(folder.rglob("*.rs")) if file.name not in GIVEN_UP]
    lines = [line for file in files for line in code(file.read_text())]
    return len(lines), sum(len(UNSAFE.findall(line)) for line in lines)


def main():
    paths = [Path(word) for word in sys.argv[1:]] or PATHS
    total = [0, 0]
    print(f"{'':<16}{'lines':>8}{'unsafe':>8}")
    for path in paths:
        counts = count(path)
        total = [sum(pair) for pair in zip(total, counts)]
        print(f"{str(path):<16}{counts[0]:>8}{counts[1]:>8}")
    print(f"{'together':<16}{total[0]:>8}{total[1]:>8}")


if __name__ == "__main__":
    main()
