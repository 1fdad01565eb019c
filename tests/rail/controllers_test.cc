// Controllers in described machines: folders that look like /sys.
#include "rail/nhi/controllers.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "rail/nhi/quirks.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;
namespace fs = std::filesystem;

class ControllersTest : public ::testing::Test {
 protected:
  ControllersTest() {
    char name[] = "/tmp/tbt_controllers_XXXXXX";
    root_ = mkdtemp(name);
  }
  ~ControllersTest() override { fs::remove_all(root_); }

  void file(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  void link(const std::string& path, const std::string& target) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    fs::create_symlink(target, root_ + path);
  }
  static std::string pci(const std::string& address) { return "/sys/bus/pci/devices/" + address; }
  void function(const std::string& address, const std::string& class_code, const std::string& id,
                const std::string& driver) {
    file(pci(address) + "/class", class_code);
    file(pci(address) + "/vendor", "0x8086");
    file(pci(address) + "/device", id);
    file(pci(address) + "/driver_override", "(null)");
    if (!driver.empty()) link(pci(address) + "/driver", "../../../../bus/pci/drivers/" + driver);
  }
  void group(const std::string& number, const std::vector<std::string>& addresses) {
    for (const std::string& address : addresses) {
      link(pci(address) + "/iommu_group", root_ + "/sys/kernel/iommu_groups/" + number);
      link("/sys/kernel/iommu_groups/" + number + "/devices/" + address,
           "../../../../bus/pci/devices/" + address);
    }
  }

  std::string root_;
};

TEST(PciAddress, IsCompletedAndChecked) {
  EXPECT_EQ(pci_address("0000:3a:00.0"), "0000:3a:00.0");
  EXPECT_EQ(pci_address("3A:00.7"), "0000:3a:00.7");
  EXPECT_EQ(pci_address("10000:e1:1f.0"), "10000:e1:1f.0");
  for (const char* bad : {"", "3a", "3a:00", "3a:00.8", "3a:0.0", "x:3a:00.0", "000:3a:00.0",
                          "0000:3a:00.0 ", "../3a:00.0", "0000:3a:00.0/..", "0000:3a-00.0"}) {
    EXPECT_EQ(pci_address(bad), "") << bad;
  }
}

TEST_F(ControllersTest, AnEmptyMachineHasNone) {
  EXPECT_TRUE(find_controllers(root_).empty());
  EXPECT_TRUE(look_at_controller(root_, "0000:3a:00.0").function.address.empty());
}

TEST_F(ControllersTest, AreFoundByClassDriverOrIdentity) {
  function("0000:00:0d.2", "0x0c0340", "0x463e", "thunderbolt");
  function("0000:05:00.0", "0x088000", "0x15eb", "thunderbolt");
  function("0000:06:00.0", "0x088000", "0x156c", "vfio-pci");
  function("0000:07:00.0", "0x088000", "0x1234", "vfio-pci");
  function("0000:08:00.0", "0x0c0330", "0x15ec", "xhci_hcd");
  const auto found = find_controllers(root_);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].function.address, "0000:00:0d.2");
  EXPECT_EQ(found[0].function.driver, "thunderbolt");
  EXPECT_EQ(found[0].function.driver_override, "");
  EXPECT_EQ(found[0].identity, (PciIdentity{kVendorIntel, 0x463e}));
  EXPECT_TRUE(quirks_of(found[0].identity).force_power);
  EXPECT_EQ(found[1].function.address, "0000:05:00.0");
  EXPECT_EQ(found[2].function.address, "0000:06:00.0");
}

TEST_F(ControllersTest, TheGroupAndThePowerStateAreSeen) {
  function("0000:3a:00.0", "0x0c0340", "0x5781", "");
  function("0000:39:00.0", "0x060400", "0x5780", "pcieport");
  function("0000:3b:00.0", "0x0c0330", "0x5782", "xhci_hcd");
  file(pci("0000:3a:00.0") + "/power_state", "D3cold");
  Controller c = look_at_controller(root_, "0000:3a:00.0");
  EXPECT_FALSE(c.has_iommu);
  EXPECT_EQ(c.iommu_group, "");
  EXPECT_EQ(c.power_state, "D3cold");
  group("17", {"0000:3a:00.0", "0000:39:00.0", "0000:3b:00.0"});
  c = look_at_controller(root_, "0000:3a:00.0");
  EXPECT_TRUE(c.has_iommu);
  EXPECT_EQ(c.iommu_group, "17");
  ASSERT_EQ(c.others.size(), 2u);
  EXPECT_EQ(c.others[0].address, "0000:39:00.0");
  EXPECT_EQ(c.others[0].class_code, 0x060400u);
  EXPECT_EQ(c.others[1].driver, "xhci_hcd");
  file("/sys/kernel/iommu_groups/17/name", "vfio-noiommu");
  EXPECT_FALSE(look_at_controller(root_, "0000:3a:00.0").has_iommu);
}

TEST_F(ControllersTest, WhatHangsOnTheCablesIsSeen) {
  function("0000:3a:00.0", "0x0c0340", "0x5781", "thunderbolt");
  const std::string host = pci("0000:3a:00.0") + "/domain0/0-0";
  file(host + "/device_name", "this machine");
  file(host + "/0-1/vendor_name", "CalDigit");
  file(host + "/0-1/device_name", "TS5");
  file(host + "/0-1/0-301/device_name", "a disk behind it");
  file(host + "/0-3/vendor_name", "Linux");
  file(host + "/0-3/device_name", "studio");
  file(host + "/0-3/maxhopid", "15");
  file(host + "/0-3/rx_speed", "40.0 Gb/s");
  file(host + "/0-3/rx_lanes", "2");
  file(host + "/0-3/0-3.0/net/thunderbolt0/flags", "0x1003");
  file(host + "/0-3/0-3.1/net/thunderbolt1/flags", "0x1002");
  file(host + "/usb4_port1/link", "usb4");
  const auto devices = look_at_controller(root_, "0000:3a:00.0").devices;
  ASSERT_EQ(devices.size(), 3u);
  EXPECT_EQ(devices[0].name, "0-1");
  EXPECT_EQ(devices[0].vendor, "CalDigit");
  EXPECT_FALSE(devices[0].is_peer);
  EXPECT_EQ(devices[1].title, "a disk behind it");
  const CableDevice& peer = devices[2];
  EXPECT_TRUE(peer.is_peer);
  EXPECT_EQ(peer.title, "studio");
  EXPECT_EQ(peer.speed, "40.0 Gb/s");
  EXPECT_EQ(peer.lanes, "2");
  ASSERT_EQ(peer.interfaces.size(), 2u);
  EXPECT_EQ(peer.interfaces[0].name, "thunderbolt0");
  EXPECT_TRUE(peer.interfaces[0].up);
  EXPECT_FALSE(peer.interfaces[1].up);
}

}  // namespace
}  // namespace tbt::rail::test
