// VfioWindow: the registers of a controller that another process owns (a VfioDevice there), for a
// process that was handed its VFIO descriptor. Doorbells and interrupt masks, no mappings of the
// host's memory, and no interrupts: the owner passes those on. With a copy of the container it maps
// memory of its own process, too (vfio_memory.h).
#pragma once

#include <memory>

#include "rail/nhi/pci_device.h"
#include "rail/nhi/vfio_bar.h"
#include "rail/nhi/vfio_kernel.h"
#include "rail/nhi/vfio_memory.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

// What the owner gives a process that may map its own memory: a copy of the container, and where.
struct OwnMemory {
  sys::UniqueFd container;
  DmaRange range;
};

class VfioWindow final : public PciDevice {
 public:
  // EPROTO if the descriptor is not that of a controller. As long as the window lives the kernel
  // keeps the IOMMU group open, whatever becomes of the owner.
  static Result<std::unique_ptr<VfioWindow>> open(sys::UniqueFd device, PciIdentity identity,
                                                  OwnMemory own = {},
                                                  VfioKernel& kernel = VfioKernel::real());
  ~VfioWindow() override;

  [[nodiscard]] PciIdentity identity() const noexcept override { return identity_; }
  uint32_t read32(uint32_t offset) noexcept override { return bar_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) noexcept override { bar_.write32(offset, value); }
  Result<uint64_t> dma_map(uint64_t, uint64_t) override { return not_the_owner(); }
  Status dma_unmap(uint64_t, uint64_t) override { return not_the_owner(); }
  [[nodiscard]] bool reads_own_memory() const noexcept override { return own_.usable(); }
  Result<uint64_t> map_own(std::span<const std::byte> pages) override { return own_.map(pages); }
  Status unmap_own(uint64_t iova) override { return own_.unmap(iova); }
  [[nodiscard]] int interrupt_fd(uint32_t) const noexcept override { return -1; }
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }

 private:
  VfioWindow(int device, PciIdentity identity, OwnMemory own, VfioKernel& kernel) noexcept
      : kernel_(kernel),
        identity_(identity),
        device_(device),
        bar_(kernel),
        own_(own.container.release(), own.range, kernel) {}

  static Status not_the_owner() noexcept {
    return Status(EPERM, "only the owner of the controller maps the host's memory for DMA");
  }

  VfioKernel& kernel_;
  const PciIdentity identity_;
  const int device_;
  VfioBar bar_;
  VfioMemory own_;
};

}  // namespace tbt::rail::nhi
