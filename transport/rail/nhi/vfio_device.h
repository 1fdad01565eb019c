// VfioDevice: a controller in this machine, bound to vfio-pci, as a PciDevice (VFIO type 1: one
// container with one IOMMU group). docs/rails/nhi.md has the steps of bring-up with their sources.
//
// Ownership: whoever opens it owns the controller until the object goes: DMA is switched off first,
// then interrupts, then the mappings are taken away; the kernel does the same when the process is
// killed, unless another one holds the handles (VfioHandles). Registers may be used from any
// thread; mapping and unmapping by one at a time.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rail/nhi/pci_config.h"
#include "rail/nhi/pci_device.h"
#include "rail/nhi/quirks.h"
#include "rail/nhi/vfio_bar.h"
#include "rail/nhi/vfio_kernel.h"
#include "rail/nhi/vfio_memory.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

// What the kernel gave for an opened controller. While anybody holds copies of them the controller
// goes on, and reaches what was mapped for it, whatever becomes of the process that drives it.
struct VfioHandles {
  int container = -1, group = -1, device = -1;
};

struct VfioOptions {
  std::string address;          // of the PCI device: 0000:3a:00.0
  std::string root;             // /sys and /dev are looked for below it; "": the machine's
  std::span<std::byte> memory;  // the host's memory, what dma_map() may map; may be empty
  // Go on without an IOMMU: registers and interrupts, but no DMA.
  bool allow_no_iommu = false;
  // false: look at registers only; no interrupts, no reset, no bus master. What an integrated Intel
  // controller needs to answer at all is done.
  bool take_over = true;
  // Copies of the handles of one that another process has opened and still holds; they are this
  // object's from now on. Power stays the other's affair.
  std::optional<VfioHandles> inherited{};
  // Beside `inherited`: this process follows one that was killed. The controller is at work and is
  // not reset, and what is mapped for DMA stays mapped.
  bool goes_on = false;
};

// IOVAs are those of the memory's bytes counted from here: the same for every process of the host,
// not the identity, and in step with 2 MiB pages of the memory.
inline constexpr uint64_t kDmaBase = 0x1'0000'0000;

class VfioDevice final : public PciDevice {
 public:
  // ENODEV no such device, no IOMMU, or it does not answer; ENOENT not bound to vfio-pci, or no
  // VFIO at all; EPERM, EACCES not allowed; EBUSY in use, or the group is not viable; ETIMEDOUT
  // firmware or reset. The text says what to do.
  static Result<std::unique_ptr<VfioDevice>> open(const VfioOptions& options,
                                                  VfioKernel& kernel = VfioKernel::real());
  ~VfioDevice() override;

  [[nodiscard]] PciIdentity identity() const noexcept override { return identity_; }
  uint32_t read32(uint32_t offset) noexcept override { return bar_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) noexcept override { bar_.write32(offset, value); }
  // ENOMEM: over the limit of locked memory (`ulimit -l`), which counts every page mapped.
  Result<uint64_t> dma_map(uint64_t offset, uint64_t bytes) override;
  Status dma_unmap(uint64_t iova, uint64_t bytes) override;
  [[nodiscard]] int interrupt_fd(uint32_t vector) const noexcept override;
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }

  // Becomes readable when the kernel wants the device back (unbinding, removal). -1: not told.
  [[nodiscard]] int give_back_fd() const noexcept { return give_back_.get(); }
  [[nodiscard]] bool is_gone() const noexcept { return bar_.is_gone(); }
  [[nodiscard]] bool has_iommu() const noexcept { return has_iommu_; }
  [[nodiscard]] uint32_t vectors() const noexcept { return static_cast<uint32_t>(events_.size()); }
  // The part of the process in `slot` (vfio_memory.h), and taking back what it has mapped there.
  [[nodiscard]] DmaRange process_range(SlotId slot) const noexcept {
    return has_iommu_ ? nhi::process_range(kernel_, container_, slot) : DmaRange{};
  }
  Status take_back(const DmaRange& range) const noexcept {
    return nhi::take_back(kernel_, container_, range);
  }
  // Of the host's memory, pinned and charged to this process.
  [[nodiscard]] uint64_t locked_bytes() const noexcept;
  [[nodiscard]] const VfioBar& bar() const noexcept { return bar_; }
  // For a VfioDevice that follows this one; the device also for a VfioWindow. Owned by this object.
  [[nodiscard]] VfioHandles handles() const noexcept { return {container_, group_, device_}; }

 private:
  struct Mapping {
    uint64_t iova = 0, bytes = 0;
  };

  VfioDevice(const VfioOptions& options, VfioKernel& kernel);

  // The steps of open(), in order.
  Status find_group();
  Status open_container();
  Status open_group();
  Status join();
  Status check_addresses();
  Status open_device();
  Status find_config();
  Status power_up();
  Status map_registers();
  Status set_up_interrupts();
  Status take_over();

  Status set_eventfds(uint32_t index, std::span<const int> fds) noexcept;
  void clear_eventfds(uint32_t index) noexcept;
  [[nodiscard]] uint32_t interrupts_of(uint32_t index) noexcept;
  Status unmap_dma(const Mapping& mapping) noexcept;

  VfioKernel& kernel_;
  const VfioOptions options_;
  PciIdentity identity_;
  std::string group_name_;  // "17", or "noiommu-17"
  bool has_iommu_ = true;
  int container_ = -1, group_ = -1, device_ = -1;
  PciConfig config_;
  MsixCapability msix_;
  VfioBar bar_;
  std::vector<sys::UniqueFd> events_;  // one per vector
  sys::UniqueFd give_back_;
  std::vector<Mapping> mappings_;
  bool powered_ = false, master_ = false;
};

}  // namespace tbt::rail::nhi
