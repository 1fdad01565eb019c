// Opening a VfioDevice: from a PCI address to registers that answer. The steps are numbered as in
// docs/rails/nhi.md.
#include <linux/vfio.h>

#include <bit>

#include "rail/nhi/host_reset.h"
#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/vfio_device.h"
#include "rail/nhi/vfio_info.h"
#include "sys/file_look.h"

namespace tbt::rail::nhi {
namespace {

constexpr const char* kNoIommu =
    "no IOMMU guards the controller: turn on VT-d or AMD-Vi in the firmware (Intel: boot with "
    "intel_iommu=on)";

Status refused(int error, const char* else_text) noexcept {
  switch (error) {
    case EACCES:
    case EPERM:
      return Status(error,
                    "not allowed to use VFIO: run as root, or give the file of the group in "
                    "/dev/vfio to this user");
    case EMFILE:
    case ENFILE:
      return Status(error, "no file descriptor is left");
    default:
      return Status(error, else_text);
  }
}

}  // namespace

// 1. Which controller, and which IOMMU group. Without an IOMMU there is no group, or one that VFIO
// itself made and named so.
Status VfioDevice::find_group() {
  const std::string device = options_.root + "/sys/bus/pci/devices/" + options_.address;
  if (!sys::exists(device)) return Status(ENODEV, "there is no PCI device of that address");
  identity_ = {static_cast<uint16_t>(sys::hex_in(device + "/vendor")),
               static_cast<uint16_t>(sys::hex_in(device + "/device"))};
  const std::string group = sys::link_target_name(device + "/iommu_group");
  has_iommu_ = !group.empty() && sys::first_line(device + "/iommu_group/name") != "vfio-noiommu";
  if (!has_iommu_ && !options_.allow_no_iommu) return Status(ENODEV, kNoIommu);
  if (group.empty()) {
    return Status(ENODEV,
                  "without an IOMMU VFIO needs enable_unsafe_noiommu_mode=1 of the module vfio, "
                  "and a kernel built with it; then 'tbt bind'");
  }
  group_name_ = has_iommu_ ? group : "noiommu-" + group;
  return {};
}

// 2. The container, which holds the IOMMU's page table.
Status VfioDevice::open_container() {
  container_ = kernel_.open(options_.root + "/dev/vfio/vfio");
  if (container_ < 0) return refused(-container_, "VFIO is not there: modprobe vfio-pci");
  if (kernel_.ioctl(container_, VFIO_GET_API_VERSION, nullptr) != VFIO_API_VERSION) {
    return Status(EPROTO, "the kernel speaks another version of VFIO");
  }
  const uintptr_t type = has_iommu_ ? VFIO_TYPE1v2_IOMMU : VFIO_NOIOMMU_IOMMU;
  if (kernel_.ioctl(container_, VFIO_CHECK_EXTENSION, reinterpret_cast<void*>(type)) <= 0) {
    return Status(ENOTSUP, has_iommu_ ? "VFIO has no type 1 IOMMU: modprobe vfio_iommu_type1"
                                      : "VFIO refuses to work without an IOMMU");
  }
  return {};
}

// 3. The group, which must be ours alone.
Status VfioDevice::open_group() {
  group_ = kernel_.open(options_.root + "/dev/vfio/" + group_name_);
  if (group_ == -EBUSY) return Status(EBUSY, "another process has the controller");
  if (group_ < 0) return refused(-group_, "the controller is not bound to vfio-pci: 'tbt bind'");
  vfio_group_status status{};
  status.argsz = sizeof status;
  const int result = kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, &status);
  if (result < 0) return Status(-result, "the IOMMU group does not say how it is");
  if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) {
    return Status(EBUSY,
                  "another device of the controller's IOMMU group has a driver of the kernel: 'tbt "
                  "bind' takes the whole group");
  }
  if ((status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET) != 0) {
    return Status(EBUSY, "another process has the controller");
  }
  return {};
}

// 4. Group into container; from here on the controller reaches no memory but what we map.
Status VfioDevice::join() {
  int result = kernel_.ioctl(group_, VFIO_GROUP_SET_CONTAINER, &container_);
  if (result < 0) return refused(-result, "the IOMMU group does not go into a container");
  const uintptr_t type = has_iommu_ ? VFIO_TYPE1v2_IOMMU : VFIO_NOIOMMU_IOMMU;
  result = kernel_.ioctl(container_, VFIO_SET_IOMMU, reinterpret_cast<void*>(type));
  if (result == -EPERM) {
    return Status(EPERM,
                  "the IOMMU does not remap interrupts: turn that on in the firmware, or trust the "
                  "controller with allow_unsafe_interrupts=1 of vfio_iommu_type1");
  }
  if (result < 0) return Status(-result, "the IOMMU cannot be had");
  return has_iommu_ ? check_addresses() : Status();
}

