#include "scripted_kernel.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tbt::rail::test {

using namespace nhi;

namespace {

// The fixed part of a capability with entries: the kernel's structures end in flexible arrays.
struct CapabilityHead {
  vfio_info_cap_header header{};
  uint32_t count = 0, reserved = 0;
};
static_assert(sizeof(CapabilityHead) == sizeof(vfio_region_info_cap_sparse_mmap));
static_assert(sizeof(CapabilityHead) == sizeof(vfio_iommu_type1_info_cap_iova_range));

}  // namespace

int ScriptedKernel::open(const std::string& path) noexcept {
  const std::string name = path.substr(root_.size());
  if (const auto f = fail_open.find(name); f != fail_open.end()) return -f->second;
  int fd = -ENOENT;
  if (name == "/dev/vfio/vfio") fd = kContainer;
  if (name == "/dev/vfio/17" || name == "/dev/vfio/noiommu-17") fd = kGroup;
  if (fd < 0) return fd;
  EXPECT_TRUE(open_fds.insert(fd).second) << name << " opened twice";
  return fd;
}

void ScriptedKernel::close(int fd) noexcept {
  EXPECT_EQ(open_fds.erase(fd), 1u) << fd;
  if (fd == kDevice) {
    EXPECT_TRUE(mapped.empty()) << "BAR0 is still mapped";
    note("close device");
  }
  if (fd == kContainer) note("close container");
}

int ScriptedKernel::answer(void* argument, const void* bytes, size_t size) noexcept {
  uint32_t room = 0;
  std::memcpy(&room, argument, sizeof room);
  std::memcpy(argument, bytes, std::min<size_t>(room, size));
  return 0;
}

int ScriptedKernel::ioctl(int fd, unsigned long request, void* argument) noexcept {
  EXPECT_TRUE(open_fds.count(fd)) << "descriptor " << fd << " is not open";
  EXPECT_TRUE(!is_granted(fd) || request == VFIO_DEVICE_GET_REGION_INFO) << "that is the owner's";
  EXPECT_TRUE(fd < kGrantedContainer || request == VFIO_IOMMU_MAP_DMA ||
              request == VFIO_IOMMU_UNMAP_DMA)
      << "that is the owner's";
  if (const auto f = fail.find(request); f != fail.end()) return -f->second;
  const auto number = reinterpret_cast<uintptr_t>(argument);
  switch (request) {
    case VFIO_GET_API_VERSION:
      return api;
    case VFIO_CHECK_EXTENSION:
      return extensions.count(number) != 0 ? 1 : 0;
    case VFIO_GROUP_GET_STATUS: {
      auto& status = *static_cast<vfio_group_status*>(argument);
      status.flags = (viable ? VFIO_GROUP_FLAGS_VIABLE : 0u) |
                     (has_container ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0u);
      return 0;
    }
    case VFIO_GROUP_SET_CONTAINER:
      EXPECT_EQ(*static_cast<int*>(argument), kContainer);
      joined_ = true;
      return 0;
    case VFIO_SET_IOMMU:
      EXPECT_TRUE(joined_);
      iommu_set_ = true;
      return extensions.count(number) != 0 ? 0 : -ENODEV;
    case VFIO_IOMMU_GET_INFO:
      return iommu_info(argument);
    case VFIO_GROUP_GET_DEVICE_FD:
      if (!iommu_set_) return -EINVAL;
      open_fds.insert(kDevice);
      return kDevice;
    case VFIO_DEVICE_GET_INFO: {
      auto& info = *static_cast<vfio_device_info*>(argument);
      info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
      info.num_regions = 9;
      info.num_irqs = 5;
      return 0;
    }
    case VFIO_DEVICE_GET_REGION_INFO:
      return region_info(argument);
    case VFIO_DEVICE_GET_IRQ_INFO: {
      auto& info = *static_cast<vfio_irq_info*>(argument);
      info.flags = VFIO_IRQ_INFO_EVENTFD;
      info.count = info.index == VFIO_PCI_MSIX_IRQ_INDEX  ? msix_vectors
                   : info.index == VFIO_PCI_REQ_IRQ_INDEX ? request_vectors
                                                          : 0;
      return 0;
    }
    case VFIO_DEVICE_SET_IRQS:
      return set_irqs(argument);
    case VFIO_IOMMU_MAP_DMA:
      return map_dma(*static_cast<vfio_iommu_type1_dma_map*>(argument));
    case VFIO_IOMMU_UNMAP_DMA:
      return unmap_dma(*static_cast<vfio_iommu_type1_dma_unmap*>(argument));
    default:
      ADD_FAILURE() << "ioctl " << std::hex << request;
      return -ENOTTY;
  }
}

