#!/usr/bin/env python3
"""What has to be read to trust guard-run with root's rights: lines of code and `unsafe` on the privileged path.

Lines of code are those that are neither empty nor a comment, and not in a `#[cfg(test)]` module. The privileged path is
the crates that link into guard-run and do something with capabilities in effect, or hand something to who has; the rest
of guard-run has given up all capabilities before it looks at what a user names (see `privilege::give_up`).
"""

import re
import sys
from pathlib import Path

# What SECURITY.md says of it: lines of enforce and launcher, unsafe blocks, and lines of hooks.
QUOTED = re.compile(r"`make audit` counts: ([\d,]+) lines of code in `enforce` and `launcher`, with (\d+)\s.*?, ([\d,]+) lines in `hooks`", re.S)

# The crates and modules of the privileged path, and modules in them that run when everything is given up.
PATHS = [Path("enforce/src"), Path("launcher/src"), Path("hooks/src")]
GIVEN_UP = {
    "check.rs", "compare.rs", "explain.rs", "init.rs", "inside.rs", "needs.rs", "replay.rs", "report.rs", "selftest.rs", "tidy.rs", "why.rs",
}

UNSAFE = re.compile(r"\bunsafe\s+(?:\{|impl\b|fn\b|trait\b|extern\b)")


def code(text):
    """The lines of code of a Rust file."""
    text = re.split(r"^#\[cfg\(test\)\]\nmod tests", text, maxsplit=1, flags=re.M)[0]
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]


def count(folder):
    files = [file for file in sorted(folder.rglob("*.rs")) if file.name not in GIVEN_UP]
    lines = [line for file in files for line in code(file.read_text())]
    return len(lines), sum(len(UNSAFE.findall(line)) for line in lines)


def check():
    """Fails if SECURITY.md quotes other figures: lines by more than a twentieth, or any other number of unsafe blocks."""
    lines, unsafe, hooks = (int(figure.replace(",", "")) for figure in QUOTED.search(Path("SECURITY.md").read_text()).groups())
    enforce, launcher, found = (count(path) for path in PATHS)
    own, blocks = enforce[0] + launcher[0], enforce[1] + launcher[1] + found[1]
    apart = any(abs(quoted - real) * 20 > real for quoted, real in ((lines, own), (hooks, found[0])))
    if apart or unsafe != blocks:
        sys.exit(f"SECURITY.md quotes {lines}, {unsafe} and {hooks} of make audit, which counts {own}, {blocks} and {found[0]}")


def main():
    if sys.argv[1:] == ["--check"]:
        return check()
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
