// VfioBar: BAR0 of a controller. What the kernel lets us map is reached by loads and stores, the
// rest (or all of it, where nothing may be mapped) by system calls. The pages of the MSI-X table
// are never mapped: the kernel programs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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
  uint32_t read32(uint32_t offset) const noexcept {
    if (offset < direct_bytes_) return load(direct_ + offset);
    return read_elsewhere(offset);
  }
  void write32(uint32_t offset, uint32_t value) noexcept {
    sys::to_device();  // what the doorbell announces is in memory
    if (offset < direct_bytes_) {
      store(direct_ + offset, value);
    } else {
      write_elsewhere(offset, value);
    }
    sys::doorbell();
  }

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
};

}  // namespace tbt::rail::nhi