// As the kernel does: argsz grows to what a whole answer needs, and the chain is left out until it
// fits.
int ScriptedKernel::region_info(void* argument) noexcept {
  struct Whole {
    vfio_region_info info{};
    vfio_info_cap_header other{};  // some capability before the one that matters
    CapabilityHead sparse{};
    vfio_region_sparse_mmap_area areas[2]{};
  } whole;
  vfio_region_info asked{};
  std::memcpy(&asked, argument, sizeof asked);
  whole.info = asked;
  whole.info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  if (asked.index == VFIO_PCI_CONFIG_REGION_INDEX) {
    whole.info.size = config_bytes;
    whole.info.offset = kConfigAt;
    return answer(argument, &whole, sizeof whole.info);
  }
  whole.info.size = bar_bytes;
  whole.info.offset = kBarAt;
  if (mappable && model == nullptr) whole.info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
  if (chain == Chain::kNone) return answer(argument, &whole, sizeof whole.info);
  whole.info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
  const uint32_t size = sizeof whole;
  if (asked.argsz < size) {
    whole.info.argsz = size;
    return answer(argument, &whole, sizeof whole.info);
  }
  whole.info.cap_offset = offsetof(Whole, other);
  whole.other = {VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, offsetof(Whole, sparse)};
  whole.sparse.header = {VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0};
  whole.sparse.count = 2;
  whole.areas[0] = {0,
                    0x20000};  // a hole between the two: receive options from 0x29800 on are in it
  whole.areas[1] = {0x30000, kMsixTable - 0x30000};
  if (chain == Chain::kMsixMappable) whole.other.next = 0;
  if (chain == Chain::kLoop) whole.other.next = whole.info.cap_offset;
  if (chain == Chain::kBeyond) whole.other.next = 0xfffffff0;
  if (chain == Chain::kInsane) {
    whole.sparse.count = 0x10000000;
    whole.areas[1] = {0x30000, kBarBytes};
  }
  return answer(argument, &whole, sizeof whole);
}

int ScriptedKernel::iommu_info(void* argument) noexcept {
  struct Whole {
    vfio_iommu_type1_info info{};
    CapabilityHead head{};
    vfio_iova_range ranges[4]{};
  } whole;
  vfio_iommu_type1_info asked{};
  std::memcpy(&asked, argument, sizeof asked);
  whole.info = asked;
  whole.info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
  whole.info.iova_pgsizes = page_sizes;
  if (asked.argsz < sizeof whole) {
    whole.info.argsz = sizeof whole;
    whole.info.cap_offset = 0;
    return answer(argument, &whole.info, sizeof whole.info);
  }
  whole.info.cap_offset = offsetof(Whole, head);
  whole.head.header = {VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, 0};
  whole.head.count = static_cast<uint32_t>(iova_ranges.size());
  std::copy(iova_ranges.begin(), iova_ranges.end(), whole.ranges);
  return answer(argument, &whole, sizeof whole);
}

int ScriptedKernel::set_irqs(const void* argument) noexcept {
  vfio_irq_set set{};
  std::memcpy(&set, argument, sizeof set);
  const bool off = (set.flags & VFIO_IRQ_SET_DATA_NONE) != 0;
  const bool msix = set.index == VFIO_PCI_MSIX_IRQ_INDEX;
  if (off) {
    msix ? event_fds.fill(0) : void(request_fd = 0);
    note(msix ? "vectors off" : "request off");
    return 0;
  }
  EXPECT_EQ(set.argsz, sizeof set + set.count * sizeof(int32_t));
  if (set.count > (msix ? msix_vectors : request_vectors)) return -EINVAL;
  const auto* from = static_cast<const std::byte*>(argument) + sizeof set;
  std::memcpy(msix ? event_fds.data() : &request_fd, from, set.count * sizeof(int32_t));
  note(msix ? "vectors on" : "request on");
  return 0;
}

int ScriptedKernel::map_dma(const vfio_iommu_type1_dma_map& request) noexcept {
  const bool own = is_own(request.iova);
  EXPECT_EQ(request.flags,
            VFIO_DMA_MAP_FLAG_READ | (own ? 0u : unsigned{VFIO_DMA_MAP_FLAG_WRITE}));
  uint64_t locked = request.size;
  for (const Mapping& m : mappings) {
    locked += m.bytes;
    if (request.iova < m.iova + m.bytes && m.iova < request.iova + request.size) return -EEXIST;
  }
  if (locked > memlock) return -ENOMEM;
  mappings.push_back({request.iova, request.size, request.vaddr, own});
  if (model == nullptr || own) return 0;
  const auto offset = request.vaddr - reinterpret_cast<uintptr_t>(model_memory);
  auto iova = model->dma_map(offset, request.size);
  EXPECT_TRUE(iova);
  EXPECT_EQ(*iova, request.iova) << "the model counts its addresses from elsewhere";
  return 0;
}

