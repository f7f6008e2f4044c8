#!/usr/bin/env python3
"""fuzz.py FOLDER PROGRAMS MINUTES MANNERS [SEED]: runs the escape fuzzer of the folder PROGRAMS for MINUTES on each kernel that tests/kernels.toml
has under "fuzzed", fetched into FOLDER, with the guarded programs started in these manners (guard-run-fuzz run --as). Fails if it finds
something, or does nothing."""
import os, re, subprocess, sys, tomllib

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(os.path.dirname(here))
folder, programs, minutes, manners, *seed = sys.argv[1:]
folder, programs = os.path.abspath(folder), os.path.abspath(programs)
with open(f"{root}/tests/kernels.toml", "rb") as file:
    declared = tomllib.load(file)

# What policies have to allow where the kernel lacks something.
ALLOW = {"landlock_scopes": ["signals", "abstract-sockets"]}
# The machine starts, verifies programs slowly, and makes smaller what it has found.
LEEWAY = 900
SUMMARY = re.compile(r"^seed .*: (\d+) system calls in \d+ programs under (\d+) policies", re.MULTILINE)

bad = []
for name in declared["fuzzed"]:
    kernel = declared["kernels"][name]
    release = subprocess.run([f"{here}/kernel", kernel["package"], folder, kernel.get("suite", "")], check=True, stdout=subprocess.PIPE, text=True)
    release = release.stdout.strip()
    lacking = [part for lack in kernel["lacks"] for part in ALLOW.get(lack, [])]
    print(f"== {name} (Linux {release})", flush=True)
    limit = int(float(minutes) * 60) + LEEWAY
    command = [f"{here}/run", "-t", str(limit), "-a", kernel.get("append", ""), f"{folder}/{release}", "--"]
    # One processor, so one world.
    command += [f"{programs}/guard-run-fuzz", "run", "--guard-run", f"{programs}/guard-run", "--minutes", minutes, "--worlds", "1", "--as", manners]
    command += ["--lacking", ",".join(lacking)] if lacking else []
    command += ["--seed", seed[0]] if seed else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    output = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        output += line
    status = process.wait()
    summary = SUMMARY.search(output)
    if status != 0 or not summary or "0" in summary.groups():
        bad.append(f"{name}: exit status {status}")
if bad:
    sys.exit("FAILED\n" + "\n".join(bad))
