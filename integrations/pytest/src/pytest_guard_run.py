"""Runs a pytest session under guard-run, and shows each denial under the test that caused it.

The session is executed again under guard-run. There, GUARD_RUN_DENIALS names a file in which each denial appears while the session
runs. A process says which test it runs by its thread's name, which the kernel records with each denial, and by the value of GUARD_RUN_TEST,
which it overwrites in place: that is where guard-run looks.
"""

import calendar
import fnmatch
import json
import os
import re
import shutil
import sys
import threading
import time

import pytest

DENIALS = "GUARD_RUN_DENIALS"
TEST = "GUARD_RUN_TEST"
# Where the session is the one that was executed again: the options that it was given.
INSIDE = "PYTEST_GUARD_RUN"
# Room for the latest tests.
ROOM = 3000
TESTS = 12
# How many characters of a name guard-run keeps.
KEPT = 512
# How long to wait until guard-run says that all denials are in the file, in nanoseconds.
PATIENCE = 1_000_000_000
# The test of a denial of which guard-run knows none.
NONE = (None, None, None)
# In a session's configuration: how much of the file of denials is older than the session.
BEGINNING = pytest.StashKey()
# In a session's configuration: whether nothing else is in its guard.
OWN = pytest.StashKey()
# What is known of a run of an item, as Ran.
RAN = pytest.StashKey()
BY_TIME = "   test      by the time alone: guard-run knows no test of this session of that process"
ALLOW_BY = "   allow by  "
PATCH = "   patch     "
# The sessions that have begun in this process. Tests of plugins run more than one.
BEGUN = []

MISSING = (
    "--guard-policy needs guard-run, which is not in PATH: build and install it (make && sudo make install), "
    "or name it: GUARD_RUN=/path/to/guard-run"
)


class GuardWarning(pytest.PytestWarning):
    """A test was denied something, and --guard-report says that this is no failure."""


