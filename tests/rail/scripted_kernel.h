// ScriptedKernel: VFIO as a test wants it. It plays one controller behind vfio-pci, keeps the rules
// that the real one keeps (a group before a container, a container before a device), fails where it
// is told to, and writes down what was done in which order.
#pragma once

#include <linux/vfio.h>

#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/pci_device.h"
#include "rail/nhi/vfio_device.h"
#include "rail/nhi/vfio_kernel.h"
#include "rail/nhi/vfio_memory.h"

namespace tbt::rail::test {

inline constexpr uint32_t kBarBytes = 512 * 1024;
inline constexpr uint32_t kMsixTable = 0x7e000;  // as on Strix Halo
inline constexpr uint32_t kMsixPending = 0x7f000;
inline constexpr uint32_t kPmAt = 0x80, kMsixAt = 0xa0;  // capabilities of the function

class ScriptedKernel final : public nhi::VfioKernel {
 public:
  struct Mapping {
    uint64_t iova = 0, bytes = 0, vaddr = 0;
    bool read_only = false;  // a process's own memory
  };
  enum class Chain { kNone, kSparse, kLoop, kBeyond, kInsane, kMsixMappable };

  explicit ScriptedKernel(std::string root = {}) : root_(std::move(root)) {
    bar.assign(kBarBytes / 4, 0);
    bar[nhi::kRegCapabilities / 4] = 12 | 0x40 << 16;
    put16(0, 0x8086), put16(2, 0x5781);
    put16(6, 0x10);  // a list of capabilities
    config[0x34] = kPmAt;
    config[kPmAt] = 0x01, config[kPmAt + 1] = kMsixAt;
    config[kMsixAt] = 0x11;
    put16(kMsixAt + 2, 15);  // 16 vectors
    put32(kMsixAt + 4, kMsixTable);
    put32(kMsixAt + 8, kMsixPending);
  }

  // What the test says.
  std::map<unsigned long, int> fail;     // ioctl request -> errno
  std::map<std::string, int> fail_open;  // path without the root -> errno
  bool viable = true, has_container = false, mappable = true, refuse_map = false;
  int api = VFIO_API_VERSION;
  std::set<uintptr_t> extensions{VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU};
  Chain chain = Chain::kSparse;
  uint32_t bar_bytes = kBarBytes, config_bytes = 256;
  uint32_t msix_vectors = 16, request_vectors = 1;
  uint64_t memlock = UINT64_MAX, page_sizes = ~uint64_t{0xfff};
  std::vector<vfio_iova_range> iova_ranges{{0, 0xfedfffff}, {0xfef00000, 0x7fffffffff}};
  uint32_t reset_us = 150000;       // how long a router reset takes
  uint32_t firmware_us = 10000;     // from force power to firmware
  nhi::PciDevice* model = nullptr;  // registers go there instead of `bar`
  std::byte* model_memory = nullptr;

  // What was done.
  std::vector<uint32_t> bar;
  std::array<uint8_t, 256> config{};
  std::vector<std::string> log;
  std::vector<Mapping> mappings;
  std::vector<std::pair<uint64_t, uint64_t>> mapped;  // of BAR0, while mapped
  std::array<int, 16> event_fds{};                    // 0: none
  int request_fd = 0;
  uint64_t slept_us = 0;
  int elsewhere = 0;  // register accesses by system call
  std::set<int> open_fds;

  [[nodiscard]] uint32_t config32(uint32_t at) const {
    uint32_t v = 0;
    std::memcpy(&v, &config[at], 4);
    return v;
  }
  void put16(uint32_t at, uint16_t v) { std::memcpy(&config[at], &v, 2); }
  void put32(uint32_t at, uint32_t v) { std::memcpy(&config[at], &v, 4); }
  [[nodiscard]] bool is_master() const { return (config[4] & 4) != 0; }

  // Another descriptor of the device, as a process has it that was handed one.
  int grant() {
    const int fd = kGranted + granted_++;
    open_fds.insert(fd);
    return fd;
  }

  // The same of the container.
  int grant_container() {
    const int fd = kGrantedContainer + granted_++;
    open_fds.insert(fd);
    return fd;
  }

  // Copies of the handles, as a process has them that another one was given as an inheritance.
  nhi::VfioHandles copies(const nhi::VfioHandles& of) {
    const nhi::VfioHandles made{of.container + kCopy, of.group + kCopy, of.device + kCopy};
    open_fds.insert({made.container, made.group, made.device});
    return made;
  }

  // The process of `device` is killed: its descriptors are closed and its mappings of BAR0 go, and
  // that is all.
  void kill(std::unique_ptr<nhi::VfioDevice> device) {
    const auto was = std::make_tuple(mappings, config, event_fds, request_fd, log);
    device.reset();
    std::tie(mappings, config, event_fds, request_fd, log) = was;
  }

  // ---- VfioKernel
  int open(const std::string& path) noexcept override;
  void close(int fd) noexcept override;
  int ioctl(int fd, unsigned long request, void* argument) noexcept override;
  int64_t pread(int fd, void* to, size_t bytes, uint64_t offset) noexcept override;
  int64_t pwrite(int fd, const void* from, size_t bytes, uint64_t offset) noexcept override;
  std::byte* map(int fd, size_t bytes, uint64_t offset) noexcept override;
  void unmap(std::byte* base, size_t bytes) noexcept override;
  void sleep_us(uint32_t us) noexcept override;

 private:
  static constexpr int kContainer = 1000, kGroup = 1001, kDevice = 1002;
  static constexpr int kGranted = 2000, kGrantedContainer = 3000;
  static constexpr int kCopy = 100;
  [[nodiscard]] static bool is_granted(int fd) { return fd >= kGranted && fd < kGrantedContainer; }
  [[nodiscard]] bool is_device(int fd) const {
    const bool ours = fd == kDevice || fd == kDevice + kCopy;
    return (ours || is_granted(fd)) && open_fds.count(fd) != 0;
  }
  static constexpr uint32_t kForcePowerAt = 0xfc;
  static constexpr uint64_t kBarAt = 0, kConfigAt = uint64_t{7} << 40;

  int answer(void* argument, const void* bytes, size_t size) noexcept;
  int region_info(void* argument) noexcept;
  int iommu_info(void* argument) noexcept;
  int set_irqs(const void* argument) noexcept;
  [[nodiscard]] static bool is_own(uint64_t iova) { return iova >= nhi::kProcessBase; }
  int map_dma(const vfio_iommu_type1_dma_map& request) noexcept;
  int unmap_dma(vfio_iommu_type1_dma_unmap& request) noexcept;
  void note(const std::string& what) { log.push_back(what); }

  std::string root_;
  int granted_ = 0;
  bool joined_ = false, iommu_set_ = false;
  uint64_t powered_at_us_ = 0, reset_at_us_ = 0;
};

}  // namespace tbt::rail::test
