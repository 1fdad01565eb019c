#!/usr/bin/env python3
"""Every option that a command's --help names is in its manual page, and each page can be formatted.

  man_test.py BIN-DIRECTORY MAN-DIRECTORY
"""
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

BIN, MAN = (pathlib.Path(argument) for argument in sys.argv[1:3])

# Which page a command is on: the longest fit. --root is for tests: another /sys.
PAGES = {"fabric": "tbt-fabric.1", "run": "tbt-run.1", "dump": "tbt-dump.1", "doctor": "tbt-doctor.1",
         "bind": "tbt-bind.1", "unbind": "tbt-bind.1", "": "tbt.1"}
UNSAID = {"--help", "--root"}


def help_of(*words):
    done = subprocess.run([*words, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def options_in(text):
    return {option for line in re.findall(r"^  +(-\S+(?:,-\S+)*)", text, re.M)
            for option in re.findall(r"(?:^|,)(--[a-z0-9-]+)", line)} - UNSAID


def subcommands_in(text):
    part = text.partition("Subcommands:")[2]
    return re.findall(r"^  ([a-z0-9]+)\s", part, re.M)


def commands(words=()):
    """Each command with its options, the subcommands of subcommands, too."""
    text = help_of(str(BIN / "tbt"), *words)
    yield words, options_in(text)
    for name in subcommands_in(text):
        yield from commands((*words, name))


def plain(page):
    return re.sub(r"\\f[BRIP]|\\", "", (MAN / page).read_text())


def says(page, option):
    text = plain(page)
    return re.search(rf"{re.escape(option)}\b", text) or re.search(rf"Fl -{re.escape(option[2:])}\b", text)


class Manual(unittest.TestCase):
    def test_every_option_of_tbt_is_in_its_page(self):
        seen = list(commands())
        self.assertGreater(len(seen), 15, "the commands were not found in the help")
        missing = [f"{PAGES.get(words[0] if words else '', 'tbt.1')}: tbt {' '.join(words)} {option}"
                   for words, options in seen for option in sorted(options)
                   if not says(PAGES.get(words[0] if words else "", "tbt.1"), option)]
        self.assertEqual(missing, [])

    def test_every_option_of_tbtd_is_in_its_page(self):
        options = options_in(help_of(str(BIN / "tbtd")))
        self.assertIn("--controller", options)
        self.assertEqual([option for option in sorted(options) if not says("tbtd.8", option)], [])

    def test_an_option_that_is_not_there_is_missed(self):
        self.assertFalse(says("tbtd.8", "--controllers"))
        self.assertTrue(says("tbt-dump.1", "--write"))

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_pages_can_be_formatted(self):
        for page in sorted(MAN.iterdir()):
            done = subprocess.run(["groff", "-man" if b".TH" in page.read_bytes() else "-mdoc", "-Tutf8", "-ww", page],
                                  capture_output=True, text=True, timeout=20)
            self.assertEqual((done.returncode, done.stderr), (0, ""), page.name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