int ScriptedKernel::unmap_dma(vfio_iommu_type1_dma_unmap& request) noexcept {
  // Of a range that holds several all go; one that is cut by its edge is an error.
  if (is_own(request.iova)) {
    const uint64_t first = request.iova, end = request.iova + request.size;
    request.size = 0;
    for (const Mapping& m : mappings) {
      const bool touches = m.iova < end && m.iova + m.bytes > first;
      if (touches && (m.iova < first || m.iova + m.bytes > end)) return -EINVAL;
      if (touches) request.size += m.bytes;
    }
    std::erase_if(mappings, [&](const Mapping& m) { return m.iova >= first && m.iova < end; });
    return 0;
  }
  EXPECT_FALSE(is_master()) << "memory goes while the controller may reach it";
  const auto found = std::find_if(mappings.begin(), mappings.end(),
                                  [&](const Mapping& m) { return m.iova == request.iova; });
  if (found == mappings.end()) {
    request.size = 0;  // the kernel does not call that an error
    return 0;
  }
  if (found->bytes != request.size) return -EINVAL;
  mappings.erase(found);
  note("unmap");
  return model == nullptr || model->dma_unmap(request.iova, request.size) ? 0 : -EIO;
}

int64_t ScriptedKernel::pread(int fd, void* to, size_t bytes, uint64_t offset) noexcept {
  if (!is_device(fd)) return -EBADF;
  if (offset >= kConfigAt) {
    const uint64_t at = offset - kConfigAt;
    if (slept_us >= powered_at_us_ + firmware_us && (config[kForcePowerAt] & 2) != 0) {
      config[0xcb] |= 0x80;
    }
    const auto n = std::min<uint64_t>(bytes, at < config_bytes ? config_bytes - at : 0);
    std::memcpy(to, &config[at], n);
    return static_cast<int64_t>(n);
  }
  if (offset + bytes > bar_bytes) return -EINVAL;
  ++elsewhere;
  if (model == nullptr) {
    std::memcpy(to, reinterpret_cast<std::byte*>(bar.data()) + offset, bytes);
  } else {
    const uint32_t value = model->read32(static_cast<uint32_t>(offset));
    std::memcpy(to, &value, sizeof value);
  }
  return static_cast<int64_t>(bytes);
}

int64_t ScriptedKernel::pwrite(int fd, const void* from, size_t bytes, uint64_t offset) noexcept {
  if (!is_device(fd)) return -EBADF;
  if (offset >= kConfigAt) {
    const uint64_t at = offset - kConfigAt;
    const bool was_master = is_master();
    std::memcpy(&config[at], from, bytes);
    if (is_master() != was_master) note(was_master ? "master off" : "master on");
    if (at == kForcePowerAt) {
      note((config[at] & 2) != 0 ? "force power" : "no force power");
      powered_at_us_ = slept_us;
      config[0xcb] &= 0x7f;
    }
    return static_cast<int64_t>(bytes);
  }
  if (offset + bytes > bar_bytes) return -EINVAL;
  ++elsewhere;
  uint32_t value = 0;
  std::memcpy(&value, from, sizeof value);
  if (model != nullptr) {
    model->write32(static_cast<uint32_t>(offset), value);
  } else {
    bar[offset / 4] = value;
  }
  return static_cast<int64_t>(bytes);
}

std::byte* ScriptedKernel::map(int fd, size_t bytes, uint64_t offset) noexcept {
  if (!is_device(fd) || offset + bytes > bar_bytes || refuse_map) return nullptr;
  mapped.emplace_back(offset, bytes);
  return reinterpret_cast<std::byte*>(bar.data()) + offset;
}

void ScriptedKernel::unmap(std::byte* base, size_t bytes) noexcept {
  const auto offset = static_cast<uint64_t>(base - reinterpret_cast<std::byte*>(bar.data()));
  const auto found =
      std::find(mapped.begin(), mapped.end(), std::pair<uint64_t, uint64_t>(offset, bytes));
  EXPECT_NE(found, mapped.end());
  if (found != mapped.end()) mapped.erase(found);
}

// Time is what was slept. The router finishes its reset in it.
void ScriptedKernel::sleep_us(uint32_t us) noexcept {
  slept_us += us;
  for (const uint32_t reg : {kRegResetV1, kRegResetV2}) {
    if ((bar[reg / 4] & 1) == 0) continue;
    if (reset_at_us_ == 0) reset_at_us_ = slept_us - us + reset_us;
    if (slept_us < reset_at_us_) continue;
    bar[reg / 4] = 0;
    note(reg == kRegResetV1 ? "reset v1" : "reset v2");
  }
}

}  // namespace tbt::rail::test
