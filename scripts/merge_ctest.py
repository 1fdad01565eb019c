#!/usr/bin/env python3
"""Merges tests of several build trees into one ctest tree, so that one run and one summary cover them all.

  merge_ctest.py OUT_DIR "BUILD_DIR [CTEST SELECTION...]"...

Each test appears once, named PRESET/TEST (PRESET is the build directory's name), with its properties.
"""
import json
import pathlib
import subprocess
import sys


def bracket(text):
    """A CMake argument that is taken literally, whatever it holds."""
    level = 0
    while f"]{'=' * level}]" in text or text.endswith("]" + "=" * level):
        level += 1
    equals = "=" * level
    # CMake drops a newline that directly follows the opening bracket.
    newline = "\n" if text.startswith("\n") else ""
    return f"[{equals}[{newline}{text}]{equals}]"


def property_text(value):
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, list):
        return ";".join(str(item) for item in value)
    return str(value)


def selected_tests(selection):
    build_dir, *options = selection.split()
    command = ["ctest", "--test-dir", build_dir, "--show-only=json-v1", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"merge_ctest: {' '.join(command)} failed:\n{done.stderr}")
    return pathlib.Path(build_dir).name, json.loads(done.stdout)["tests"]


def renamed(name, value, preset):
    """Names of other tests and of fixtures are renamed too. Everything else stays."""
    if name == "DEPENDS" or name.startswith("FIXTURES_"):
        return [f"{preset}/{test}" for test in value]
    return value


def render(preset, test):
    name = f"{preset}/{test['name']}"
    lines = [f"add_test({bracket(name)} {' '.join(bracket(word) for word in test['command'])})"]
    words = []
    for entry in test.get("properties", []):
        value = renamed(entry["name"], entry["value"], preset)
        words.append(f"{entry['name']} {bracket(property_text(value))}")
    if words:
        lines.append(f"set_tests_properties({bracket(name)} PROPERTIES {' '.join(words)})")
    return lines


def merge(selections):
    seen = set()
    lines = ["# Written by scripts/merge_ctest.py."]
    for selection in selections:
        preset, tests = selected_tests(selection)
        for test in tests:
            key = (preset, test["name"])
            if key in seen:
                continue
            seen.add(key)
            if not test.get("command"):
                sys.exit(f"merge_ctest: {preset}/{test['name']} has no program; was it built?")
            lines += render(preset, test)
    return lines


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "CTestTestfile.cmake").write_text("\n".join(merge(sys.argv[2:])) + "\n")


if __name__ == "__main__":
    main()
