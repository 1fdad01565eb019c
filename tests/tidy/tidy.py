#!/usr/bin/env python3
"""House rules of the tree, checked from its text: see docs/HACKING.md, "House rules".

  tidy.py [--root DIR] [RULE...]      exit status 1 and one line per finding if a rule is broken
  tidy.py --list                      the rules

Every rule is a function that takes a Tree and yields findings. tidy_test.py plants violations of each.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

# Folders whose files are not ours or are made by the build.
SKIPPED = re.compile(r"^(build|build-.*|\.git|\.cache|__pycache__|\.venv)$")
CODE = {".h", ".cc", ".c"}
TEXT = CODE | {".py", ".sh", ".cmake", ".txt", ".md", ".json", ".1", ".7", ".8", ".in", ""}

# Which rooms of transport/ a room may include; `include/tbt` stands for the public headers. Every room may
# use the public value types, the headers in VALUE_TYPES.
ARROWS = {
    "base": set(),
    "sys": {"base"},
    "wire": {"base"},
    "verbs": {"base", "wire"},
    "engine": {"base", "wire", "verbs"},
    "rail": {"base", "sys", "wire"},
    "fabric": {"base", "wire", "rail", "sys"},
    "ip": {"base"},
    "device": {"base", "sys", "wire", "verbs", "engine", "rail", "fabric", "include/tbt"},
    "include/tbt": {"include/tbt"},
    "provider": {"include/tbt"},
    "libfabric_prov": {"include/tbt"},
    "collectives": {"include/tbt"},
    "tools": {"include/tbt", "fabric", "ip", "rail", "wire", "sys", "base"},
    "tests/sim": {"base", "wire", "verbs", "engine", "rail", "fabric"},
    "tests/model": {"base", "wire", "verbs", "engine"},
    "tests/fuzz": {"base", "wire", "verbs", "engine", "rail", "fabric", "ip", "sys"},
    "tests/conformance": set(),
    "tests/faults": set(),
    "tests/leaks": {"base", "rail", "fabric", "sys"},
    "tests/regress": {"base", "wire", "verbs", "engine", "rail", "fabric", "sys"},
    "benchmarks": {"base", "wire", "verbs", "engine", "rail", "fabric", "sys", "include/tbt"},
}
ROOMS = ("base", "sys", "wire", "verbs", "engine", "rail", "fabric", "ip", "device")
VALUE_TYPES = {"tbt/types.h", "tbt/status.h"}
# verbs knows opcodes and sequence numbers, but no packets; rail only what goes through ring 0 of a controller.
# A name that ends in "/" is a whole folder.
NARROW = {("verbs", "wire"): {"wire/opcode.h", "wire/psn.h"},
          ("rail", "wire"): {"wire/tb/", "wire/crc32c.h"}}

# Foreign headers: (pattern of the include, folders that may use it).
FENCES = (
    (re.compile(r"infiniband/"),
     ("provider/", "tests/provider/", "tests/conformance/", "tests/faults/", "tests/leaks/", "benchmarks/")),
    (re.compile(r"rdma/"), ("libfabric_prov/", "tests/libfabric_prov/")),
    (re.compile(r"linux/vfio\.h"), ("transport/rail/nhi/", "tests/rail/")),
    (re.compile(r"pcap"), ("transport/rail/middleware/", "tools/")),
    (re.compile(r"CLI/|nlohmann/|spdlog/"), ("tools/", "tests/tools/", "transport/fabric/", "tests/fabric/")),
)

# wire, verbs, engine and ip do no I/O: time, randomness and threads come from outside as parameters.
SANS_IO = ("transport/wire/", "transport/verbs/", "transport/engine/", "transport/ip/")
FORBIDDEN_INCLUDES = re.compile(
    r"^(thread|mutex|shared_mutex|condition_variable|future|chrono|random|fstream|filesystem|iostream"
    r"|ctime|time\.h|pthread\.h|unistd\.h|fcntl\.h|poll\.h|signal\.h|csignal|sys/.*|netinet/.*|arpa/.*"
    r"|linux/.*)$")
FORBIDDEN_WORDS = re.compile(
    r"\b(steady_clock|system_clock|high_resolution_clock|clock_gettime|gettimeofday|std::thread|std::jthread"
    r"|std::(?:recursive_|shared_)?mutex|std::condition_variable|pthread_\w+|getenv|secure_getenv"
    r"|random_device|getrandom|fopen|socket|uniform_int_distribution|sleep_for|usleep|nanosleep|rdtsc\w*)\b")

# Asking which instructions the processor has is no I/O.
SANS_IO_EXCEPTIONS = {("transport/wire/crc32c.cc", "sys/auxv.h")}

FILE_LINES_MAX = 600
LINE_COLUMNS_MAX = 120


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.paths = sorted(self._walk())
        self._texts = {}

    def _walk(self):
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if not SKIPPED.match(name)]
            for name in files:
                path = pathlib.Path(folder, name)
                if not path.is_symlink():
                    yield path.relative_to(self.root).as_posix()

    def text(self, path):
        if path not in self._texts:
            data = (self.root / path).read_bytes()
            self._texts[path] = None if b"\0" in data else data.decode("utf-8", "replace")
        return self._texts[path]

    def text_files(self):
        """(path, text) of everything that people read and write."""
        for path in self.paths:
            if pathlib.PurePath(path).suffix in TEXT and self.text(path) is not None:
                if "/corpus/" not in path:
                    yield path, self.text(path)

    def code_files(self):
        for path, text in self.text_files():
            if pathlib.PurePath(path).suffix in CODE:
                yield path, text


def without_comments(text):
    """C++ with comments, and the contents of string literals, blanked; line numbers stay."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(match):
        word = match.group(0)
        if word[0] == "/":
            return "\n" * word.count("\n")
        return word[0] + "\n" * word.count("\n") + word[-1]

    # An include's name is kept: it is not a string.
    blanked = token.sub(lambda m: m.group(0) if _is_include(text, m.start()) else blank(m), text)
    return blanked.split("\n")


