#!/usr/bin/env python3
"""Measures what guards cost a suite: suite.py GUARD_RUN [TESTS [ROUNDS]].

A suite of tiny tests, each in a process of its own (cargo-nextest), is run bare, in one guard around all, in one guard with `guard-run test`
around each, and with a guard around each test. The sides take turns; each figure is the median over rounds, and so is each ratio.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLICY = Path(__file__).resolve().parent.parent / "examples/tests.json"


def main(guard_run, tests=1000, rounds=5):
    guard_run = str(Path(guard_run).resolve())
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "suite"
        (suite / "src").mkdir(parents=True)
        (suite / "Cargo.toml").write_text('[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n')
        functions = "".join(f"#[test] fn t{number}() {{ assert_eq!({number} + 1, 1 + {number}); }}\n" for number in range(int(tests)))
        (suite / "src/lib.rs").write_text(functions)
        run = ["cargo-nextest", "nextest", "run", "--offline", "--manifest-path", str(suite / "Cargo.toml"), "--status-level", "none"]
        subprocess.run([*run, "--no-run"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout.split("host: ")[1].split()[0]
        runner = f"CARGO_TARGET_{host.upper().replace('-', '_')}_RUNNER"
        log = ["--log", str(Path(folder) / "log.json")]
        around = [guard_run, "--policy", str(POLICY), *log, "--"]
        sides = {
            "bare": (run, {}),
            "one guard around all": ([*around, *run], {}),
            "one guard around all, guard-run test around each": ([*around, *run], {runner: f"{guard_run} test --"}),
            "a guard around each": (run, {runner: f"{guard_run} --quiet --policy {POLICY} --log /dev/null --"}),
        }
        times = {side: [] for side in sides}
        for _ in range(int(rounds)):
            for side, (command, more) in sides.items():
                start = time.monotonic()
                subprocess.run(command, check=True, env={**os.environ, **more}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                times[side].append(time.monotonic() - start)
        for side, taken in times.items():
            ratio = statistics.median(time / bare for time, bare in zip(taken, times["bare"]))
            print(f"| suite: {tests} tests, {side} | {statistics.median(taken):.2f} s | × {ratio:.2f} |")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