def pytest_addoption(parser):
    group = parser.getgroup("guard-run", "guard-run: a policy for what the session may touch")
    group.addoption("--guard-policy", metavar="FILE|NAME", help="run the session under guard-run with this policy")
    group.addoption(
        "--guard-report", action="store_true", help="warn of denials, instead of failing the tests that caused them"
    )
    group.addoption("--guard-log", metavar="FILE", help="where guard-run writes its log")


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "guard(allow=[...], expect=[...]): what the test may be denied, and what it has to be denied, as patterns of "
        '"OPERATION SUBJECT", such as "connect tcp 192.0.2.1:*"',
    )
    if is_guarded():
        config.pluginmanager.register(Guard(config), "guard-run-session")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config):
    """Executes the session again under guard-run, before anything is captured or loaded."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        guard(early_config.known_args_namespace)
    if is_guarded():
        # A guard that was started for this session has nothing older, and nothing else.
        own = bool(os.environ.get(INSIDE) and Place().size) and not BEGUN
        early_config.stash[OWN] = own
        early_config.stash[BEGINNING] = 0 if own else complete_size()
        BEGUN.append(True)
    yield


def guard(options):
    policy = options.guard_policy
    if INSIDE in os.environ:
        # This session was executed again, or another that was has started it and it is in that one's guard.
        if os.environ[INSIDE] and not is_guarded():
            raise pytest.UsageError(
                f"guard-run reports no denials under the policy {os.environ[INSIDE]} ({DENIALS} names no file): "
                'take one with "mode": "enforce" and full isolation'
            )
    elif is_guarded():
        # Somebody else has started it under guard-run: only the place for the names of tests is missing.
        again([], "")
    elif policy:
        program = os.environ.get("GUARD_RUN") or shutil.which("guard-run")
        if not program:
            raise pytest.UsageError(MISSING)
        log = ["--log", options.guard_log] if options.guard_log else []
        again([program, "--policy", policy, *log, "--"], policy)


def is_guarded():
    return bool(os.environ.get(DENIALS)) and os.path.exists(os.environ[DENIALS])


def again(prefix, policy):
    """Executes this program again, by way of another if there is a prefix. The environment has room for the names of tests."""
    original = getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv]
    command = [*prefix, sys.executable, *without_options(original[1:])]
    environment = {**os.environ, INSIDE: policy, TEST: "#".ljust(ROOM)}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise pytest.UsageError(f"{command[0]}: {error}") from error


def without_options(words):
    """A command line without the options of this plugin that have values: pytest takes any path among its arguments for one of tests."""
    kept, words = [], iter(words)
    for word in words:
        option, equals, _ = word.partition("=")
        if option not in ("--guard-policy", "--guard-log"):
            kept.append(word)
        elif not equals:
            next(words, None)
    return kept


def now(clock=time.CLOCK_REALTIME):
    """The time in nanoseconds. Tests that stop the time replace time.time(), and not this."""
    return time.clock_gettime_ns(clock)


def open_complete(path):
    """Opens the file of denials, and waits until guard-run says that all before are in it: opening it asks, its time of access answers."""
    before, end = now(), now(time.CLOCK_MONOTONIC) + PATIENCE
    file = open(path, "rb")
    while os.fstat(file.fileno()).st_atime_ns < before and now(time.CLOCK_MONOTONIC) < end:
        time.sleep(0.0002)
    return file


def complete_size():
    with open_complete(os.environ[DENIALS]) as file:
        return os.fstat(file.fileno()).st_size


class Place:
    """The value of GUARD_RUN_TEST as this process was started with it, where guard-run reads it."""

    def __init__(self):
        with open("/proc/self/environ", "rb") as file:
            found = re.search(rb"(?:^|\0)GUARD_RUN_TEST=(#[^\0]*)", file.read())
        self.size = len(found.group(1)) if found else 0
        if found:
            with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
                # Fields are counted from the third here, since the second may contain anything. env_start is the 50th.
                self.start = int(file.read().rpartition(")")[2].split()[47]) + found.start(1)
        self.lines = []

    def announce(self, thread, test):
        """Says that the test of this name, or none, runs from now on, in threads of this name."""
        if self.size < 100:
            return
        self.lines.insert(0, f"#{thread}\t{now(time.CLOCK_BOOTTIME)}\t{json.dumps(test) if test else ''}\n".encode())
        del self.lines[TESTS:]
        while sum(map(len, self.lines)) > self.size:
            self.lines.pop()
        text = b"".join(self.lines).ljust(self.size)
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            # While it begins like this, nobody reads it.
            for offset, part in ((0, b"!"), (1, text[1:]), (0, text[:1])):
                memory.seek(self.start + offset)
                memory.write(part)


def name_thread(name):
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w", encoding="ascii") as file:
        file.write(name)


def is_alone():
    """Whether none of this process's ancestors in the guard has another child. /proc shows those outside in a cgroup above."""
    pid = os.getpid()
    try:
        while True:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
                if re.search("^0::/\\.\\.", file.read(), re.MULTILINE):
                    return True
            children = 0
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                    children += len(file.read().split())
            if children != 1:
                return False
    except OSError:
        return False


def cut(name):
    """A name as guard-run keeps it."""
    return name if len(name) <= KEPT else name[:KEPT] + "…"


def split(nodeid):
    """A node's name as the parts that guard-run has for a test."""
    file, _, rest = nodeid.partition("::")
    before, bracket, case = rest.partition("[")
    suite, _, name = before.rpartition("::")
    test = {"name": cut(name + bracket + case), "file": cut(file)}
    return {"suite": cut(suite), **test} if suite else test


class Ran:
    """A test that was run in this process: when, by guard-run's clock in nanoseconds, and what it may be denied."""

    def __init__(self, nodeid, start):
        self.nodeid, self.start, self.end = nodeid, start, None
        self.allowed, self.expected = [], []
        # Whether nothing else seemed to run in the guard.
        self.alone = False
        # What it was denied so far.
        self.events = []

    def is_at(self, when):
        return self.start <= when and (self.end is None or when <= self.end)