// The IOVAs of our memory must be translatable, and 4 KiB pages must do.
Status VfioDevice::check_addresses() {
  VfioInfo<vfio_iommu_type1_info> answer;
  const Status asked = answer.ask(kernel_, container_, VFIO_IOMMU_GET_INFO, {});
  if (!asked) return asked;
  const vfio_iommu_type1_info info = answer.fixed();
  const bool pages = (info.flags & VFIO_IOMMU_INFO_PGSIZES) != 0;
  if (pages && (info.iova_pgsizes & (uint64_t{4096} | (uint64_t{4096} - 1))) == 0) {
    return Status(ENOTSUP, "the IOMMU has no pages of 4 KiB");
  }
  const uint32_t chain = (info.flags & VFIO_IOMMU_INFO_CAPS) != 0 ? info.cap_offset : 0;
  const auto bytes = answer.capability(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, chain);
  if (bytes.empty() || options_.memory.empty()) return {};  // kernels before 5.4 do not say
  const uint64_t last = kDmaBase + options_.memory.size() - 1;
  for (const auto& range :
       entries_of<vfio_iova_range>(bytes, &vfio_iommu_type1_info_cap_iova_range::nr_iovas)) {
    if (range.start <= kDmaBase && range.end >= last) return {};
  }
  return Status(ENOTSUP, "the IOMMU does not reach the addresses of our memory");
}

// 5. The device and its configuration space.
Status VfioDevice::open_device() {
  const int fd =
      kernel_.ioctl(group_, VFIO_GROUP_GET_DEVICE_FD, const_cast<char*>(options_.address.c_str()));
  if (fd < 0) return refused(-fd, "the controller is not bound to vfio-pci: 'tbt bind'");
  device_ = fd;
  vfio_device_info info{};
  info.argsz = sizeof info;
  const int result = kernel_.ioctl(device_, VFIO_DEVICE_GET_INFO, &info);
  if (result < 0) return Status(-result, "the kernel does not describe the device");
  if ((info.flags & VFIO_DEVICE_FLAGS_PCI) == 0 ||
      info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX) {
    return Status(ENODEV, "not a PCI device");
  }
  return {};
}

Status VfioDevice::find_config() {
  auto config = PciConfig::of_device(kernel_, device_);
  if (!config) return config.error();
  config_ = *config;
  return {};
}

// 6. D0, force power where it is needed, memory access.
Status VfioDevice::power_up() {
  auto vendor = config_.read16(0);
  if (!vendor) return vendor.error();
  if (*vendor == 0xffff) return Status(ENODEV, "the controller is gone");
  const Status on = config_.power_on();
  if (!on) return on;
  if (quirks_of(identity_).force_power && !options_.inherited) {
    powered_ = true;
    const Status forced = config_.force_power(true);
    if (!forced) return forced;
  }
  return config_.enable_memory();
}

// 7. BAR0.
Status VfioDevice::map_registers() {
  auto msix = config_.msix();
  if (!msix) return msix.error();
  msix_ = *msix;
  const Status mapped = bar_.map(device_, msix_);
  if (!mapped) return mapped;
  const uint32_t capabilities = bar_.read32(kRegCapabilities);
  if (capabilities == kDeviceGone) {
    return Status(ENODEV, "the controller does not answer: its registers read all ones");
  }
  if (capability_hops(capabilities) == 0) {
    return Status(ENODEV, "the controller names no ring: it sleeps, or is no host interface");
  }
  return {};
}

// 9. The router begins anew, and only then may the controller reach memory. (8, the interrupts, is
// in vfio_device.cc.)
Status VfioDevice::take_over() {
  if (!options_.take_over) return {};
  if (!options_.goes_on) {
    const Status reset = reset_host_router(*this, [this](uint32_t us) { kernel_.sleep_us(us); });
    if (!reset) return reset;
  }
  master_ = true;
  return config_.set_bus_master(true);
}

}  // namespace tbt::rail::nhi
