// Memory of processes that the controller may read by itself (VFIO type 1): where in its address
// space each process has its part, how a process maps what it has, and how the owner takes back
// what a dead one has left.
//
// The kernel maps memory of the process that asks, and of no other. So a process that is to send
// straight from its memory holds a copy of the container, and asks itself; the pages are charged to
// its own limit. They are mapped for reading only: no descriptor, whoever wrote it, makes the
// controller write there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "rail/nhi/pci_device.h"
#include "rail/nhi/vfio_kernel.h"
#include "rail/rail.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

// Where the parts of the processes begin; the host's memory lies before (kDmaBase).
inline constexpr uint64_t kProcessBase = 0x10'0000'0000;
// A part has a power of two, as much as the IOMMU's addresses give for 64 of them (39 bits: 4 GiB).
inline constexpr uint64_t kProcessBytesMost = uint64_t{1} << 40;
inline constexpr uint64_t kProcessBytesLeast = uint64_t{1} << 28;

// The part of the process in `slot`; empty where the IOMMU has too few addresses for all of them,
// or does not say how many it has.
DmaRange process_range(VfioKernel& kernel, int container, SlotId slot) noexcept;
// Unmaps whatever is mapped in the range, by whomever (Linux 6.0 and later).
Status take_back(VfioKernel& kernel, int container, const DmaRange& range) noexcept;

// A process's own part. One thread at a time.
class VfioMemory {
 public:
  // `container` is this object's from now on; -1: nothing can be mapped.
  VfioMemory(int container, const DmaRange& range, VfioKernel& kernel) noexcept
      : kernel_(kernel), range_(range), container_(container) {}
  ~VfioMemory();
  VfioMemory(const VfioMemory&) = delete;
  VfioMemory& operator=(const VfioMemory&) = delete;

  [[nodiscard]] bool usable() const noexcept { return container_ >= 0; }
  // Whole pages; returns their IOVA. They stay pinned until unmap(), also when they are unmapped
  // from the process. ENOMEM over the limit of locked memory; EFAULT they cannot be pinned; ENOSPC
  // no addresses, or no entries, are left.
  Result<uint64_t> map(std::span<const std::byte> pages);
  Status unmap(uint64_t iova) noexcept;

 private:
  [[nodiscard]] uint64_t find_room(uint64_t bytes, uint64_t address) const noexcept;

  VfioKernel& kernel_;
  const DmaRange range_;
  const int container_;
  std::map<uint64_t, uint64_t> mapped_;  // IOVA -> bytes
};

}  // namespace tbt::rail::nhi