class Guard:
    """What a session does inside a guard."""

    def __init__(self, config):
        self.config = config
        self.report_only = config.getoption("guard_report")
        self.path = os.environ[DENIALS]
        self.worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        self.place = Place()
        self.own = config.stash.get(OWN, False)
        # Whether one test of this session runs at a time, so that what happens during a test is that test's.
        self.alone = not self.worker
        # guard-run adds to CLOCK_BOOTTIME what was between both clocks when it started.
        self.offset = min(now() - now(time.CLOCK_BOOTTIME) for _ in range(9))
        # How far the file was read.
        self.position = config.stash.get(BEGINNING, None)
        if self.position is None:
            self.position = complete_size()
        # Denials that are in no report yet, by the test that they belong to.
        self.found = {}
        self.dropped = 0
        with open("/proc/self/comm", encoding="utf-8", errors="replace") as file:
            self.usual_name = file.read().rstrip("\n")
        # Tests that were run here, in their order.
        self.ran = []
        # Tests that were run here or by workers.
        self.known = set()
        # When tests ran that may be denied something, here or in workers, and what.
        self.allowing = []
        self.late = []

    def clock(self):
        return now(time.CLOCK_BOOTTIME) + self.offset

    def read(self):
        """Takes what is new in the file, once guard-run has said that all is there: whole lines only."""
        with open_complete(self.path) as file:
            file.seek(self.position)
            text = file.read()
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            event = json.loads(line)
            if "dropped" in event:
                self.dropped = event["dropped"]
                break
            self.position += len(line)
            self.found.setdefault(self.belongs(event), []).append(event)

    def belongs(self, event):
        """The test of a denial: the one that guard-run knows, else the one that ran at that time, where one did."""
        test = event.get("test") or {}
        named = (test.get("file"), test.get("suite"), test.get("name"))
        if self.alone and named not in self.known and (self.own or named == NONE):
            for ran in reversed(self.ran):
                if ran.is_at(when(event)):
                    if not (ran.alone and (self.own or is_alone())):
                        break
                    event["by time"] = True
                    return key(ran.nodeid)
        return named

    def pytest_sessionstart(self, session):
        self.session = session

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if self.ran and self.ran[-1].end is None:
            # Another plugin runs several at a time.
            self.alone = False
        ran = Ran(item.nodeid, self.clock())
        ran.alone = self.alone and (self.own or is_alone())
        self.ran.append(ran)
        self.known.add(key(item.nodeid))
        item.stash[RAN] = ran
        thread = f"t{self.worker[2:]}-{len(self.ran)}"[:15]
        test = split(item.nodeid)
        before = os.environ.get(TEST)
        self.place.announce(thread, test)
        name_thread(thread)
        # For what the test starts.
        os.environ[TEST] = json.dumps(test).ljust(ROOM)
        yield
        name_thread(self.usual_name)
        self.place.announce(self.usual_name, None)
        if before is not None:
            os.environ[TEST] = before
        ran.end = self.clock()

    def pytest_runtest_setup(self, item):
        ran = item.stash[RAN]
        try:
            ran.allowed, ran.expected = patterns(item)
        except ValueError as error:
            raise pytest.fail.Exception(f"guard-run: {error}", pytrace=False) from None

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        outcome = yield
        self.judge(item, outcome.get_result())

    def judge(self, item, report):
        """Has a report tell of what its test was denied since the one before, and fail by it."""
        self.read()
        ran = item.stash[RAN]
        events, missing, wrong = self.found.pop(key(item.nodeid), []), [], ""
        ran.events += events
        if report.when == "call":
            # Where several tests run at a time, a denial of no known test may be of each.
            unknown = [event for event in self.found.get(NONE, []) if ran.is_at(when(event))]
            try:
                # Marks may be added while the test runs.
                ran.allowed, ran.expected = patterns(item)
            except ValueError as error:
                wrong = f"guard-run: {error}\n"
            missing = [pattern for pattern in ran.expected if not is_in(ran.events + unknown, pattern)]
        text = wrong + "".join(f"guard-run: {shown(event)}\n" for event in events if not matches(event, ran.allowed))
        text += "".join(f"guard-run: this was to be denied, and was not: {pattern}\n" for pattern in missing)
        if not text:
            return
        if self.report_only and not missing and not wrong:
            try:
                item.warn(GuardWarning(f"{item.nodeid}\n{text.rstrip()}"))
                return
            except GuardWarning:
                # Warnings are to be errors.
                pass
        if report.passed:
            report.outcome = "failed"
            report.longrepr = text
        else:
            report.sections.append(("guard-run", text))

    def pytest_runtest_logreport(self, report):
        # Reports of workers come here, too. A test without this one has taken its worker along.
        if report.when == "teardown":
            self.known.add(key(report.nodeid))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        """Looks once more, for denials that are in no test's report."""
        self.read()
        for ran in self.ran:
            late = [event for event in self.found.pop(key(ran.nodeid), []) if not matches(event, ran.allowed)]
            self.late += [(f"{ran.nodeid}, after its report", shown(event)) for event in late]
        self.allowing += [(ran.start, ran.end or self.clock(), ran.allowed) for ran in self.ran if ran.allowed]
        if self.worker:
            self.config.workeroutput["guard_run_late"] = self.late
            self.config.workeroutput["guard_run_allowing"] = self.allowing
        else:
            for test, events in self.found.items():
                # What is of another session's test is that one's, unless all that is in the guard is this one's.
                if test == NONE or (self.own and test not in self.known):
                    self.late += [(self.place_of(test, event), shown(event)) for event in events if not self.may(event)]
        self.fail_if_late(session)

    def may(self, event):
        """Whether a test that ran at that time may be denied that."""
        return any(start <= when(event) <= end and matches(event, allowed) for start, end, allowed in self.allowing)

    def place_of(self, test, event):
        """Where a denial belongs that is of no test of this session."""
        if test != NONE:
            return "of another test, " + "::".join(filter(None, test))
        if not self.alone or (self.known and not self.ran) or any(ran.is_at(when(event)) for ran in self.ran):
            return "of no known test"
        if not self.ran or when(event) < self.ran[0].start:
            return "before the first test"
        return "after the last test" if when(event) > self.ran[-1].start else "between tests"

    def fail_if_late(self, session):
        if self.late and not self.report_only and not self.worker and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        output = getattr(node, "workeroutput", {})
        self.late += [tuple(each) for each in output.get("guard_run_late", [])]
        self.allowing += output.get("guard_run_allowing", [])

    def pytest_terminal_summary(self, terminalreporter):
        if self.late:
            terminalreporter.section("guard-run: denials in no test's report", red=True, bold=True)
            for place, text in self.late:
                terminalreporter.write_line(f"{place}: denied {text}")
        if self.dropped:
            terminalreporter.write_line(f"guard-run: {self.dropped} more denials are only in its log", red=True)