def _is_include(text, position):
    start = text.rfind("\n", 0, position) + 1
    return text[position] == '"' and re.match(r"\s*#\s*include\s*$", text[start:position]) is not None


def includes(text):
    """(line number, name, whether in angle brackets) of every #include."""
    for number, line in enumerate(without_comments(text), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(2), match.group(1) == "<"


def room_of(path):
    """The key in ARROWS of the file, or None for a file outside the rooms."""
    if path.startswith("transport/include/"):
        return "include/tbt"
    parts = path.split("/")
    if parts[0] == "transport" and len(parts) > 2:
        return parts[1]
    if parts[0] == "tests" and len(parts) > 2:
        return f"tests/{parts[1]}"
    return parts[0] if len(parts) > 1 else None


def allowed(room):
    """Rooms that files of `room` may include beside their own."""
    if room in ARROWS:
        return ARROWS[room] | {room}
    if room.startswith("tests/"):
        tested = room.removeprefix("tests/")
        if tested in ARROWS:
            return ARROWS[tested] | {tested, "include/tbt", "base"}
    return None


def target_room(name):
    first = name.split("/")[0]
    if first == "tbt":
        return "include/tbt"
    return first if "/" in name and first in ROOMS + ("provider", "libfabric_prov", "collectives", "tools") else None


def rule_arrows(tree):
    """Includes go along the arrows of docs/ARCHITECTURE.md only."""
    for path, text in tree.code_files():
        room = room_of(path)
        may = allowed(room) if room else None
        if may is None:
            continue
        for number, name, angled in includes(text):
            target = target_room(name)
            if target is None or name in VALUE_TYPES or (angled and target == "sys"):  # <sys/mman.h>
                continue
            narrow = NARROW.get((room, target))
            if target not in may:
                yield f"{path}:{number}: {room} may not include {target} ({name})"
            elif narrow and name not in narrow and not any(
                    name.startswith(folder) for folder in narrow if folder.endswith("/")):
                yield f"{path}:{number}: {room} may include only {', '.join(sorted(narrow))} of {target}"


def rule_rooms(tree):
    """Every room of transport/ and tests/ that holds code is known to the arrows."""
    for path, _ in tree.code_files():
        room = room_of(path)
        if path.startswith(("transport/", "tests/")) and (room is None or allowed(room) is None):
            yield f"{path}:1: not in a room that tests/tidy/tidy.py knows; add it to ARROWS"


def rule_fences(tree):
    """Foreign headers stay in the folders made for them."""
    for path, text in tree.code_files():
        for number, name, _ in includes(text):
            for pattern, folders in FENCES:
                if pattern.match(name) and not path.startswith(folders):
                    yield f"{path}:{number}: <{name}> belongs in {' '.join(folders)}"


def rule_sans_io(tree):
    """wire, verbs, engine and ip know no clock, thread, mutex, socket, file, environment or OS randomness."""
    for path, text in tree.code_files():
        if not path.startswith(SANS_IO):
            continue
        for number, name, _ in includes(text):
            if FORBIDDEN_INCLUDES.match(name) and (path, name) not in SANS_IO_EXCEPTIONS:
                yield f"{path}:{number}: <{name}> in a room that does no I/O"
        for number, line in enumerate(without_comments(text), 1):
            if line.lstrip().startswith("#"):
                continue
            for match in FORBIDDEN_WORDS.finditer(line):
                yield f"{path}:{number}: '{match.group(0)}' in a room that does no I/O"


def rule_sizes(tree):
    """No code file is longer than 600 lines, no line of code wider than 120 columns."""
    for path, text in tree.text_files():
        if pathlib.PurePath(path).suffix not in CODE | {".py", ".sh", ".cmake", ""}:
            continue
        lines = text.split("\n")
        if len(lines) - 1 > FILE_LINES_MAX:
            yield f"{path}:1: {len(lines) - 1} lines; split it"
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_COLUMNS_MAX and "http" not in line:
                yield f"{path}:{number}: {len(line)} columns"


def rule_whitespace(tree):
    """No tabs, no blanks at the end of a line, one newline at the end of a file."""
    for path, text in tree.text_files():
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line:
                yield f"{path}:{number}: tab"
            if line.endswith((" ", "\r")):
                yield f"{path}:{number}: blank at the end of the line"
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            yield f"{path}:{text.count(chr(10))}: the file does not end with one newline"


def rule_opening(tree):
    """C++ files open with a comment that says what they are (or their header does); #pragma once."""
    for path, text in tree.code_files():
        explained = path.endswith(".cc") and path[:-2] + "h" in tree.paths
        if not explained and not text.lstrip().startswith(("//", "/*")):
            yield f"{path}:1: no opening comment"
        if path.endswith(".h") and "#pragma once" not in text:
            yield f"{path}:1: no #pragma once"


def rule_executable(tree):
    """What begins with #! is executable, and nothing else is."""
    for path, text in tree.text_files():
        executable = os.access(tree.root / path, os.X_OK)
        if text.startswith("#!") != executable:
            yield f"{path}:1: {'executable without #!' if executable else '#! but not executable'}"


def anchors(text):
    """The anchors that a forge makes of a document's headings."""
    for line in text.split("\n"):
        if line.startswith("#"):
            title = line.lstrip("#").strip().lower()
            yield re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def rule_links(tree):
    """Relative links in documents lead to files and headings that exist."""
    for path, text in tree.text_files():
        if not path.endswith(".md"):
            continue
        prose = re.sub(r"```.*?```", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
        for number, line in enumerate(prose.split("\n"), 1):
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if re.match(r"[a-z]+:", target):
                    continue
                name, _, anchor = target.partition("#")
                file = (tree.root / path).parent / name if name else tree.root / path
                if not file.exists():
                    yield f"{path}:{number}: {target} does not exist"
                elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                    yield f"{path}:{number}: no heading {anchor} in {name or path}"


CONFORMANCE = "docs/conformance.md"
STATUS = re.compile(r"implemented|deliberately different: \S.*|not yet: \S.*")


def known_tests(tree):
    """Suite.Name of every GoogleTest case and the names of the ctest entries that tests/ makes."""
    known = {f"tidy_{name}" for name in RULES}
    for path, text in tree.text_files():
        if not path.startswith("tests/"):
            continue
        if path.endswith(".cc"):
            cases = re.findall(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)", text, re.M)
            known.update(f"{suite}.{name}" for suite, name in cases)
        elif path.endswith("CMakeLists.txt"):
            known.update(re.findall(r"\b(?:add_test\(\s*NAME\s+|tbt_test\()([a-z_]+)\b(?!\$)", text))
            known.update(f"fuzz_{name}_replay" for name in re.findall(r"^tbt_fuzz\((\w+)", text, re.M))
        elif re.fullmatch(r"tests/conformance/groups_\w+\.py", path):
            known.update(f"conformance_{name}" for name in re.findall(r"^@group\(.*\)\ndef (\w+)", text, re.M))
    return known


def conformance_numbers(text):
    """The numbers that the document itself says the list has: "C-001 to C-018, C-020 to ...", in its order."""
    line = next((line for line in text.split("\n") if line.startswith("The list: ")), "")
    return [f"C-{number:03}" for first, last in re.findall(r"C-(\d+) to C-(\d+)", line)
            for number in range(int(first), int(last) + 1)]


def rule_conformance(tree):
    """docs/conformance.md has each number once and in order, a status, and tests that exist."""
    if CONFORMANCE not in tree.paths:
        return
    known = known_tests(tree)
    wanted = conformance_numbers(tree.text(CONFORMANCE))
    seen = []
    for number, line in enumerate(tree.text(CONFORMANCE).split("\n"), 1):
        if not re.match(r"\| C-", line):
            continue
        where = f"{CONFORMANCE}:{number}:"
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        seen.append(cells[0])
        if len(cells) != 4:
            yield f"{where} {cells[0]} has {len(cells)} cells, not 4"
            continue
        tests = re.findall(r"`([^`]+)`", cells[3])
        if not STATUS.fullmatch(cells[2]):
            yield f"{where} {cells[0]}: no such status: {cells[2]}"
        elif cells[2] == "implemented" and not tests:
            yield f"{where} {cells[0]} is implemented, but no test is named"
        for name in tests:
            if name not in known:
                yield f"{where} {cells[0]}: there is no test {name}"
    if not wanted:
        yield f"{CONFORMANCE}:1: no line that says which numbers the list has"
    elif seen != wanted:
        index = next((i for i, (a, b) in enumerate(zip(seen, wanted)) if a != b), min(len(seen), len(wanted)))
        found, due = (part[index] if index < len(part) else "the end" for part in (seen, wanted))
        yield f"{CONFORMANCE}:1: {found} where {due} is due"


SECURITY = "docs/security.md"


def rule_evidence(tree):
    """The tests that docs/security.md names exist."""
    if SECURITY not in tree.paths:
        return
    known = known_tests(tree)
    known |= {name.split(".")[0] + ".*" for name in known if "." in name}
    for number, line in enumerate(tree.text(SECURITY).split("\n"), 1):
        for name in re.findall(r"`([A-Z]\w*\.(?:\w+|\*)|conformance_\w+|\w+_test|\w+_replay)`", line):
            if name not in known:
                yield f"{SECURITY}:{number}: no test {name}"


def compile_alone(tree, path):
    """The compiler's complaint about a file that includes nothing but this header, or None."""
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-fsyntax-only"]
    folders = ["transport", "transport/include", "tools", "", os.path.dirname(path)]
    paths = [f"-I{tree.root / folder}" for folder in folders]
    command = [os.environ.get("CXX", "g++"), *flags, *paths, "-x", "c++", "-"]
    done = subprocess.run(command, input=f'#include "{tree.root / path}"\n', capture_output=True, text=True)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.split("\n") if "error" in line]
    return errors[0] if errors else done.stderr.strip()


def rule_headers(tree):
    """Each header compiles alone."""
    headers = [path for path, _ in tree.code_files() if path.endswith(".h")]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, error in zip(headers, pool.map(lambda header: compile_alone(tree, header), headers)):
            if error:
                yield f"{path}:1: does not compile alone: {error}"


RULES = {name.removeprefix("rule_"): function
         for name, function in sorted(globals().items()) if name.startswith("rule_")}


def main():
    parser = argparse.ArgumentParser(description="checks the house rules")
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("rules", nargs="*", metavar="RULE", help="default: all")
    options = parser.parse_args()
    if options.list:
        for name, function in RULES.items():
            print(f"{name:12} {function.__doc__}")
        return 0
    unknown = set(options.rules) - set(RULES)
    if unknown:
        parser.error(f"no such rule: {', '.join(sorted(unknown))}")
    tree = Tree(options.root)
    findings = [f"{finding} [{name}]"
                for name in options.rules or RULES for finding in RULES[name](tree)]
    print("\n".join(findings) if findings else f"tidy: {len(tree.paths)} files, nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
