// A fake /sys with one controller at kAddress in IOMMU group 17, and the scripted kernel beside it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "rail/nhi/vfio_device.h"
#include "scripted_kernel.h"

namespace tbt::rail::test {

inline constexpr const char* kAddress = "0000:3a:00.0";

class VfioTest : public ::testing::Test {
 protected:
  VfioTest() {
    char name[] = "/tmp/tbt_vfio_XXXXXX";
    root_ = mkdtemp(name);
    kernel_ = std::make_unique<ScriptedKernel>(root_.string());
    file(device() + "/vendor", "0x8086");
    file(device() + "/device", "0x5781");
    file("/sys/kernel/iommu_groups/17/reserved_regions", "");
    std::filesystem::create_symlink("../../../../kernel/iommu_groups/17",
                                    root_.string() + device() + "/iommu_group");
    memory_.resize(kMemoryBytes);
    options_ = {.address = kAddress, .root = root_.string(), .memory = memory_};
  }
  // Whatever happened: nothing is left open, and nothing can be reached by DMA.
  ~VfioTest() override {
    EXPECT_TRUE(kernel_->open_fds.empty()) << "descriptors are left open";
    EXPECT_TRUE(kernel_->mappings.empty()) << "memory is left mapped";
    EXPECT_TRUE(kernel_->mapped.empty()) << "BAR0 is left mapped";
    EXPECT_FALSE(kernel_->is_master());
    EXPECT_EQ(kernel_->event_fds[0], 0) << "interrupts are left on";
    std::filesystem::remove_all(root_);
  }

  static std::string device() { return std::string("/sys/bus/pci/devices/") + kAddress; }
  void file(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_.string() + path).parent_path());
    std::ofstream(root_.string() + path) << text << "\n";
  }
  // An integrated Intel controller (Alder Lake).
  void make_integrated() { file(device() + "/device", "0x463e"); }

  Result<std::unique_ptr<nhi::VfioDevice>> open() {
    return nhi::VfioDevice::open(options_, *kernel_);
  }
  std::unique_ptr<nhi::VfioDevice> opened() {
    auto device = open();
    EXPECT_TRUE(device) << device.error().text();
    return device ? std::move(*device) : nullptr;
  }
  // It fails so, and says what to do.
  void expect_refusal(int code, const std::string& says) {
    auto device = open();
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code(), code) << device.error().text();
    EXPECT_NE(device.error().text().find(says), std::string_view::npos) << device.error().text();
  }

  static constexpr size_t kMemoryBytes = 1 << 20;
  std::filesystem::path root_;
  std::unique_ptr<ScriptedKernel> kernel_;
  std::vector<std::byte> memory_;
  nhi::VfioOptions options_;
};

}  // namespace tbt::rail::test
