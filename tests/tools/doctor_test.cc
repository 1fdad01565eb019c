// The doctor's checks on described machines: a folder that looks like the /sys, /dev and /usr of
// each.
#include "tbt/doctor.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace tbt::tool {
namespace {

namespace fs = std::filesystem;

class DoctorTest : public ::testing::Test {
 protected:
  DoctorTest() {
    char name[] = "/tmp/tbt_doctor_XXXXXX";
    root_ = mkdtemp(name);
    machine_ = {.root = root_.string(),
                .kernel_release = "6.1.0-25-amd64",
                .memlock_bytes = UINT64_MAX,
                .open_files = 1024,
                .front_door_dir = "/opt/tbt/lib/tbt-rdma",
                .runtime_dir = "/run/tbt"};
  }
  ~DoctorTest() override { fs::remove_all(root_); }

  void folder(const std::string& path) { fs::create_directories(root_.string() + path); }
  void file(const std::string& path, const std::string& text = "") {
    folder(fs::path(path).parent_path().string());
    std::ofstream(root_.string() + path) << text << "\n";
  }
  void link(const std::string& path, const std::string& target) {
    folder(fs::path(path).parent_path().string());
    fs::create_symlink(target, root_.string() + path);
  }
  void controller(const std::string& address) {
    const std::string device = "/sys/bus/pci/devices/" + address;
    file(device + "/class", "0x0c0340");
    file(device + "/vendor", "0x8086");
    file(device + "/device", "0x5781");
    link(device + "/driver", "../../../bus/pci/drivers/thunderbolt");
  }

