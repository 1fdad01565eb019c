#!/usr/bin/env python3
"""Plants one violation of each house rule in a scratch tree, and expects that rule, and no other, to find it."""
import pathlib
import stat
import tempfile
import unittest

import tidy

OPENING = "// A file of the scratch tree.\n"
HEADER = OPENING + "#pragma once\n"


class Planted(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.root = pathlib.Path(self._folder.name)
        self.plant("transport/base/bytes.h", HEADER + "#include <cstdint>\nusing Byte = std::uint8_t;\n")
        self.plant("transport/wire/packet.h", HEADER + '#include "base/bytes.h"\n')
        self.plant("transport/wire/opcode.h", HEADER)
        self.plant("transport/sys/clock.h", HEADER)
        self.plant("transport/include/tbt/types.h", HEADER)
        self.plant("transport/include/tbt/device.h", HEADER + '#include "tbt/types.h"\n')
        self.plant("README.md", "# Title\n\nSee [the code](transport/base/bytes.h).\n\n## Part two\n")
        self.plant("run", "#!/bin/sh\nexit 0\n", executable=True)

    def plant(self, path, text, executable=False):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if executable:
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def findings(self):
        tree = tidy.Tree(self.root)
        return {name: list(rule(tree)) for name, rule in tidy.RULES.items()}

    def expect(self, **expected):
        """expect(rule=[parts of its findings]...); all other rules find nothing."""
        for name, found in self.findings().items():
            parts = expected.get(name, [])
            self.assertEqual(len(found), len(parts), f"{name}: {found}")
            for part, finding in zip(parts, sorted(found)):
                self.assertIn(part, finding)

    def test_clean_tree_has_no_findings(self):
        self.expect()

    def test_build_folders_are_not_looked_at(self):
        self.plant("build/dev/generated.cc", "no comment\t\n")
        self.plant("build-x/generated.cc", "no comment\t\n")
        self.expect()

    def test_include_against_an_arrow(self):
        self.plant("transport/engine/requester.cc", OPENING + '#include "rail/rail.h"\n')
        self.expect(arrows=["requester.cc:2: engine may not include rail"])

    def test_include_against_an_arrow_in_angle_brackets(self):
        self.plant("transport/base/list.cc", OPENING + "#include <wire/packet.h>\n")
        self.expect(arrows=["base may not include wire"])

    def test_system_headers_in_sys_are_no_room(self):
        self.plant("transport/rail/map.cc", OPENING + "#include <sys/mman.h>\n#include \"sys/clock.h\"\n")
        self.expect()

    def test_commented_include_is_no_include(self):
        self.plant("transport/engine/a.cc", OPENING + '/* #include "rail/rail.h" */\n// #include "device/a.h"\n')
        self.expect()

    def test_verbs_knows_opcodes_but_no_packets(self):
        self.plant("transport/verbs/qp.cc", OPENING + '#include "wire/opcode.h"\n#include "wire/packet.h"\n')
        self.expect(arrows=["qp.cc:3: verbs may include only wire/opcode.h, wire/psn.h"])

    def test_rail_knows_the_control_channel_but_no_packets(self):
        self.plant("transport/rail/a.cc", OPENING + '#include "wire/tb/route.h"\n#include "wire/packet.h"\n')
        self.expect(arrows=["a.cc:3: rail may include only wire/crc32c.h, wire/tb/ of wire"])

    def test_rooms_may_use_the_public_value_types_only(self):
        self.plant("transport/verbs/qp.cc", OPENING + '#include "tbt/types.h"\n#include "tbt/device.h"\n')
        self.expect(arrows=["qp.cc:3: verbs may not include include/tbt"])

    def test_provider_sees_the_public_headers_only(self):
        self.plant("provider/qp.cc", OPENING + '#include "tbt/device.h"\n#include "verbs/qp.h"\n')
        self.expect(arrows=["provider may not include verbs"])

    def test_tools_may_not_reach_into_the_engine(self):
        self.plant("tools/tbt/dump.cc", OPENING + '#include "wire/packet.h"\n#include "engine/endpoint.h"\n')
        self.expect(arrows=["tools may not include engine"])

    def test_a_test_sees_what_its_room_sees(self):
        self.plant("tests/wire/a_test.cc", OPENING + '#include "wire/packet.h"\n#include "rail/rail.h"\n')
        self.expect(arrows=["tests/wire may not include rail"])

    def test_unknown_room(self):
        self.plant("transport/misc/a.cc", OPENING)
        self.expect(rooms=["transport/misc/a.cc"])

    def test_foreign_header_outside_its_fence(self):
        self.plant("transport/verbs/a.cc", OPENING + "#include <infiniband/verbs.h>\n")
        self.plant("provider/a.cc", OPENING + "#include <infiniband/verbs.h>\n")
        self.plant("tools/tbt/a.cc", OPENING + "#include <rdma/rdma_cma.h>\n#include <CLI/CLI.hpp>\n")
        self.plant("transport/sys/a.cc", OPENING + "#include <linux/vfio.h>\n#include <pcap/pcap.h>\n")
        self.expect(fences=["tools/tbt/a.cc:2", "transport/sys/a.cc:2", "transport/sys/a.cc:3",
                            "transport/verbs/a.cc:2"])

    def test_io_in_a_room_without_io(self):
        self.plant("transport/engine/a.cc", OPENING + "#include <thread>\n#include <sys/socket.h>\n")
        self.plant("transport/verbs/b.cc", OPENING + "auto t = std::chrono::steady_clock::now();\nstd::mutex m;\n")
        self.plant("transport/wire/c.cc", OPENING + 'auto v = getenv("X");\nint random_device_count; /* std::mutex */\n'
                   'const char* s = "std::mutex // not code";\n')
        self.expect(sans_io=["engine/a.cc:2: <thread>", "engine/a.cc:3: <sys/socket.h>",
                             "verbs/b.cc:2: 'steady_clock'", "verbs/b.cc:3: 'std::mutex'",
                             "wire/c.cc:2: 'getenv'"])

    def test_io_is_allowed_elsewhere(self):
        self.plant("transport/device/a.cc", OPENING + "#include <thread>\nstd::mutex m;\n")
        self.expect()

    def test_long_file_and_wide_line(self):
        self.plant("transport/base/long.cc", OPENING * 601)
        self.plant("transport/base/wide.cc", "// " + "x" * 118 + "\n")
        self.plant("transport/base/edge.cc", OPENING * 599 + "// " + "x" * 117 + "\n")
        self.expect(sizes=["long.cc:1: 601 lines", "wide.cc:1: 121 columns"])

    def test_whitespace(self):
        self.plant("transport/base/a.cc", OPENING + "int a; \n\tint b;\n")
        self.plant("transport/base/b.cc", OPENING + "int a;")
        self.plant("transport/base/c.cc", OPENING + "\n")
        self.expect(whitespace=["a.cc:2: blank", "a.cc:3: tab", "b.cc:1: the file", "c.cc:2: the file"])

    def test_opening_comment_and_pragma(self):
        self.plant("transport/base/a.cc", "int a;\n")
        self.plant("transport/base/b.h", OPENING)
        self.plant("transport/base/bytes.cc", '#include "base/bytes.h"\n')  # its header says it
        self.expect(opening=["a.cc:1: no opening comment", "b.h:1: no #pragma once"])

    def test_executable_bits(self):
        self.plant("a.sh", "#!/bin/sh\n")
        self.plant("b.py", "pass\n", executable=True)
        self.expect(executable=["a.sh:1: #! but not executable", "b.py:1: executable without #!"])

    def test_links_that_lead_nowhere(self):
        self.plant("docs/a.md", "[up](../README.md) [part](../README.md#part-two) [web](https://x.org/y)\n"
                   "[gone](missing.md)\n[no part](../README.md#part-three) [here](#nothing)\n"
                   "```\n[example](in/code)\n```\n")
        self.expect(links=["a.md:2: missing.md", "a.md:3: no heading nothing",
                           "a.md:3: no heading part-three"])

    def plant_conformance(self, *rows):
        self.plant("tests/engine/a_test.cc", OPENING + "TEST(Suite, Name) {}\nTEST_F(Fixture,\n       Other) {}\n")
        self.plant("tests/engine/CMakeLists.txt", "tbt_test(engine_test\n  SOURCES a_test.cc)\nadd_test(NAME sim)\n")
        self.plant("tests/fuzz/CMakeLists.txt", "tbt_fuzz(packet ROOMS wire)\nadd_test(NAME made_${name})\n")
        self.plant("tests/conformance/groups_x.py", "@group(alone=True)\ndef kill(site):\n    pass\n")
        table = "".join(f"| {row} |\n" for row in rows)
        self.plant("docs/conformance.md", f"# List\n\nThe list: C-001 to C-002, C-010 to C-011.\n\n{table}")

    def test_conformance_with_every_kind_of_test(self):
        self.plant_conformance("C-001 | a | implemented | `Suite.Name`, `Fixture.Other`", "C-002 | b | not yet: c |",
                               "C-010 | d | deliberately different: e | `sim`, `engine_test`, `tidy_links`",
                               "C-011 | f | implemented | `fuzz_packet_replay`, `conformance_kill`")
        self.expect()

    def test_conformance_that_names_no_test_or_one_that_is_not_there(self):
        self.plant_conformance("C-001 | a | implemented | `Suite.Gone`, `made_`", "C-002 | b | implemented |",
                               "C-010 | c | nearly | `sim`", "C-011 | not yet: d |")
        self.expect(conformance=["C-001: there is no test Suite.Gone", "C-001: there is no test made_",
                                 "C-002 is implemented, but no test", "C-010: no such status: nearly",
                                 "C-011 has 3 cells"])

    def test_conformance_with_numbers_missing_or_out_of_order(self):
        rows = [f"C-{number} | a | not yet: b |" for number in ("001", "002", "010", "011")]
        self.plant_conformance(*rows[:3])
        self.expect(conformance=["the end where C-011 is due"])
        self.plant_conformance(rows[0], rows[2], rows[1], rows[3])
        self.expect(conformance=["C-010 where C-002 is due"])
        self.plant_conformance(*rows, "C-012 | a | not yet: b |")
        self.expect(conformance=["C-012 where the end is due"])
        self.plant("docs/conformance.md", "# List\n")
        self.expect(conformance=["no line that says which numbers"])

    def test_evidence_that_does_not_exist(self):
        self.plant("tests/wire/a_test.cc", OPENING + "TEST(Frame, IsRead) {}\nTEST_F(Other, Case) {}\n")
        self.plant("tests/wire/CMakeLists.txt", "tbt_test(wire_test SOURCES a_test.cc)\ntbt_fuzz(frame ROOMS wire)\n")
        self.plant("docs/security.md", "`Frame.IsRead`, `Other.*`, `wire_test`, `fuzz_frame_replay`, `secure_getenv`\n"
                   "`Frame.IsLost`\n`Nothing.*`\n`rail_test`\n`fuzz_rail_replay`\n")
        self.expect(evidence=["security.md:2: no test Frame.IsLost", "security.md:3: no test Nothing.*",
                              "security.md:4: no test rail_test", "security.md:5: no test fuzz_rail_replay"])

    def test_header_that_needs_another_first(self):
        self.plant("transport/base/a.h", HEADER + "inline std::string f() { return {}; }\n")
        self.expect(headers=["base/a.h:1: does not compile alone"])


if __name__ == "__main__":
    unittest.main()
