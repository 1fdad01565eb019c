// PciDevice: the seam between the NHI driver and the machine. Everything above it (rings, rails,
// and later the control channel and the connection manager) is written once; below it stand VFIO
// and the NHI model.
//
// Registers are 32 bits wide, little endian, in BAR0 (K: drivers/thunderbolt/nhi_regs.h). A read of
// all ones means that the device is gone: the driver stops touching it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tbt/status.h"

namespace tbt::rail::nhi {

// Vendor and device id of the controller; zeros: not known. What follows from it is in quirks.h.
struct PciIdentity {
  uint16_t vendor = 0, device = 0;
  bool operator==(const PciIdentity&) const = default;
};

// A part of the device's address space.
struct DmaRange {
  uint64_t first = 0, bytes = 0;
  bool operator==(const DmaRange&) const = default;
};

class PciDevice {
 public:
  virtual ~PciDevice() = default;

  [[nodiscard]] virtual PciIdentity identity() const noexcept { return {}; }

  virtual uint32_t read32(uint32_t offset) noexcept = 0;
  // Ordered after all earlier stores to mapped memory (the doorbell barrier is in here).
  virtual void write32(uint32_t offset, uint32_t value) noexcept = 0;

  // Makes [offset, offset + bytes) of the host's DMA memory visible to the device and returns its
  // IOVA. Only the owner of the device (the daemon) maps; the addresses are the same for every
  // process.
  virtual Result<uint64_t> dma_map(uint64_t offset, uint64_t bytes) = 0;
  virtual Status dma_unmap(uint64_t iova, uint64_t bytes) = 0;

  // Memory of this process itself, whatever it is: whole pages that the device may read, and not
  // write, until they are unmapped or the process ends. Not every device can: a model in other
  // processes sees the host's memory only. One thread at a time.
  [[nodiscard]] virtual bool reads_own_memory() const noexcept { return false; }
  virtual Result<uint64_t> map_own(std::span<const std::byte> /*pages*/) {
    return Status(ENOTSUP, "the controller reads the host's memory only");
  }
  virtual Status unmap_own(uint64_t /*iova*/) { return Status(EINVAL, "no such DMA mapping"); }

  // A descriptor that becomes readable when the vector fires (MSI-X to eventfd). -1: no such
  // vector.
  [[nodiscard]] virtual int interrupt_fd(uint32_t vector) const noexcept = 0;

  // A device that is a model does its work in the callers; hardware needs none of this and returns
  // INT64_MAX.
  virtual int64_t advance(int64_t now_ns) noexcept = 0;
};

}  // namespace tbt::rail::nhi
