// VfioWindow: the registers of a controller that another process owns (a VfioDevice there), for a
// process that was handed its VFIO descriptor. Doorbells and interrupt masks, but no DMA mappings,
// and no interrupts: the owner passes those on.
#pragma once

#include <memory>

#include "rail/nhi/pci_device.h"
#include "rail/nhi/vfio_bar.h"
#include "rail/nhi/vfio_kernel.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

class VfioWindow final : public PciDevice {
 public:
  // EPROTO if the descriptor is not that of a controller. As long as the window lives the kernel
  // keeps the IOMMU group open, whatever becomes of the owner.
  static Result<std::unique_ptr<VfioWindow>> open(sys::UniqueFd device, PciIdentity identity,
                                                  VfioKernel& kernel = VfioKernel::real());
  ~VfioWindow() override;

  [[nodiscard]] PciIdentity identity() const noexcept override { return identity_; }
  uint32_t read32(uint32_t offset) noexcept override { return bar_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) noexcept override { bar_.write32(offset, value); }
  Result<uint64_t> dma_map(uint64_t, uint64_t) override { return not_the_owner(); }
  Status dma_unmap(uint64_t, uint64_t) override { return not_the_owner(); }
  [[nodiscard]] int interrupt_fd(uint32_t) const noexcept override { return -1; }
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }

 private:
  VfioWindow(int device, PciIdentity identity, VfioKernel& kernel) noexcept
      : kernel_(kernel), identity_(identity), device_(device), bar_(kernel) {}

  static Status not_the_owner() noexcept {
    return Status(EPERM, "only the owner of the controller maps memory for DMA");
  }

  VfioKernel& kernel_;
  const PciIdentity identity_;
  const int device_;
  VfioBar bar_;
};

}  // namespace tbt::rail::nhi
