#include "rail/nhi/vfio_device.h"

#include <linux/vfio.h>

#include <array>
#include <bit>
#include <cstring>

#include "rail/nhi/host_reset.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/event_fd.h"

namespace tbt::rail::nhi {

VfioDevice::VfioDevice(const VfioOptions& options, VfioKernel& kernel)
    : kernel_(kernel), options_(options), bar_(kernel) {
  if (!options.inherited) return;
  container_ = options.inherited->container;
  group_ = options.inherited->group;
  device_ = options.inherited->device;
}

Result<std::unique_ptr<VfioDevice>> VfioDevice::open(const VfioOptions& options,
                                                     VfioKernel& kernel) {
  std::unique_ptr<VfioDevice> device(new VfioDevice(options, kernel));
  struct Step {
    Status (VfioDevice::*run)();
    bool once;  // not again with what was inherited
  };
  constexpr std::array<Step, 10> kSteps = {{
      {&VfioDevice::find_group, false},
      {&VfioDevice::open_container, true},
      {&VfioDevice::open_group, true},
      {&VfioDevice::join, true},
      {&VfioDevice::open_device, true},
      {&VfioDevice::find_config, false},
      {&VfioDevice::power_up, false},
      {&VfioDevice::map_registers, false},
      {&VfioDevice::set_up_interrupts, false},
      {&VfioDevice::take_over, false},
  }};
  for (const Step& step : kSteps) {
    if (step.once && options.inherited) continue;
    const Status status = (device.get()->*step.run)();
    if (!status) return status;  // the destructor undoes what was done
  }
  return device;
}

// The other way round than it was made: first no more DMA, then no interrupts, then no memory.
VfioDevice::~VfioDevice() {
  if (master_) static_cast<void>(config_.set_bus_master(false));
  if (!events_.empty()) clear_eventfds(VFIO_PCI_MSIX_IRQ_INDEX);
  if (give_back_) clear_eventfds(VFIO_PCI_REQ_IRQ_INDEX);
  if (powered_) static_cast<void>(config_.force_power(false));
  bar_.unmap();
  for (const Mapping& mapping : mappings_) static_cast<void>(unmap_dma(mapping));
  for (const int fd : {device_, group_, container_}) {
    if (fd >= 0) kernel_.close(fd);
  }
}

// ---- DMA

Result<uint64_t> VfioDevice::dma_map(uint64_t offset, uint64_t bytes) {
  if (!has_iommu_) return Status(EPERM, "no DMA without an IOMMU: turn on VT-d or AMD-Vi");
  const uint64_t all = options_.memory.size();
  if (bytes == 0 || bytes % 4096 != 0 || offset % 4096 != 0)
    return Status(EINVAL, "not whole pages");
  if (bytes > all || offset > all - bytes) return Status(EINVAL, "outside the host's memory");
  if (is_gone()) return Status(ENODEV, "the controller is gone");
  vfio_iommu_type1_dma_map request{};
  request.argsz = sizeof request;
  request.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  request.vaddr = reinterpret_cast<uintptr_t>(options_.memory.data()) + offset;
  request.iova = kDmaBase + offset;
  request.size = bytes;
  const int result = kernel_.ioctl(container_, VFIO_IOMMU_MAP_DMA, &request);
  switch (-result) {
    case 0:
      break;
    case ENOMEM:
      return Status(ENOMEM,
                    "over the limit of locked memory: raise it with 'ulimit -l', LimitMEMLOCK= of "
                    "the service, or /etc/security/limits.conf");
    case EEXIST:
      if (options_.goes_on) break;  // of the same memory: the layout does not change
      return Status(EEXIST, "that memory is mapped for DMA already");
    case ENOSPC:
      return Status(ENOSPC, "too many DMA mappings: raise dma_entry_limit of vfio_iommu_type1");
    default:
      return Status(-result, "the IOMMU refuses the mapping");
  }
  mappings_.push_back({request.iova, bytes});
  return request.iova;
}

Status VfioDevice::dma_unmap(uint64_t iova, uint64_t bytes) {
  for (auto it = mappings_.begin(); it != mappings_.end(); ++it) {
    if (it->iova != iova || it->bytes != bytes) continue;
    const Mapping mapping = *it;
    mappings_.erase(it);
    return unmap_dma(mapping);
  }
  if (options_.goes_on) return unmap_dma({iova, bytes});  // of the process that was killed
  return Status(EINVAL, "no such DMA mapping");
}

Status VfioDevice::unmap_dma(const Mapping& mapping) noexcept {
  vfio_iommu_type1_dma_unmap request{};
  request.argsz = sizeof request;
  request.iova = mapping.iova;
  request.size = mapping.bytes;
  const int result = kernel_.ioctl(container_, VFIO_IOMMU_UNMAP_DMA, &request);
  if (result < 0) return Status(-result, "the IOMMU does not let go of a mapping");
  if (request.size != mapping.bytes) return Status(EIO, "the IOMMU had mapped less than we knew");
  return {};
}

uint64_t VfioDevice::locked_bytes() const noexcept {
  uint64_t sum = 0;
  for (const Mapping& mapping : mappings_) sum += mapping.bytes;
  return sum;
}

// ---- interrupts

int VfioDevice::interrupt_fd(uint32_t vector) const noexcept {
  return vector < events_.size() ? events_[vector].get() : -1;
}

uint32_t VfioDevice::interrupts_of(uint32_t index) noexcept {
  vfio_irq_info info{};
  info.argsz = sizeof info;
  info.index = index;
  const int result = kernel_.ioctl(device_, VFIO_DEVICE_GET_IRQ_INFO, &info);
  return result >= 0 && (info.flags & VFIO_IRQ_INFO_EVENTFD) != 0 ? info.count : 0;
}

Status VfioDevice::set_eventfds(uint32_t index, std::span<const int> fds) noexcept {
  std::array<std::byte, sizeof(vfio_irq_set) + kVectorsMax * sizeof(int32_t)> request{};
  vfio_irq_set head{};
  head.argsz = static_cast<uint32_t>(sizeof head + fds.size_bytes());
  head.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
  head.index = index;
  head.count = static_cast<uint32_t>(fds.size());
  std::memcpy(request.data(), &head, sizeof head);
  std::memcpy(request.data() + sizeof head, fds.data(), fds.size_bytes());
  const int result = kernel_.ioctl(device_, VFIO_DEVICE_SET_IRQS, request.data());
  return result < 0 ? Status(-result, "interrupts cannot be had as eventfds") : Status();
}

void VfioDevice::clear_eventfds(uint32_t index) noexcept {
  vfio_irq_set request{};
  request.argsz = sizeof request;
  request.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
  request.index = index;
  kernel_.ioctl(device_, VFIO_DEVICE_SET_IRQS, &request);
}

// As many vectors as there are, up to one per data ring that the table of vectors can name.
Status VfioDevice::set_up_interrupts() {
  if (!options_.take_over) return {};
  const uint32_t count = std::min(interrupts_of(VFIO_PCI_MSIX_IRQ_INDEX), kVectorsMax);
  if (count == 0) return Status(ENODEV, "the controller has no MSI-X interrupts");
  std::vector<sys::UniqueFd> events;
  std::vector<int> fds;
  for (uint32_t v = 0; v < count; ++v) {
    auto event = sys::make_eventfd();
    if (!event) return event.error();
    fds.push_back(event->get());
    events.push_back(std::move(*event));
  }
  const Status set = set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, fds);
  if (!set) return set;
  events_ = std::move(events);
  if (interrupts_of(VFIO_PCI_REQ_IRQ_INDEX) == 0) return {};  // kernels before 4.0 do not tell
  auto event = sys::make_eventfd();
  if (!event) return event.error();
  const int fd = event->get();
  const Status told = set_eventfds(VFIO_PCI_REQ_IRQ_INDEX, std::span(&fd, 1));
  if (told) give_back_ = std::move(*event);
  return told;
}

}  // namespace tbt::rail::nhi
