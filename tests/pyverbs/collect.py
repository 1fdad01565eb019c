"""Runs the pyverbs test-suite as its own run_tests.py does, and writes what became of each test.

usage: collect.py FOLDER RESULTS [ARGUMENT OF THE SUITE...]

FOLDER contains the suite as `tests`. RESULTS gets a JSON line per test as it ends, so that a run that dies says
how far it came. Runs under the system's Python, which has pyverbs.
"""
import json
import sys
import unittest


class Recorder(unittest.TextTestResult):
    """A result that also writes its outcomes. A test may have several: each failing subtest is one."""

    out = None

    def record(self, test, outcome, text=""):
        self.out.write(json.dumps({"test": test.id(), "outcome": outcome, "text": text}) + "\n")
        self.out.flush()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.record(test, "passed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.record(test, "skipped", reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.record(test, "failed", self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.record(test, "failed", self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.record(subtest, "failed", repr(err[1]))

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.record(test, "skipped", "the suite expects it to fail")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.record(test, "failed", "the suite expects it to fail, and it passed")


def main():
    folder, results, *arguments = sys.argv[1:]
    sys.path[:0] = [folder, f"{folder}/tests"]
    sys.argv[1:] = arguments
    from args_parser import parser
    parser.parse_args()
    import tests
    with open(results, "w", encoding="utf-8") as Recorder.out:
        unittest.main(module=tests, exit=False,
                      testRunner=unittest.TextTestRunner(resultclass=Recorder, verbosity=2))


if __name__ == "__main__":
    main()
