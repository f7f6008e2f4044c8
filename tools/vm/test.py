#!/usr/bin/env python3
"""test.py FOLDER [KERNEL...]: runs the tests that tests/kernels.toml lists on each kernel that it lists (or on those named), fetched
into FOLDER. Fails if any test fails or is skipped, or if there are fewer on one kernel than on another."""
import json, os, re, subprocess, sys, tomllib

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(os.path.dirname(here))
folder, *chosen = sys.argv[1:]
folder = os.path.abspath(folder)
with open(f"{root}/tests/kernels.toml", "rb") as file:
    declared = tomllib.load(file)
kernels = declared["kernels"]
for name in chosen:
    if name not in kernels:
        sys.exit(f"tests/kernels.toml has no kernel {name!r}, but {', '.join(kernels)}")


def test_programs():
    """The test programs, built, by name."""
    cargo = os.environ.get("CARGO", "cargo")
    subprocess.run([cargo, "build", "--locked"], cwd=root, check=True)
    names = [word for name in declared["tests"] for word in ("--test", name)]
    command = [cargo, "test", "--locked", "--no-run", "--message-format=json", "--package", "guard-tests", *names]
    output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}


SCRIPT = """
failed=0
for program; do
    echo "== ${program##*/}"
    timeout 1800 "$program" --test-threads=2 || failed=1
done
exit $failed
"""
SUMMARY = re.compile(r"test result: (\S+) (\d+) passed; (\d+) failed; (\d+) ignored; (\d+) measured; (\d+) filtered")
programs = test_programs()
paths = [programs[name] for name in declared["tests"]]
passed = {}
bad = []
for name in chosen or kernels:
    kernel = kernels[name]
    release = subprocess.run([f"{here}/kernel", kernel["package"], folder], check=True, stdout=subprocess.PIPE, text=True)
    release = release.stdout.strip()
    lacks = " ".join(kernel["lacks"])
    print(f"== {name} (Linux {release}; lacks {lacks or 'nothing'})", flush=True)
    command = [f"{here}/run", "-t", "5400", "-a", kernel.get("append", ""), f"{folder}/{release}", "--", "env", f"GUARD_KERNEL_LACKS={lacks}"]
    command += ["bash", "-c", SCRIPT, "bash", *paths]
    # The tests' own folder, as under cargo.
    process = subprocess.Popen(command, cwd=f"{root}/tests", stdout=subprocess.PIPE, text=True, errors="replace")
    output = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        output += line
    status = process.wait()
    summaries = SUMMARY.findall(output)
    passed[name] = sum(int(summary[1]) for summary in summaries)
    skipped = any(int(number) for summary in summaries for number in summary[3:])
    if status != 0 or len(summaries) != len(paths) or skipped or any(one[0] != "ok." for one in summaries):
        bad.append(f"{name}: exit status {status}, {len(summaries)} of {len(paths)} programs ended")
if len(set(passed.values())) > 1:
    bad.append(f"not as many tests everywhere: {passed}")
for name, count in passed.items():
    print(f"{name}: {count} tests passed")
if bad:
    sys.exit("FAILED\n" + "\n".join(bad))
