// tbt bind and unbind on described machines, with a kernel that does what a write to /sys makes it
// do.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "sys/file_look.h"
#include "tbt/driver_binding.h"

namespace tbt::tool {
namespace {

namespace fs = std::filesystem;

constexpr const char* kController = "0000:3a:00.0";
constexpr const char* kUsb = "0000:3b:00.0";
constexpr const char* kBridge = "0000:39:00.0";

class BindTest : public ::testing::Test, protected BindingSystem {
 protected:
  BindTest() {
    char name[] = "/tmp/tbt_bind_XXXXXX";
    root_ = mkdtemp(name);
    for (const char* driver : {"thunderbolt", "vfio-pci", "xhci_hcd", "pcieport"}) {
      fs::create_directories(root_ + "/sys/bus/pci/drivers/" + driver);
    }
    file("/sys/bus/pci/drivers_probe", "");
    function(kController, "0x0c0340", "thunderbolt");
    request_ = {.root = root_, .address = "3a:00.0"};
  }
  ~BindTest() override { fs::remove_all(root_); }

  void file(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  static std::string pci(const std::string& address) { return "/sys/bus/pci/devices/" + address; }
  void function(const std::string& address, const std::string& class_code,
                const std::string& driver) {
    file(pci(address) + "/class", class_code);
    file(pci(address) + "/vendor", "0x8086");
    file(pci(address) + "/device", "0x5781");
    file(pci(address) + "/driver_override", "(null)");
    natural_[address] = driver;
    give(address, driver);
  }
  void group(const std::vector<std::string>& addresses) {
    for (const std::string& address : addresses) {
      fs::create_directories(root_ + "/sys/kernel/iommu_groups/17/devices");
      fs::create_symlink(root_ + "/sys/kernel/iommu_groups/17",
                         root_ + pci(address) + "/iommu_group");
      fs::create_symlink(root_ + pci(address),
                         root_ + "/sys/kernel/iommu_groups/17/devices/" + address);
    }
  }

  // ---- the kernel
  void give(const std::string& address, const std::string& driver) {
    fs::create_symlink("../../drivers/" + driver, root_ + pci(address) + "/driver");
  }
  [[nodiscard]] std::string driver(const std::string& address) const {
    return sys::link_target_name(root_ + pci(address) + "/driver");
  }
  [[nodiscard]] std::string only(const std::string& address) const {
    return sys::first_line(root_ + pci(address) + "/driver_override");
  }
  int write(const std::string& path, std::string_view text) override {
    const std::string name = path.substr(root_.size());
    writes_.push_back(name + " " + std::string(text));
    if (const auto f = fail_.find(name); f != fail_.end()) return f->second;
    if (name.ends_with("/driver_override")) {
      std::ofstream(path) << (text == "\n" ? "(null)" : text) << "\n";
    } else if (name.ends_with("/driver/unbind")) {
      fs::remove(fs::path(path).parent_path());
    } else if (name == "/sys/bus/pci/drivers_probe") {
      return probe(std::string(text));
    } else {
      ADD_FAILURE() << "write to " << name;
    }
    return 0;
  }
  int probe(const std::string& address) {
    if (!driver(address).empty()) return EINVAL;  // as the kernel answers then
    const std::string wanted = only(address) == "(null)" ? natural_[address] : only(address);
    if (refusing_.count({wanted, address}) != 0) return EINVAL;
    if (!wanted.empty()) give(address, wanted);
    return 0;
  }
  bool is_busy(const std::string& path) override {
    asked_ = path.substr(root_.size());
    return busy_;
  }

  std::string do_bind() {
    plan_ = {};
    const std::string wrong = plan_bind(request_, plan_);
    return wrong.empty() ? apply_bind(root_, plan_, *this) : wrong;
  }
  std::string do_unbind() {
    plan_ = {};
    const std::string wrong = plan_unbind(request_, plan_);
    return wrong.empty() ? apply_unbind(root_, plan_, *this) : wrong;
  }
  [[nodiscard]] bool loses(const std::string& what) const {
    for (const std::string& loss : plan_.losses) {
      if (loss.find(what) != std::string::npos) return true;
    }
    return false;
  }

  std::string root_;
  BindRequest request_;
  BindPlan plan_;
  std::map<std::string, std::string> natural_;
  std::map<std::string, int> fail_;
  std::set<std::pair<std::string, std::string>> refusing_;
  std::vector<std::string> writes_;
  bool busy_ = false;
  std::string asked_;
};

TEST_F(BindTest, GoesToVfioAndBackAndEachOnlyOnce) {
  group({kController});
  EXPECT_EQ(do_bind(), "");
  EXPECT_EQ(driver(kController), "vfio-pci");
  EXPECT_EQ(only(kController), "vfio-pci");
  EXPECT_FALSE(plan_.in_use);
  EXPECT_TRUE(loses("until 'tbt unbind 0000:3a:00.0'"));
  writes_.clear();
  EXPECT_EQ(do_bind(), "");
  EXPECT_TRUE(plan_.functions.empty());
  EXPECT_TRUE(writes_.empty());
  EXPECT_EQ(do_unbind(), "");
  EXPECT_EQ(asked_, "/dev/vfio/17");
  EXPECT_EQ(driver(kController), "thunderbolt");
  EXPECT_EQ(only(kController), "(null)");
  writes_.clear();
  EXPECT_EQ(do_unbind(), "");
  EXPECT_TRUE(plan_.functions.empty());
  EXPECT_TRUE(writes_.empty());
}

TEST_F(BindTest, WritesInThisOrder) {
  group({kController});
  EXPECT_EQ(do_bind(), "");
  EXPECT_EQ(writes_, (std::vector<std::string>{pci(kController) + "/driver_override vfio-pci",
                                               pci(kController) + "/driver/unbind 0000:3a:00.0",
                                               "/sys/bus/pci/drivers_probe 0000:3a:00.0"}));
}

TEST_F(BindTest, OnlyControllersAreTaken) {
  group({kController});
  request_.address = "x";
  EXPECT_NE(do_bind().find("'x' is no PCI address"), std::string::npos);
  request_.address = "0000:99:00.0";
  EXPECT_NE(do_bind().find("no PCI device 0000:99:00.0"), std::string::npos);
  function(kUsb, "0x0c0330", "xhci_hcd");
  file(pci(kUsb) + "/device", "0x15ec");
  request_.address = kUsb;
  EXPECT_NE(do_bind().find("no Thunderbolt or USB4 controller"), std::string::npos);
  EXPECT_NE(do_unbind().find("no Thunderbolt or USB4 controller"), std::string::npos);
  EXPECT_TRUE(writes_.empty());
}

TEST_F(BindTest, AnIommuIsNeededUnlessToldOtherwise) {
  EXPECT_NE(do_bind().find("VT-d or AMD-Vi"), std::string::npos);
  EXPECT_TRUE(writes_.empty());
  request_.without_iommu = true;
  EXPECT_EQ(do_bind(), "");
  EXPECT_EQ(driver(kController), "vfio-pci");
  EXPECT_EQ(do_unbind(), "");
  EXPECT_EQ(asked_, "") << "there is no group to ask for";
  EXPECT_EQ(driver(kController), "thunderbolt");
}

TEST_F(BindTest, TheDriverMustBeLoaded) {
  group({kController});
  fs::remove(root_ + "/sys/bus/pci/drivers/vfio-pci");
  EXPECT_NE(do_bind().find("modprobe vfio-pci"), std::string::npos);
  EXPECT_EQ(driver(kController), "thunderbolt");
}

TEST_F(BindTest, WhatIsInUseIsNamed) {
  group({kController});
  const std::string host = pci(kController) + "/domain0/0-0";
  file(host + "/0-3/device_name", "studio");
  file(host + "/0-3/maxhopid", "15");
  file(host + "/0-3/0-3.0/net/thunderbolt0/flags", "0x1002");
  BindPlan quiet;
  EXPECT_EQ(plan_bind(request_, quiet), "");
  EXPECT_FALSE(quiet.in_use) << "a peer alone is no use";
  file(host + "/0-3/0-3.0/net/thunderbolt0/flags", "0x1003");
  EXPECT_EQ(plan_bind(request_, plan_), "");
  EXPECT_TRUE(plan_.in_use);
  EXPECT_TRUE(loses("thunderbolt0 goes away, and it is up"));
  EXPECT_TRUE(loses("0-3 'studio'"));
  fs::remove_all(root_ + host + "/0-3");
  file(host + "/0-1/device_name", "TS5");
  BindPlan dock;
  EXPECT_EQ(plan_bind(request_, dock), "");
  EXPECT_TRUE(dock.in_use);
}

TEST_F(BindTest, TheWholeGroupGoesButItsBridges) {
  function(kUsb, "0x0c0330", "xhci_hcd");
  function(kBridge, "0x060400", "pcieport");
  group({kController, kUsb, kBridge});
  EXPECT_EQ(do_bind(), "");
  EXPECT_TRUE(plan_.in_use);
  EXPECT_TRUE(
      loses("0000:3b:00.0 (class 0c0330) of the same IOMMU group 17 loses its driver xhci_hcd"));
  EXPECT_EQ(driver(kController), "vfio-pci");
  EXPECT_EQ(driver(kUsb), "vfio-pci");
  EXPECT_EQ(driver(kBridge), "pcieport");
  EXPECT_EQ(do_unbind(), "");
  EXPECT_EQ(driver(kController), "thunderbolt");
  EXPECT_EQ(driver(kUsb), "xhci_hcd");
}

TEST_F(BindTest, HalfABindingIsUndone) {
  function(kUsb, "0x0c0330", "xhci_hcd");
  group({kController, kUsb});
  refusing_ = {{"vfio-pci", kUsb}};
  EXPECT_NE(do_bind().find("did not take 0000:3b:00.0"), std::string::npos);
  EXPECT_EQ(driver(kController), "thunderbolt");
  EXPECT_EQ(driver(kUsb), "xhci_hcd");
  EXPECT_EQ(only(kController), "(null)");
  EXPECT_EQ(only(kUsb), "(null)");
}

TEST_F(BindTest, ARefusedWriteIsExplainedAndNothingChanges) {
  group({kController});
  for (const char* name : {"/driver_override", "/driver/unbind"}) {
    fail_ = {{pci(kController) + name, EACCES}};
    const std::string wrong = do_bind();
    EXPECT_NE(wrong.find(name), std::string::npos) << wrong;
    EXPECT_NE(wrong.find("run as root"), std::string::npos) << wrong;
    EXPECT_EQ(driver(kController), "thunderbolt");
  }
  fail_ = {{pci(kController) + "/driver_override", ENODEV}};
  EXPECT_NE(do_bind().find("No such device"), std::string::npos);
  fail_.clear();
  EXPECT_EQ(do_bind(), "");
  fail_ = {{"/sys/bus/pci/drivers_probe", EROFS}};
  EXPECT_NE(do_unbind().find("outside of containers"), std::string::npos);
}

TEST_F(BindTest, AProcessThatHasItIsNotCutOff) {
  group({kController});
  EXPECT_EQ(do_bind(), "");
  busy_ = true;
  EXPECT_NE(do_unbind().find("a process has /dev/vfio/17 open"), std::string::npos);
  EXPECT_EQ(driver(kController), "vfio-pci");
}

TEST_F(BindTest, TheMachinesOwnFilesAreWrittenAndMustBeThere) {
  group({kController});
  BindingSystem& real = BindingSystem::real();
  EXPECT_EQ(real.write(root_ + "/not/there", "x"), ENOENT);
  EXPECT_EQ(real.write(root_ + pci(kController) + "/driver_override", "vfio-pci"), 0);
  EXPECT_EQ(only(kController).substr(0, 8), "vfio-pci");
  EXPECT_FALSE(real.is_busy(root_ + "/dev/vfio/17"));
}

}  // namespace
}  // namespace tbt::tool
