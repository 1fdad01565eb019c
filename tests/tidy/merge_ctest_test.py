#!/usr/bin/env python3
"""scripts/merge_ctest.py: tests of two builds become one run that keeps commands and properties."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

MERGE = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "merge_ctest.py"

SMALL_BUILD = r"""
add_test([[echoes]] "/bin/sh" "-c" [[echo "$WORD;]=]" && test "$WORD" = "a b"]])
set_tests_properties(echoes PROPERTIES ENVIRONMENT "WORD=a b;OTHER=2" LABELS "fast;tidy")
add_test(skips "/bin/sh" "-c" "exit 77")
set_tests_properties(skips PROPERTIES SKIP_RETURN_CODE 77 DEPENDS echoes LABELS fast)
add_test(fails "/bin/false")
set_tests_properties(fails PROPERTIES LABELS nightly)
"""


class Merge(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for preset in ("dev", "asan"):
            (self.root / preset).mkdir()
            (self.root / preset / "CTestTestfile.cmake").write_text(SMALL_BUILD)

    def merge(self, *selections):
        return subprocess.run([sys.executable, MERGE, "all", *selections], cwd=self.root,
                              capture_output=True, text=True)

    def ctest(self, *options):
        return subprocess.run(["ctest", "--test-dir", "all", *options], cwd=self.root,
                              capture_output=True, text=True)

    def names(self):
        shown = json.loads(self.ctest("--show-only=json-v1").stdout)
        return [test["name"] for test in shown["tests"]]

    def test_selections_are_merged_without_repeats(self):
        self.assertEqual(self.merge("dev -LE nightly", "dev -L fast", "asan -L fast -LE tidy").returncode, 0)
        self.assertEqual(sorted(self.names()), ["asan/skips", "dev/echoes", "dev/skips"])

    def test_commands_and_properties_survive(self):
        self.merge("dev -LE nightly")
        done = self.ctest("--output-on-failure")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("0 tests failed out of 2", done.stdout)
        self.assertIn("dev/skips (Skipped)", done.stdout)

    def test_a_failure_fails_the_merged_run(self):
        self.merge("dev -LE nightly", "asan -L nightly")
        done = self.ctest()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("1 tests failed out of 3", done.stdout)

    def test_a_missing_build_is_an_error(self):
        done = self.merge("nowhere -L fast")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nowhere", done.stderr)


if __name__ == "__main__":
    unittest.main()
