#!/usr/bin/env python3
"""run.py must see a failure, a skip that nobody listed, a list that is out of date, and too few tests."""
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import run  # noqa: E402


def outcome(test, what, text=""):
    return {"test": test, "outcome": what, "text": text}


GOOD = [outcome("m.A.one", "passed"), outcome("m.A.two", "skipped", "no such verb")]
EXPECTED = run.expectations("# a comment\n\nmust m.A.two the verb is missing\nmay m.B.* the machine\n")


class ProblemsTest(unittest.TestCase):
    def problems(self, results, passed_min=1):
        return run.problems_of(results, EXPECTED, passed_min)

    def expect_one(self, problems, text):
        self.assertEqual(len(problems), 1, problems)
        self.assertIn(text, problems[0])

    def test_what_is_expected_is_no_problem(self):
        self.assertEqual(self.problems(GOOD), [])
        self.assertEqual(self.problems(GOOD + [outcome("m.B.x", "skipped", "no disk")]), [])

    def test_a_failure_is_told_with_its_text(self):
        self.expect_one(self.problems(GOOD + [outcome("m.A.three", "failed", "boom")]), "boom")

    def test_a_skip_that_is_not_listed_fails(self):
        self.expect_one(self.problems(GOOD + [outcome("m.A.three", "skipped", "tired")]), "not in expected_skips.txt")

    def test_a_must_that_passes_is_out_of_date(self):
        self.expect_one(self.problems(GOOD + [outcome("m.A.two", "passed")]), "take it out")

    def test_a_must_that_matches_nothing_is_out_of_date(self):
        self.expect_one(self.problems(GOOD[:1]), "take it out")

    def test_too_few_tests_fail(self):
        self.expect_one(self.problems(GOOD, passed_min=2), "only 1 tests passed, at least 2 must")

    def test_a_line_of_another_kind_is_refused(self):
        self.assertRaises(ValueError, run.expectations, "maybe m.A.two reason")

    def test_the_real_list_can_be_read(self):
        text = (pathlib.Path(run.__file__).parent / "expected_skips.txt").read_text()
        self.assertTrue(all(e.reason for e in run.expectations(text)))


if __name__ == "__main__":
    unittest.main()
