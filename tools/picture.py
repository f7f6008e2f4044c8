#!/usr/bin/env python3
"""picture.py GUARD_RUN SVG: records the README's terminal picture from what the program really prints.

The commands run at a terminal of their own, in the place that tests/documents/stage.sh makes for the documents' tests. Needs root.
"""

import html
import os
import pty
import re
import sys
import tempfile
from pathlib import Path

COMMANDS = [
    "guard-run -p no-private-networks -- curl -sS http://169.254.169.254/latest/meta-data/",
    "guard-run explain no-private-networks connect tcp 169.254.169.254:80",
    "guard-run -p no-private-networks -- curl -sS https://example.org/",
]
COLUMNS = 100
CELL, LINE, MARGIN = 8.4, 20, 16
STYLE = """
    rect { fill: #16191f }
    text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d5d9e0; white-space: pre; animation: appear 1ms both }
    .command { fill: #7ee787 }
    .guard { fill: #ffb86b }
    @keyframes appear { from { opacity: 0 } }
    @media (prefers-reduced-motion: reduce) { text { animation: none } }
"""


def printed(guard_run, command):
    """What a command prints at a terminal."""
    stage = Path(__file__).resolve().parent.parent / "tests/documents/stage.sh"
    with tempfile.TemporaryDirectory() as folder:
        child, terminal = pty.fork()
        if child == 0:
            words = ["unshare", "--mount", "--net", "--fork", "--kill-child", "sh", str(stage), guard_run, folder]
            os.execvp(words[0], [*words, "sh", "-c", command])
        text = b""
        try:
            while block := os.read(terminal, 4096):
                text += block
        except OSError:  # nobody has the terminal any more
            pass
        os.waitpid(child, 0)
    text = text.decode().replace("\r\n", "\n")
    # The time and number in a log's name are of no interest, and would make another picture each time.
    text = re.sub(r"\d{8}T[\d.]+Z-\d+\.json", "20261130T101502Z-4711.json", text)
    assert "\x1b" not in text, "this program draws no escape sequences"
    return text.splitlines()


def folded(line):
    return [line[at : at + COLUMNS] for at in range(0, len(line), COLUMNS)] or [""]


def main():
    guard_run, picture = sys.argv[1:]
    rows, second = [], 0.0
    for command in COMMANDS:
        rows += [("command", part, second) for part in folded(f"$ {command}")]
        second += 1.2
        for line in printed(os.path.abspath(guard_run), command):
            kind = "guard" if line.startswith("guard-run:") else "output"
            rows += [(kind, part, second) for part in folded(line)]
        second += 1.2
    width, height = COLUMNS * CELL + 2 * MARGIN, len(rows) * LINE + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img">',
        f"  <title>{html.escape('; '.join(COMMANDS))}</title>",
        f"  <style>{STYLE}  </style>",
        '  <rect width="100%" height="100%" rx="8"/>',
    ]
    for row, (kind, text, second) in enumerate(rows):
        y = MARGIN + (row + 0.75) * LINE
        lines.append(
            f'  <text x="{MARGIN}" y="{y:.0f}" class="{kind}" style="animation-delay: {second:.1f}s">{html.escape(text, quote=False)}</text>'
        )
    Path(picture).write_text("\n".join([*lines, "</svg>", ""]))


if __name__ == "__main__":
    main()
