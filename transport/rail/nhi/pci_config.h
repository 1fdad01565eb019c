// PciConfig: the configuration space of a controller through its VFIO descriptor, and the few
// things that must be done there before BAR0 answers: power state, force power, memory, bus master.
#pragma once

#include <cstdint>

#include "rail/nhi/vfio_kernel.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

inline constexpr uint32_t kConfigBytes = 256;  // what every PCI function has

// Integrated Intel controllers (K7.3: drivers/thunderbolt/nhi_ops.c).
inline constexpr uint32_t kConfigForcePower = 0xfc;  // VS_CAP_22
inline constexpr uint32_t kForcePower = 1u << 1;
inline constexpr uint32_t kDmaDelayMask = 0xffu << 24;
inline constexpr uint32_t kDmaDelay = 0x22u << 24;
inline constexpr uint32_t kConfigFirmware = 0xc8;  // VS_CAP_9
inline constexpr uint32_t kFirmwareReady = 1u << 31;

struct MsixCapability {
  uint32_t vectors = 0;  // 0: none
  uint32_t table_bar = 0, table_offset = 0;
  uint32_t pending_bar = 0, pending_offset = 0;
};

class PciConfig {
 public:
  PciConfig() noexcept = default;
  // Of the device behind a VFIO descriptor, which must outlive it.
  static Result<PciConfig> of_device(VfioKernel& kernel, int fd);

  // EIO if the kernel gives less than was asked for.
  Result<uint16_t> read16(uint32_t at) noexcept;
  Result<uint32_t> read32(uint32_t at) noexcept;
  Status write16(uint32_t at, uint16_t value) noexcept;
  Status write32(uint32_t at, uint32_t value) noexcept;

  // Where the capability begins; 0: there is none. Survives a list that bites its tail.
  Result<uint32_t> find_capability(uint8_t id) noexcept;
  Result<MsixCapability> msix() noexcept;

  // Leaves D3hot; does nothing in D0 or without power management.
  Status power_on() noexcept;
  // Registers answer only with memory access on; the controller may DMA only as a bus master.
  Status enable_memory() noexcept { return set_command(kCommandMemory, true); }
  Status set_bus_master(bool on) noexcept { return set_command(kCommandMaster, on); }
  // Wakes an integrated Intel controller and waits up to 350 times 3 ms for its firmware; or lets
  // it sleep again.
  Status force_power(bool on) noexcept;

 private:
  PciConfig(VfioKernel& kernel, int fd, uint64_t offset) noexcept
      : kernel_(&kernel), fd_(fd), offset_(offset) {}

  static constexpr uint16_t kCommandMemory = 1u << 1;
  static constexpr uint16_t kCommandMaster = 1u << 2;

  Status read(uint32_t at, void* to, size_t bytes) noexcept;
  Status write(uint32_t at, const void* from, size_t bytes) noexcept;
  Status set_command(uint16_t bit, bool on) noexcept;

  VfioKernel* kernel_ = nullptr;
  int fd_ = -1;
  uint64_t offset_ = 0;  // of the configuration space in the descriptor
};

}  // namespace tbt::rail::nhi
