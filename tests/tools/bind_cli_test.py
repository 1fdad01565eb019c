#!/usr/bin/env python3
"""tbt bind, tbt unbind and tbt nhi from outside.

  bind_cli_test.py BIN_DIR [unittest options]
"""
import pathlib
import tempfile
import unittest

from cli_test import Fabric


class Bind(Fabric):
    """A folder that looks like /sys; what the kernel does when it is written to is in bind_test.cc."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="tbt")
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.device = self.root / "sys/bus/pci/devices/0000:3a:00.0"
        self.device.mkdir(parents=True)
        for name, text in (("class", "0x0c0340"), ("vendor", "0x8086"), ("device", "0x5781"),
                           ("driver_override", "(null)")):
            (self.device / name).write_text(text + "\n")
        (self.device / "driver").symlink_to("../../drivers/thunderbolt")

    def test_every_failure_is_one_line_with_its_remedy(self):
        root = ["--root", self.root]
        for word in ("bind", "unbind"):
            self.bad(word, code=2, says="address")
            self.bad(word, "3a", *root, says="0000:3a:00.0")
            self.bad(word, "3b:00.0", *root, says=["0000:3b:00.0", "tbt doctor"])
        self.bad("bind", "3a:00.0", *root, says=["VT-d", "--no-iommu"])
        (self.root / "sys/kernel/iommu_groups/17").mkdir(parents=True)
        (self.device / "iommu_group").symlink_to(self.root / "sys/kernel/iommu_groups/17")
        self.bad("bind", "3a:00.0", *root, says="modprobe vfio-pci")
        (self.root / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
        self.bad("bind", "3a:00.0", *root, says="/driver/unbind")
        (self.device / "domain0/0-0/0-1").mkdir(parents=True)
        (self.device / "domain0/0-0/0-1/device_name").write_text("TS5\n")
        self.bad("bind", "3a:00.0", *root, says="--yes")
        self.assertIn("0-1 'TS5'", self.tbt("bind", "3a:00.0", *root).stdout)

    def test_looking_says_what_is_missing(self):
        root = ["--root", self.root]
        for word in ("probe", "ring0"):
            self.bad("nhi", word, "3a", *root, says="lspci -D")
            self.bad("nhi", word, "3b:00.0", *root, says="no PCI device")
            self.bad("nhi", word, "3a:00.0", *root, says="VT-d")
        self.bad("nhi", "ring0", "3a:00.0", *root, "--repeat", "0", code=2, says="repeat")
        (self.root / "sys/kernel/iommu_groups/17").mkdir(parents=True)
        (self.device / "iommu_group").symlink_to(self.root / "sys/kernel/iommu_groups/17")
        for word in ("probe", "ring0"):
            self.bad("nhi", word, "3a:00.0", *root, says=["0000:3a:00.0: ", "modprobe vfio-pci"])

    def test_what_is_so_already_is_no_failure(self):
        self.assertIn("is not bound", self.good("unbind", "3a:00.0", "--root", self.root))
        (self.device / "driver").unlink()
        (self.device / "driver").symlink_to("../../drivers/vfio-pci")
        self.assertIn("already", self.good("bind", "3a:00.0", "--root", self.root))


if __name__ == "__main__":
    unittest.main()
