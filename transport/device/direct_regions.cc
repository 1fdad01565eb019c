#include "device/direct_regions.h"

#include <sys/mman.h>

#include <cerrno>

namespace tbt::device {
namespace {

constexpr uintptr_t kPage = 4096;  // of the IOMMU
#if defined(MADV_POPULATE_WRITE)
constexpr int kPopulateWrite = MADV_POPULATE_WRITE;
#else
constexpr int kPopulateWrite = 23;  // Linux 5.14
#endif

}  // namespace

// The pages are made this process's own first. A page that is shared until somebody writes to it
// (of zeros, of a file mapped privately, from before a fork) would be another one afterwards,
// and the controller would go on reading the old one. Memory of a device is refused here, too.
DirectRegions::Mapping DirectRegions::map(void* base, size_t length) {
  if (length < rail::kFrameBytes || !host_.device->reads_own_memory()) return {};
  const auto address = reinterpret_cast<uintptr_t>(base);
  const uintptr_t first = address & ~(kPage - 1);
  const uintptr_t end = (address + length + kPage - 1) & ~(kPage - 1);
  const std::span<const std::byte> pages(reinterpret_cast<const std::byte*>(first), end - first);
  if (::madvise(reinterpret_cast<void*>(first), pages.size(), kPopulateWrite) == 0) {
    const std::lock_guard<std::mutex> hold(mutex_);
    if (const auto iova = host_.device->map_own(pages)) {
      slot().direct_bytes.fetch_add(pages.size(), std::memory_order_relaxed);
      return {*iova, pages.size(), *iova + (address - first)};
    }
  }
  slot().copied_regions.fetch_add(1, std::memory_order_relaxed);
  return {};
}

void DirectRegions::unmap(const Mapping& mapping) noexcept {
  if (mapping.bytes == 0) return;
  const std::lock_guard<std::mutex> hold(mutex_);
  (void)host_.device->unmap_own(mapping.iova);
  slot().direct_bytes.fetch_sub(mapping.bytes, std::memory_order_relaxed);
}

bool DirectRegions::passed(const Marks& marks) noexcept {
  for (uint32_t r = 0; r < host_.rails.size(); ++r) {
    if ((used_ & 1u << r) == 0) continue;
    if (!host_.rails[r]->tx_read(marks[r])) return false;
    if (marks[r] == marks_[r]) used_ &= ~(1u << r);
  }
  return true;
}

}  // namespace tbt::device
