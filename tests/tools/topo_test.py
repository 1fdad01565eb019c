#!/usr/bin/env python3
"""tbt topo and tbt devices --cables: what they say of fabrics that run; and other programs read the drawings.

  topo_test.py BIN_DIR [unittest options]
"""
import json
import os
import re
import shutil
import signal
import subprocess
import unittest
import xml.etree.ElementTree as ElementTree

from cli_test import Fabric, pid_of, wait_until

SVG = "{http://www.w3.org/2000/svg}"
# Bytes that one of the formats could take for its own.
NAMES = ['<&">\'', "a\\N\\\"b", "new\nline", "-- [x];", "Büro ☃", "\ufffe\u0001", "x" * 63, "]]>"]


def mesh(hosts):
    """What `tbt fabric status --json` would print of a mesh, every name of NAMES among the hosts."""
    cables = [{"cable": i, "a": a, "b": b}
              for i, (a, b) in enumerate((a, b) for a in range(hosts) for b in range(a + 1, hosts))]
    statuses = []
    for host in range(hosts):
        mine = [c for c in cables if host in (c["a"], c["b"])]
        ports = [{"port": k, "adapter": 2 * k + 1, "state": "up", "speed_gbps": 40, "lanes": 2, "trouble": NAMES[k % 8],
                  "peer": {"name": NAMES[(c["a"] + c["b"] - host) % 8], "uuid": "u", "runs_tbt": True, "services": []}}
                 for k, c in enumerate(mine)]
        statuses.append({"host": host, "name": NAMES[host % 8], "links": mine, "router": {"uuid": "u", "ports": ports}})
    return [{"name": "default", "topology": "mesh", "cables": cables, "hosts": statuses}]


class Drawings(Fabric):
    def draw(self, report, form):
        return self.good("topo", "--from", "-", "--format", form, input=json.dumps(report))

    def test_svg_is_xml_with_every_host_and_cable_on_the_page(self):
        for hosts in range(1, 9):
            root = ElementTree.fromstring(self.draw(mesh(hosts), "svg"))
            self.assertEqual(root.tag, SVG + "svg")
            width, height = map(float, root.get("viewBox").split()[2:])
            boxes = [g for g in root.iter(SVG + "g") if (g.get("class") or "").startswith("host")]
            lines = list(root.iter(SVG + "line"))
            self.assertEqual((len(boxes), len(lines)), (hosts, hosts * (hosts - 1) // 2))
            spots = []
            for box in boxes:
                x, y = map(float, re.findall(r"-?[\d.]+", box.get("transform")))
                rect = box.find(SVG + "rect")
                half = float(rect.get("width")) / 2, float(rect.get("height")) / 2
                self.assertTrue(half[0] <= x <= width - half[0] and half[1] <= y <= height - half[1])
                for other in spots:
                    self.assertTrue(abs(x - other[0]) >= 2 * half[0] or abs(y - other[1]) >= 2 * half[1],
                                    f"two of {hosts} hosts overlap")
                spots.append((x, y))

    def test_svg_keeps_names(self):
        root = ElementTree.fromstring(self.draw(mesh(8), "svg"))
        names = [t.text for t in root.iter(SVG + "text") if t.get("class") == "name"]
        self.assertEqual(names[0], NAMES[0])
        self.assertEqual(names[1], NAMES[1])
        self.assertEqual(names[4], NAMES[4])
        self.assertEqual(names[5], "??")

    @unittest.skipUnless(shutil.which("dot"), "Graphviz is not here")
    def test_graphviz_reads_dot(self):
        for hosts in (2, 3, 8):
            done = subprocess.run(["dot", "-Tsvg"], input=self.draw(mesh(hosts), "dot"), capture_output=True, text=True,
                                  timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            groups = [g.get("class") for g in ElementTree.fromstring(done.stdout).iter(SVG + "g")]
            self.assertEqual((groups.count("node"), groups.count("edge")), (hosts, hosts * (hosts - 1) // 2))

    def test_bad_input(self):
        self.bad("topo", says="no fabric 'default'")
        self.bad("topo", "--format", "png", code=2, says="--format")
        self.bad("topo", "--from", self.runtime / "none", says="cannot read")
        self.bad("topo", "--from", "-", says="fabric status --json", input="{")
        self.bad("topo", "--from", "-", "--fabric", "x", says="nothing of a fabric 'x'", input="[]")
        self.bad("topo", "--from", "-", "-o", self.runtime / "no" / "file", says="cannot write",
                 input=json.dumps(mesh(2)))


class Running(Fabric):
    def topo(self):
        return json.loads(self.good("topo", "--format", "json"))

    def test_a_fabric_from_up_to_a_pulled_cable_and_a_dead_daemon(self):
        self.good("fabric", "up", "--hosts", 3)
        self.assertTrue(wait_until(lambda: all(p["carries_frames"] for h in self.topo()["hosts"] for p in h["ports"])))
        topo = self.topo()
        uuids = {h["host"]: h["uuid"] for h in topo["hosts"]}
        self.assertEqual(len(set(uuids.values())), 3)
        for cable in topo["cables"]:
            ends = [(e["host"], topo["hosts"][e["host"]]["ports"][e["port"]]) for e in cable["ends"]]
            (host_a, a), (host_b, b) = ends
            self.assertEqual((a["peer"]["uuid"], b["peer"]["uuid"]), (uuids[host_b], uuids[host_a]))
            self.assertEqual((a["path"]["out_hop_id"], b["path"]["out_hop_id"]),
                             (b["path"]["in_hop_id"], a["path"]["in_hop_id"]))
            self.assertEqual((a["path"]["peer_rail"], b["path"]["peer_rail"]), (b["port"], a["port"]))
        drawing = self.runtime / "default" / ".." / ".." / "topo.svg"
        self.assertEqual(self.good("topo", "--format", "svg", "-o", drawing), "")
        self.assertEqual(len(list(ElementTree.parse(drawing).iter(SVG + "line"))), 3)
        saved = self.good("fabric", "status", "--json")
        self.assertEqual(self.good("topo", "--from", "-", input=saved), self.good("topo"))

        cables = self.good("devices", "--cables", "--host", 0)
        self.assertIn(uuids[1], cables)
        self.assertIn("by HopID", cables)
        self.assertIn("tbtrdma", cables)
        one = json.loads(self.good("devices", "--json", "--host", 1))
        self.assertEqual([(h["host"], len(h["devices"]), len(h["cables"])) for h in one], [(1, 3, 2)])

        self.good("cable", "unplug", "0")
        self.assertTrue(wait_until(lambda: self.topo()["hosts"][0]["ports"][0]["says"] == "unplugged"))
        self.assertIn("unplugged", self.good("topo"))
        for name in ("host2.keeper", "host2.pid"):  # the keeper would start another
            os.kill(pid_of(self.file(name)), signal.SIGKILL)
        self.assertTrue(wait_until(lambda: "silent" in self.topo()["hosts"][2]))
        self.assertIn("host 2  host2  silent: ", self.good("topo"))
        self.assertIn("silent", self.good("topo", "--format", "dot"))


if __name__ == "__main__":
    unittest.main()