def patterns(item):
    """What a test may be denied, and what it must be."""
    mark = item.get_closest_marker("guard")
    if mark is None:
        return [], []
    if "policy" in mark.kwargs:
        raise ValueError(
            "a test can't have a policy of its own, since its process runs others, too; "
            "start what is to be narrowed by guard-run, or run the test in a session of its own"
        )
    unknown = [repr(each) for each in mark.args] + sorted(set(mark.kwargs) - {"allow", "expect"})
    if unknown:
        raise ValueError(f"the mark guard() has {', '.join(unknown)}; it knows allow=[...] and expect=[...] alone")
    for name, given in mark.kwargs.items():
        if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in given):
            raise ValueError(f"the mark guard() has {name}={given!r}, which has to be a list of patterns")
    expected = list(mark.kwargs.get("expect", []))
    return [*mark.kwargs.get("allow", []), *expected], expected


def key(nodeid):
    test = split(nodeid)
    return test["file"], test.get("suite"), test["name"]


def what(event):
    """What was denied: an operation and its subject, as guard-run's last line has it."""
    return re.split(r"(?: ×[0-9,]+)?: (?:would be )?denied by ", event["why"]["explanation"], maxsplit=1)[0]


def matches(event, wanted):
    return any(fnmatch.fnmatchcase(what(event), pattern) for pattern in wanted)


def is_in(events, pattern):
    return any(matches(event, [pattern]) for event in events)


def when(event):
    """When it was denied first, in nanoseconds."""
    digits = [int(part) for part in re.findall("[0-9]+", event["first"])]
    return calendar.timegm(digits[:6]) * 1_000_000_000 + digits[6]


def shown(event):
    """Why it was denied, and what would allow it, once: a change that the explanation has already is called the patch there."""
    why = event["why"]
    lines, patch = why["explanation"].rstrip().splitlines(), why.get("patch")
    if patch:
        changes = {number: line[len(ALLOW_BY) :] for number, line in enumerate(lines) if line.startswith(ALLOW_BY)}
        number = next((number for number, change in changes.items() if is_json(change, patch)), len(lines))
        lines[number : number + 1] = [f"{PATCH}{json.dumps(patch)}"]
    if event.get("by time"):
        lines.append(BY_TIME)
    return "\n".join(lines)


def is_json(text, value):
    try:
        return json.loads(text) == value
    except ValueError:
        return False
