"""The front door as a file, and as unmodified programs meet it where no daemon runs.

usage: front_door_test.py LIBRARY_DIRECTORY DLOPEN_PROGRAM [LIBTBT]
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REAL_DIRECTORIES = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]

DIRECTORY = Path(sys.argv[1])
DLOPEN_PROGRAM = Path(sys.argv[2])
LIBTBT = Path(sys.argv[3])
LIBRARY = DIRECTORY / "libibverbs.so.1"


def output(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def defined_symbols(library):
    """Name -> version ('@@' marks the default) of what a library exports."""
    found = []
    for line in output("nm", "-D", "--defined-only", "--with-symbol-versions", library).splitlines():
        kind, name = line.split()[-2:]
        if kind != "A":
            found.append(name)
    return found


class File(unittest.TestCase):
    def test_nothing_but_verbs_is_exported(self):
        strangers = [s for s in defined_symbols(LIBRARY) if not re.match(r"_?ibv_\w+@@?IBVERBS_", s)]
        self.assertEqual(strangers, [])

    def test_each_verb_has_the_version_that_the_real_library_gives_it(self):
        real = next(d for d in map(Path, REAL_DIRECTORIES) if (d / "libibverbs.so.1").exists())
        versions = dict(s.split("@@") for s in defined_symbols(real / "libibverbs.so.1") if "@@" in s)
        checked = 0
        for symbol in defined_symbols(LIBRARY):
            name, _, version = symbol.partition("@@")
            if version and name in versions and not version.startswith("IBVERBS_PRIVATE"):
                self.assertEqual(version, versions[name], name)
                checked += 1
        self.assertGreater(checked, 40)

    def test_every_version_node_that_a_plugin_may_demand_exists(self):
        nodes = set(re.findall(r"Name: (IBVERBS_\S+)", output("readelf", "-VW", LIBRARY)))
        wanted = {f"IBVERBS_1.{n}" for n in range(61)} | {f"IBVERBS_PRIVATE_{n}" for n in range(13, 200)}
        self.assertEqual(wanted - nodes, set())

    def test_the_gid_type_is_found_under_every_private_version(self):
        private = {s for s in defined_symbols(LIBRARY) if s.startswith("ibv_query_gid_type@")}
        self.assertEqual(len(private), 187)
        self.assertEqual(len([s for s in private if "@@" in s]), 1)

    def test_soname_dependency_and_flags(self):
        dynamic = output("readelf", "-dW", LIBRARY)
        self.assertIn("Library soname: [libibverbs.so.1]", dynamic)
        self.assertRegex(dynamic, r"NEEDED.*\[/.*/libibverbs\.so\.1\]")
        self.assertIn("NODELETE", dynamic)
        for absent in ("libasan", "libtsan", "libubsan", "libtbt", "RUNPATH", "RPATH"):
            self.assertNotIn(absent, dynamic)

    def test_the_link_for_dlopen_without_a_version(self):
        self.assertEqual((DIRECTORY / "libibverbs.so").resolve(), LIBRARY.resolve())

    def test_libtbt_has_the_two_functions_that_are_looked_up_by_name(self):
        if not LIBTBT.exists():
            self.skipTest("libtbt is not built")
        wanted = set(re.findall(rb"_ZN3tbt7Context\w+", LIBRARY.read_bytes()))
        self.assertEqual(len(wanted), 2)
        symbols = {line.split()[-1].encode() for line in output("nm", "-D", "--defined-only", LIBTBT).splitlines()}
        self.assertEqual(wanted - symbols, set())


def run(program, front_door, **extra):
    """Status, stdout and stderr of a program, without and with the front door, in a world without a daemon."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TBT_", "LD_"))}
    with tempfile.TemporaryDirectory() as empty:
        environment.update({"TBT_RUNTIME_DIR": empty, "TBT_SOCKET": f"{empty}/none.sock"}, **extra)
        if front_door:
            environment["LD_LIBRARY_PATH"] = str(DIRECTORY)
        done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


class WithoutDaemon(unittest.TestCase):
    def test_programs_behave_as_if_we_were_not_there(self):
        for program in (["ibv_devices"], ["ibv_devinfo"], ["ibv_devinfo", "-v"], ["ibv_devinfo", "-l"],
                        ["ibv_rc_pingpong"], ["ibv_uc_pingpong", "-d", "tbt0"], ["ib_send_bw"]):
            with self.subTest(program=program):
                self.assertEqual(run(program, front_door=True), run(program, front_door=False))

    def test_it_is_our_file_that_the_loader_takes(self):
        trace = run(["ibv_devices"], front_door=True, LD_TRACE_LOADED_OBJECTS="1")[1]
        self.assertIn(f"libibverbs.so.1 => {DIRECTORY}/libibverbs.so.1", trace)
        self.assertNotIn("libtbt", trace, "libtbt must be loaded only when devices are asked for")

    def test_plugins_of_the_real_library_load_beside_us(self):
        trace = run(["ib_send_bw"], front_door=True, LD_TRACE_LOADED_OBJECTS="1")[1]
        self.assertIn("libmlx5", trace)
        self.assertNotIn("not found", trace)

    def test_functions_are_found_by_dlsym_and_dlvsym_ours_and_the_real_ones(self):
        status, text, error = run([str(DLOPEN_PROGRAM)], front_door=True)
        self.assertEqual((status, error), (0, ""), text)
        lines = dict(line.split() for line in text.splitlines())
        for name in ("ibv_get_device_list", "ibv_reg_mr_iova2", "ibv_create_comp_channel", "ibv_qp_to_qp_ex"):
            self.assertEqual(lines[name], str(DIRECTORY / "libibverbs.so.1"), name)
        for name in ("ibv_fork_init", "ibv_event_type_str", "ibv_ack_cq_events", "ibv_query_ece"):
            self.assertTrue(lines[name].startswith("/usr/lib"), (name, lines[name]))

    def test_nothing_is_printed_and_the_preloaded_file_works_too(self):
        self.assertEqual(run(["true"], front_door=True, LD_PRELOAD=str(LIBRARY)), (0, "", ""))
        self.assertEqual(run(["ibv_devices"], front_door=False, LD_PRELOAD=str(LIBRARY)),
                         run(["ibv_devices"], front_door=False))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
