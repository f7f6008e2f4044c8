"""Runs tests of CPython's own test suite: modules (test.test_socket) or single tests (test.test_socket.SocketTests.test_x),
which are the arguments, but none whose class has one of the words after "--without" in its name. Prints a line
"RESULT TEST OUTCOME" for each test; there are no such lines for tests that never ended.
"""
import faulthandler, os, sys, unittest
from test import support

# No test takes as long; what does, hangs, and everything ends here.
PATIENCE = 60
# From best to worst, since the parts of a test can have several.
OUTCOMES = ["ok", "skipped", "expected-failure", "unexpected-success", "failure", "error"]


class Result(unittest.TestResult):
    outcome = "ok"

    def note(self, outcome):
        self.outcome = max(self.outcome, outcome, key=OUTCOMES.index)

    def explain(self, outcome, test, error):
        self.note(outcome)
        print(f"{outcome}: {test.id()}\n{self._exc_info_to_string(error, test)}", file=sys.stderr, flush=True)

    def startTest(self, test):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        self.outcome = "ok"

    def stopTest(self, test):
        # One write each: some tests fork, and some threads print.
        os.write(1, f"RESULT {test.id()} {self.outcome}\n".encode())

    def outside(self, outcome, test):
        """A class or module that can't be set up, or is skipped then, has no tests that start."""
        self.startTest(test)
        self.note(outcome)
        self.stopTest(test)

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self.note("skipped")
        else:
            self.outside("skipped", test)

    def addExpectedFailure(self, test, error):
        self.note("expected-failure")

    def addUnexpectedSuccess(self, test):
        self.note("unexpected-success")

    def addFailure(self, test, error):
        self.explain("failure", test, error)

    def addError(self, test, error):
        self.explain("error", test, error)
        if not isinstance(test, unittest.TestCase):
            self.outside("error", test)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            kind = "failure" if issubclass(error[0], test.failureException) else "error"
            self.explain(kind, subtest, error)


def leave_out(suite, words):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            leave_out(test, words)
    suite._tests = [test for test in suite if not any(word in getattr(test, "id", str)() for word in words)]


words = sys.argv[1:]
at = words.index("--without") if "--without" in words else len(words)
names, without = words[:at], words[at + 1:]
# Nothing that needs the Internet.
support.use_resources = []
suite = unittest.defaultTestLoader.loadTestsFromNames(names)
leave_out(suite, without)
# Some tests leave files behind.
os.chdir(os.path.dirname(os.path.abspath(__file__)))
# The suite lets go of the tests that are done. Anybody who kept them would make every garbage collection slower, and asyncio's
# tests collect a lot.
suite.run(Result())
faulthandler.cancel_dump_traceback_later()
