#include "rail/nhi/vfio_bar.h"

#include <algorithm>
#include <utility>

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/vfio_info.h"

namespace tbt::rail::nhi {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kRegistersEnd = kRegFirmwareStatus + 4;  // the last register that we use
constexpr uint64_t kRegionMax = uint64_t{1} << 30;
constexpr uint64_t kMsixEntryBytes = 16;

using RegionInfo = VfioInfo<vfio_region_info>;

bool is_sane(const vfio_region_sparse_mmap_area& area, uint64_t region) noexcept {
  return area.size != 0 && area.offset % kPage == 0 && area.size % kPage == 0 &&
         area.size <= region && area.offset <= region - area.size;
}

}  // namespace

Status VfioBar::map(int fd, const MsixCapability& msix) {
  vfio_region_info question{};
  question.index = VFIO_PCI_BAR0_REGION_INDEX;
  RegionInfo answer;
  const Status asked = answer.ask(kernel_, fd, VFIO_DEVICE_GET_REGION_INFO, question);
  if (!asked) return asked;
  const vfio_region_info region = answer.fixed();
  constexpr uint32_t kAccess = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  if (region.size < kRegistersEnd || region.size > kRegionMax ||
      (region.flags & kAccess) != kAccess) {
    return Status(ENODEV, "BAR0 is not that of a Thunderbolt or USB4 controller");
  }
  fd_ = fd;
  offset_ = region.offset;
  bytes_ = region.size;
  if ((region.flags & VFIO_REGION_INFO_FLAG_MMAP) == 0) return {};

  const bool chain = (region.flags & VFIO_REGION_INFO_FLAG_CAPS) != 0;
  const auto sparse =
      answer.capability(VFIO_REGION_INFO_CAP_SPARSE_MMAP, chain ? region.cap_offset : 0);
  if (sparse.empty()) {
    areas_.push_back({0, region.size / kPage * kPage, nullptr});
  } else {
    for (const auto& area : entries_of<vfio_region_sparse_mmap_area>(
             sparse, &vfio_region_info_cap_sparse_mmap::nr_areas)) {
      if (!is_sane(area, region.size))
        return Status(EIO, "the kernel's map of BAR0 makes no sense");
      areas_.push_back({area.offset, area.size, nullptr});
    }
  }
  if (msix.vectors != 0 && msix.table_bar == 0) {
    leave_out(msix.table_offset, msix.vectors * kMsixEntryBytes);
  }
  if (msix.vectors != 0 && msix.pending_bar == 0) leave_out(msix.pending_offset, 8);
  for (Area& area : areas_) {
    area.base = kernel_.map(fd_, area.bytes, offset_ + area.offset);
    if (area.base == nullptr) return Status(EIO, "BAR0 cannot be mapped");
    if (area.offset != 0) continue;
    direct_ = area.base;
    direct_bytes_ = static_cast<uint32_t>(area.bytes);
  }
  return {};
}

// Whole pages; an area that is hit becomes two, one or none.
void VfioBar::leave_out(uint64_t offset, uint64_t bytes) {
  const uint64_t begin = offset / kPage * kPage;
  const uint64_t end = (offset + bytes + kPage - 1) / kPage * kPage;
  std::vector<Area> kept;
  for (const Area& area : areas_) {
    const uint64_t area_end = area.offset + area.bytes;
    const uint64_t left_end = std::clamp(begin, area.offset, area_end);
    const uint64_t right = std::clamp(end, area.offset, area_end);
    if (left_end > area.offset) kept.push_back({area.offset, left_end - area.offset, nullptr});
    if (right < area_end && right >= left_end) kept.push_back({right, area_end - right, nullptr});
  }
  areas_ = std::move(kept);
}

void VfioBar::unmap() noexcept {
  for (const Area& area : areas_) {
    if (area.base != nullptr) kernel_.unmap(area.base, area.bytes);
  }
  areas_.clear();
  direct_ = nullptr;
  direct_bytes_ = 0;
}

uint64_t VfioBar::mapped_bytes() const noexcept {
  uint64_t sum = 0;
  for (const Area& area : areas_) sum += area.base != nullptr ? area.bytes : 0;
  return sum;
}

std::byte* VfioBar::find(uint32_t offset) const noexcept {
  for (const Area& area : areas_) {
    if (offset >= area.offset && offset - area.offset < area.bytes) {
      return area.base + (offset - area.offset);
    }
  }
  return nullptr;
}

// All ones for what cannot be read, as a bus answers for a device that is not there.
uint32_t VfioBar::read_elsewhere(uint32_t offset) const noexcept {
  if (const std::byte* at = find(offset); at != nullptr) return load(at);
  uint32_t value = 0;
  const bool whole = kernel_.pread(fd_, &value, sizeof value, offset_ + offset) == sizeof value;
  return whole ? value : kDeviceGone;
}

void VfioBar::write_elsewhere(uint32_t offset, uint32_t value) noexcept {
  if (std::byte* at = find(offset); at != nullptr) return store(at, value);
  kernel_.pwrite(fd_, &value, sizeof value, offset_ + offset);
}

}  // namespace tbt::rail::nhi
