#include "rail/nhi/vfio_memory.h"

#include <linux/vfio.h>

#include "rail/nhi/vfio_info.h"

namespace tbt::rail::nhi {
namespace {

constexpr uint64_t kLargePage = uint64_t{2} << 20;
constexpr uint64_t kPageMask = 4095;

// Up to the first one that is not congruent to `address` modulo large pages: then the IOMMU can map
// large pages by one entry each.
uint64_t in_step(uint64_t iova, uint64_t bytes, uint64_t address) noexcept {
  if (bytes < kLargePage) return iova;
  return iova + ((address - iova) & (kLargePage - 1));
}

}  // namespace

DmaRange process_range(VfioKernel& kernel, int container, SlotId slot) noexcept {
  VfioInfo<vfio_iommu_type1_info> answer;
  if (!answer.ask(kernel, container, VFIO_IOMMU_GET_INFO, {})) return {};
  const vfio_iommu_type1_info info = answer.fixed();
  const uint32_t chain = (info.flags & VFIO_IOMMU_INFO_CAPS) != 0 ? info.cap_offset : 0;
  const auto bytes = answer.capability(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, chain);
  for (const auto& range :
       entries_of<vfio_iova_range>(bytes, &vfio_iommu_type1_info_cap_iova_range::nr_iovas)) {
    if (range.start > kProcessBase || range.end < kProcessBase) continue;
    uint64_t each = kProcessBytesMost;
    while (each > kProcessBytesLeast && range.end - kProcessBase < each * kSlotsMax - 1) each /= 2;
    if (range.end - kProcessBase < each * kSlotsMax - 1) return {};
    return {kProcessBase + each * slot, each};
  }
  return {};
}

Status take_back(VfioKernel& kernel, int container, const DmaRange& range) noexcept {
  vfio_iommu_type1_dma_unmap request{};
  request.argsz = sizeof request;
  request.iova = range.first;
  request.size = range.bytes;
  const int result = kernel.ioctl(container, VFIO_IOMMU_UNMAP_DMA, &request);
  return result < 0 ? Status(-result, "the IOMMU does not let go of a process's memory") : Status();
}

VfioMemory::~VfioMemory() {
  while (!mapped_.empty()) static_cast<void>(unmap(mapped_.begin()->first));
  if (container_ >= 0) kernel_.close(container_);
}

// The first gap that is large enough; 0: there is none.
uint64_t VfioMemory::find_room(uint64_t bytes, uint64_t address) const noexcept {
  const uint64_t end = range_.first + range_.bytes;
  uint64_t at = in_step(range_.first, bytes, address);
  for (const auto& [iova, taken] : mapped_) {
    if (at <= iova && bytes <= iova - at) return at;
    at = in_step(iova + taken, bytes, address);
  }
  return at <= end && bytes <= end - at ? at : 0;
}

Result<uint64_t> VfioMemory::map(std::span<const std::byte> pages) {
  const auto address = reinterpret_cast<uintptr_t>(pages.data());
  if (container_ < 0) return Status(ENOTSUP, "the controller reads the host's memory only");
  if (pages.empty() || ((address | pages.size()) & kPageMask) != 0) {
    return Status(EINVAL, "not whole pages");
  }
  const uint64_t iova = find_room(pages.size(), address);
  if (iova == 0) return Status(ENOSPC, "the process has no addresses for so much left");
  const auto [entry, fresh] = mapped_.emplace(iova, pages.size());
  static_cast<void>(fresh);
  vfio_iommu_type1_dma_map request{};
  request.argsz = sizeof request;
  request.flags = VFIO_DMA_MAP_FLAG_READ;
  request.vaddr = address;
  request.iova = iova;
  request.size = pages.size();
  const int result = kernel_.ioctl(container_, VFIO_IOMMU_MAP_DMA, &request);
  if (result >= 0) return iova;
  mapped_.erase(entry);
  return Status(-result, result == -ENOMEM ? "over the limit of locked memory"
                                           : "the IOMMU refuses the mapping");
}

Status VfioMemory::unmap(uint64_t iova) noexcept {
  const auto found = mapped_.find(iova);
  if (found == mapped_.end()) return Status(EINVAL, "no such DMA mapping");
  const DmaRange range{found->first, found->second};
  mapped_.erase(found);
  return take_back(kernel_, container_, range);
}

}  // namespace tbt::rail::nhi
