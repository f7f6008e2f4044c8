#!/usr/bin/env python3
"""test.py FOLDER [--tests PROGRAM[::MODULE],...] [KERNEL...]: runs the tests that tests/kernels.toml lists (or those named) on each
kernel that it lists (or on those named), fetched into FOLDER. Fails unless every one of them has passed on every kernel."""
import argparse, json, os, re, subprocess, sys, tomllib

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(os.path.dirname(here))
parser = argparse.ArgumentParser()
parser.add_argument("folder", type=os.path.abspath)
parser.add_argument("kernels", nargs="*")
parser.add_argument("--tests", type=lambda words: words.split(","))
arguments = parser.parse_intermixed_args()
folder, chosen = arguments.folder, arguments.kernels
with open(f"{root}/tests/kernels.toml", "rb") as file:
    declared = tomllib.load(file)
kernels = declared["kernels"]
for name in chosen:
    if name not in kernels:
        sys.exit(f"tests/kernels.toml has no kernel {name!r}, but {', '.join(kernels)}")


def chosen_tests(words):
    """The test programs, built: their files, with the names of the tests that these words choose."""
    cargo = os.environ.get("CARGO", "cargo")
    subprocess.run([cargo, "build", "--locked"], cwd=root, check=True)
    modules = {}
    for word in words:
        program, _, module = word.partition("::")
        modules.setdefault(program, []).append(module)
    names = [word for program in modules for word in ("--test", program)]
    command = [cargo, "test", "--locked", "--no-run", "--message-format=json", "--package", "guard-tests", *names]
    output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    tests = {}
    for path, program in ((message["executable"], message["target"]["name"]) for message in messages if message.get("executable")):
        if program not in modules:
            continue
        listed = subprocess.run([path, "--list", "--format=terse"], check=True, stdout=subprocess.PIPE, text=True).stdout
        listed = [line.removesuffix(": test") for line in listed.splitlines()]
        tests[path] = []
        for module in modules[program]:
            of_module = [name for name in listed if not module or name.startswith(f"{module}::")]
            if not of_module:
                sys.exit(f"the test program {program} has no module {module!r}")
            tests[path] += of_module
    return tests


# Its argument has lines, each a test program and the names of its tests.
SCRIPT = """
failed=0
while read -r program names; do
    echo "== ${program##*/}"
    # shellcheck disable=SC2086 # names of functions
    timeout 3600 "$program" --test-threads=2 --exact $names </dev/null || failed=1
done <<EOF
$1
EOF
exit $failed
"""
SUMMARY = re.compile(r"test result: \S+ (\d+) passed;")
tests = chosen_tests(arguments.tests or declared["tests"])
expected = sum(len(names) for names in tests.values())
lines = "\n".join(" ".join([path, *names]) for path, names in tests.items())
passed = {}
bad = []
for name in chosen or kernels:
    kernel = kernels[name]
    release = subprocess.run([f"{here}/kernel", kernel["package"], folder, kernel.get("suite", "")], check=True, stdout=subprocess.PIPE, text=True)
    release = release.stdout.strip()
    lacks = " ".join(kernel["lacks"])
    print(f"== {name} (Linux {release}; lacks {lacks or 'nothing'})", flush=True)
    command = [f"{here}/run", "-t", "5400", "-a", kernel.get("append", ""), f"{folder}/{release}", "--", "env", f"GUARD_KERNEL_LACKS={lacks}"]
    command += ["bash", "-c", SCRIPT, "bash", lines]
    # The tests' own folder, as under cargo.
    process = subprocess.Popen(command, cwd=f"{root}/tests", stdout=subprocess.PIPE, text=True, errors="replace")
    output = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        output += line
    status = process.wait()
    summaries = SUMMARY.findall(output)
    passed[name] = sum(int(count) for count in summaries)
    if status != 0 or len(summaries) != len(tests) or passed[name] != expected:
        bad.append(f"{name}: exit status {status}, {len(summaries)} of {len(tests)} programs ended, {passed[name]} of {expected} tests passed")
for name, count in passed.items():
    print(f"{name}: {count} of {expected} tests passed")
if bad:
    sys.exit("FAILED\n" + "\n".join(bad))