  fs::path root_;
  Machine machine_;
};

TEST_F(DoctorTest, AnEmptyMachineLacksHardwareOnly) {
  folder("/run");
  file("/opt/tbt/lib/tbt-rdma/libibverbs.so.1");
  const auto checks = check_machine(machine_);
  EXPECT_EQ(checks.size(), 12u);
  for (const Check& check : checks) {
    EXPECT_NE(check.result, CheckResult::kFix) << check.name << ": " << check.text;
    EXPECT_FALSE(check.text.empty()) << check.name;
    EXPECT_EQ(check.result == CheckResult::kOk, check.next.empty()) << check.name;
  }
  EXPECT_EQ(exit_code_of(checks), 0);
}

TEST_F(DoctorTest, OnlyWhatTheEmulatedFabricNeedsMakesItFail) {
  EXPECT_EQ(exit_code_of({{.name = "x", .result = CheckResult::kFix}}), 0);
  EXPECT_EQ(exit_code_of({{.name = "x", .result = CheckResult::kMissing}}), 0);
  EXPECT_EQ(exit_code_of({{.name = "x", .result = CheckResult::kOk, .needed = true}}), 0);
  EXPECT_EQ(exit_code_of({{.name = "x", .result = CheckResult::kFix, .needed = true}}), 1);
}

TEST_F(DoctorTest, KernelsAreComparedByNumber) {
  for (const char* good : {"5.9.0", "5.10.0", "6.1.0-25-amd64", "10.0"}) {
    machine_.kernel_release = good;
    EXPECT_EQ(check_kernel(machine_).result, CheckResult::kOk) << good;
  }
  for (const char* bad : {"5.8.18", "4.19.0", "strange"}) {
    machine_.kernel_release = bad;
    EXPECT_EQ(check_kernel(machine_).result, CheckResult::kFix) << bad;
    EXPECT_TRUE(check_kernel(machine_).needed);
  }
}

TEST_F(DoctorTest, ControllersAreFoundByClassOrDriver) {
  EXPECT_EQ(check_controllers(machine_).result, CheckResult::kMissing);
  controller("0000:3a:00.0");
  file("/sys/bus/pci/devices/0000:00:1f.0/class", "0x060100");
  const Check one = check_controllers(machine_);
  EXPECT_EQ(one.result, CheckResult::kOk);
  EXPECT_EQ(one.text, "0000:3a:00.0 [0x8086:0x5781] driver thunderbolt");
  file("/sys/bus/pci/devices/0000:3a:00.0/device", "0x9a1b");
  EXPECT_EQ(
      check_controllers(machine_).text,
      "0000:3a:00.0 [0x8086:0x9a1b] driver thunderbolt (Ice Lake, Tiger Lake: 20 Gb/s at most)");
  // A controller from before USB4: another class, the same driver.
  file("/sys/bus/pci/devices/0000:05:00.0/class", "0x088000");
  link("/sys/bus/pci/devices/0000:05:00.0/driver", "../drivers/thunderbolt");
  EXPECT_EQ(check_controllers(machine_).text.rfind("0000:05:00.0", 0), 0u);
}

TEST_F(DoctorTest, AControllerWithoutTheDriverIsToBeFixed) {
  EXPECT_EQ(check_domains(machine_).result, CheckResult::kMissing);
  controller("0000:3a:00.0");
  const Check check = check_domains(machine_);
  EXPECT_EQ(check.result, CheckResult::kFix);
  EXPECT_EQ(check.next, "modprobe thunderbolt");
}

TEST_F(DoctorTest, PeersAreToldFromDevices) {
  folder("/sys/bus/thunderbolt/devices/domain0");
  file("/sys/bus/thunderbolt/devices/0-1/device_name", "a dock");
  EXPECT_EQ(check_domains(machine_).result, CheckResult::kMissing);
  file("/sys/bus/thunderbolt/devices/0-3/device_name", "studio");
  file("/sys/bus/thunderbolt/devices/0-3/maxhopid", "15");
  file("/sys/bus/thunderbolt/devices/0-3/rx_speed", "40.0 Gb/s");
  file("/sys/bus/thunderbolt/devices/0-3/rx_lanes", "2");
  const Check check = check_domains(machine_);
  EXPECT_EQ(check.result, CheckResult::kOk);
  EXPECT_EQ(check.text, "0-3 'studio' 40.0 Gb/s x2");
}

TEST_F(DoctorTest, ThunderboltNetIsNotLoadedThenIdleThenThere) {
  folder("/sys/class/net/lo");
  EXPECT_EQ(check_thunderbolt_net(machine_).text, "not loaded");
  folder("/sys/module/thunderbolt_net");
  EXPECT_EQ(check_thunderbolt_net(machine_).text, "loaded, but no interface");
  link("/sys/class/net/en7/device/driver", "../../drivers/thunderbolt-net");
  EXPECT_EQ(check_thunderbolt_net(machine_).result, CheckResult::kOk);
  EXPECT_EQ(check_thunderbolt_net(machine_).text, "en7");
}

TEST_F(DoctorTest, TbstreamIsAMatterOfTheKernelThenOfSetUp) {
  EXPECT_EQ(check_tbstream(machine_).text, "this kernel has none");
  machine_.kernel_release = "7.2.1";
  EXPECT_EQ(check_tbstream(machine_).text, "not loaded");
  folder("/sys/kernel/config/thunderbolt/stream");
  EXPECT_EQ(check_tbstream(machine_).text, "available, no stream is made");
  file("/dev/tbstream0");
  EXPECT_EQ(check_tbstream(machine_).result, CheckResult::kOk);
  EXPECT_EQ(check_tbstream(machine_).text, "/dev/tbstream0");
}

TEST_F(DoctorTest, VfioNeedsAnIommuFirst) {
  folder("/sys/kernel/iommu_groups");
  EXPECT_EQ(check_vfio(machine_).text, "no IOMMU");
  folder("/sys/kernel/iommu_groups/0");
  EXPECT_EQ(check_vfio(machine_).next, "modprobe vfio-pci");
  file("/dev/vfio/vfio");
  EXPECT_EQ(check_vfio(machine_).result, CheckResult::kOk);
  EXPECT_EQ(check_vfio(machine_).text, "IOMMU with 1 group, /dev/vfio/vfio");
}

TEST_F(DoctorTest, LimitsAreSaid) {
  EXPECT_EQ(check_memlock(machine_).text, "unlimited");
  EXPECT_EQ(check_memlock(machine_).result, CheckResult::kOk);
  machine_.memlock_bytes = 8 << 20;
  EXPECT_EQ(check_memlock(machine_).text, "8 MiB");
  EXPECT_EQ(check_memlock(machine_).result, CheckResult::kMissing);
  const auto says = [&](const char* what) {
    return check_memlock(machine_).next.find(what) != std::string::npos;
  };
  EXPECT_TRUE(says("locks 9 MiB (9"));
  EXPECT_TRUE(says("which is more"));
  machine_.memlock_bytes = 16 << 20;
  EXPECT_TRUE(says("locks 9 MiB (9"));
  EXPECT_FALSE(says("which is more"));
  machine_.memlock_bytes = 64 << 10;
  EXPECT_EQ(check_memlock(machine_).text, "64 KiB");
  EXPECT_EQ(check_open_files(machine_).result, CheckResult::kOk);
  machine_.open_files = 64;
  EXPECT_EQ(check_open_files(machine_).result, CheckResult::kFix);
  EXPECT_TRUE(check_open_files(machine_).needed);
}

TEST_F(DoctorTest, TheVersionOfRdmaCoreIsReadFromTheLibrarysName) {
  EXPECT_EQ(check_libibverbs(machine_).result, CheckResult::kMissing);
  file("/usr/lib64/libibverbs.so.1.14.44.0");
  link("/usr/lib64/libibverbs.so.1", "libibverbs.so.1.14.44.0");
  const Check check = check_libibverbs(machine_);
  EXPECT_EQ(check.result, CheckResult::kOk);
  EXPECT_EQ(check.text, "/usr/lib64/libibverbs.so.1, rdma-core 44.0");
}

TEST_F(DoctorTest, ALibraryOfAnotherNameIsFoundWithoutAVersion) {
  file("/usr/local/lib/libibverbs.so.1");
  EXPECT_EQ(check_libibverbs(machine_).text, "/usr/local/lib/libibverbs.so.1");
}

TEST_F(DoctorTest, AMissingFrontDoorIsToBeFixed) {
  EXPECT_EQ(check_front_door(machine_).result, CheckResult::kFix);
  EXPECT_TRUE(check_front_door(machine_).needed);
  file("/opt/tbt/lib/tbt-rdma/libibverbs.so.1");
  EXPECT_EQ(check_front_door(machine_).result, CheckResult::kOk);
}

TEST_F(DoctorTest, TheUcxDeviceMustBeACharacterDevice) {
  EXPECT_EQ(check_ucx_device(machine_).result, CheckResult::kMissing);
  file("/dev/infiniband/tbt0");
  EXPECT_EQ(check_ucx_device(machine_).result, CheckResult::kFix);
  EXPECT_FALSE(check_ucx_device(machine_).needed);
  fs::remove(root_ / "dev/infiniband/tbt0");
  if (mknod((root_ / "dev/infiniband/tbt0").c_str(), S_IFCHR | 0666, makedev(1, 3)) != 0) {
    GTEST_SKIP() << "may not make devices here";
  }
  EXPECT_EQ(check_ucx_device(machine_).result, CheckResult::kOk);
}

TEST_F(DoctorTest, TheRuntimeFolderMustBeOursAlone) {
  EXPECT_EQ(check_runtime_dir(machine_).result, CheckResult::kFix);  // no /run to make it in
  folder("/run");
  EXPECT_EQ(check_runtime_dir(machine_).text, "/run/tbt (made when needed)");
  folder("/run/tbt");
  chmod((root_ / "run/tbt").c_str(), 0700);
  EXPECT_EQ(check_runtime_dir(machine_).result, CheckResult::kOk);
  chmod((root_ / "run/tbt").c_str(), 0777);
  EXPECT_EQ(check_runtime_dir(machine_).next, "chmod 700 /run/tbt");
  fs::remove(root_ / "run/tbt");
  file("/run/tbt");
  EXPECT_EQ(check_runtime_dir(machine_).text, "/run/tbt is no folder");
}

TEST_F(DoctorTest, EveryResultHasAName) {
  EXPECT_STREQ(check_result_name(CheckResult::kOk), "ok");
  EXPECT_STREQ(check_result_name(CheckResult::kMissing), "missing");
  EXPECT_STREQ(check_result_name(CheckResult::kFix), "fix");
}

}  // namespace
}  // namespace tbt::tool
