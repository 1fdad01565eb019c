// VfioBar: BAR0 of a controller. What the kernel lets us map is reached by loads and stores, the
// rest (or all of it, where nothing may be mapped) by system calls. The pages of the MSI-X table
// are never mapped: the kernel programs it.
//
// Surprise removal: a register of all ones whose controller has no capabilities either is a
// controller that is gone. From then on reads give all ones and writes go nowhere.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/pci_config.h"
#include "rail/nhi/vfio_kernel.h"
#include "sys/barrier.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

class VfioBar {
 public:
  explicit VfioBar(VfioKernel& kernel) noexcept : kernel_(kernel) {}
  VfioBar(const VfioBar&) = delete;
  VfioBar& operator=(const VfioBar&) = delete;
  ~VfioBar() { unmap(); }

  // Maps BAR0 of the device behind `fd`, which must outlive this. ENODEV if the region is too small
  // to hold the registers, EIO if the kernel's answer makes no sense.
  Status map(int fd, const MsixCapability& msix);
  void unmap() noexcept;

  // `offset` is of a register: a multiple of 4, within the region.
  uint32_t read32(uint32_t offset) noexcept {
    if (is_gone()) return kDeviceGone;
    const uint32_t value = read_now(offset);
    if (value == kDeviceGone) [[unlikely]]
      look_whether_gone();
    return value;
  }
  void write32(uint32_t offset, uint32_t value) noexcept {
    if (is_gone()) return;
    sys::to_device();  // what the doorbell announces is in memory
    if (offset < direct_bytes_) {
      store(direct_ + offset, value);
    } else {
      write_elsewhere(offset, value);
    }
    sys::doorbell();
  }
  [[nodiscard]] bool is_gone() const noexcept { return gone_.load(std::memory_order_relaxed); }

  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] uint64_t mapped_bytes() const noexcept;

 private:
  struct Area {
    uint64_t offset = 0, bytes = 0;
    std::byte* base = nullptr;
  };

  static uint32_t load(const std::byte* at) noexcept {
    return *reinterpret_cast<const volatile uint32_t*>(at);
  }
  static void store(std::byte* at, uint32_t value) noexcept {
    *reinterpret_cast<volatile uint32_t*>(at) = value;
  }
  uint32_t read_now(uint32_t offset) const noexcept {
    return offset < direct_bytes_ ? load(direct_ + offset) : read_elsewhere(offset);
  }
  // Some registers may hold all ones; the capabilities never do.
  void look_whether_gone() noexcept {
    if (read_now(kRegCapabilities) == kDeviceGone) gone_.store(true, std::memory_order_relaxed);
  }
  [[nodiscard]] std::byte* find(uint32_t offset) const noexcept;
  [[nodiscard]] uint32_t read_elsewhere(uint32_t offset) const noexcept;
  void write_elsewhere(uint32_t offset, uint32_t value) noexcept;
  void leave_out(uint64_t offset, uint64_t bytes);

  VfioKernel& kernel_;
  int fd_ = -1;
  uint64_t offset_ = 0;  // of the region in the descriptor
  uint64_t bytes_ = 0;
  std::vector<Area> areas_;
  std::byte* direct_ = nullptr;  // the area that begins at 0 and holds nearly all registers
  uint32_t direct_bytes_ = 0;
  std::atomic<bool> gone_{false};
};

}  // namespace tbt::rail::nhi
