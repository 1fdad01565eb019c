#include "tbt/driver_binding.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sys/file_look.h"
#include "sys/unique_fd.h"

namespace tbt::tool {
namespace {

using rail::nhi::CableDevice;
using rail::nhi::Controller;
using rail::nhi::PciFunction;

constexpr const char* kVfio = "vfio-pci";
constexpr uint32_t kBridge = 0x06;  // base class

class RealSystem final : public BindingSystem {
 public:
  int write(const std::string& path, std::string_view text) override {
    const sys::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) return errno;
    const ssize_t n = ::write(fd.get(), text.data(), text.size());
    return n == static_cast<ssize_t>(text.size()) ? 0 : n < 0 ? errno : EIO;
  }
  bool is_busy(const std::string& path) override {
    const sys::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    return !fd && errno == EBUSY;
  }
};

std::string pci_folder(const std::string& root) { return root + "/sys/bus/pci"; }
std::string device_folder(const std::string& root, const PciFunction& function) {
  return pci_folder(root) + "/devices/" + function.address;
}
std::string driver_of(const std::string& root, const PciFunction& function) {
  return sys::link_target_name(device_folder(root, function) + "/driver");
}

std::string find(const BindRequest& request, Controller& controller) {
  const std::string address = rail::nhi::pci_address(request.address);
  if (address.empty()) {
    return fmt::format("'{}' is no PCI address: write it as lspci -D does, 0000:3a:00.0",
                       request.address);
  }
  controller = rail::nhi::look_at_controller(request.root, address);
  if (controller.function.address.empty()) {
    return fmt::format("there is no PCI device {}: 'tbt doctor' shows the controllers", address);
  }
  if (!rail::nhi::is_controller(controller)) {
    return fmt::format(
        "{} is no Thunderbolt or USB4 controller: 'tbt doctor' shows those there are", address);
  }
  return {};
}

std::string name_of(const CableDevice& device) {
  const std::string title = device.vendor + (device.vendor.empty() ? "" : " ") + device.title;
  return title.empty() ? device.name : fmt::format("{} '{}'", device.name, title);
}

void note_cable_devices(BindPlan& plan) {
  for (const CableDevice& device : plan.controller.devices) {
    if (!device.is_peer) {
      plan.in_use = true;
      plan.losses.push_back(
          fmt::format("{} is connected, with whatever displays, disks and networks hang on it",
                      name_of(device)));
      continue;
    }
    plan.losses.push_back(fmt::format("the kernel no longer sees the host {}", name_of(device)));
    for (const auto& interface : device.interfaces) {
      plan.in_use |= interface.up;
      plan.losses.push_back(fmt::format("network interface {} goes away{}", interface.name,
                                        interface.up ? ", and it is up" : ""));
    }
  }
}

void note_group(BindPlan& plan) {
  for (const PciFunction& other : plan.controller.others) {
    const bool stays = other.class_code >> 16 == kBridge;
    if (stays || other.driver.empty() || other.driver == kVfio) continue;
    plan.in_use = true;
    plan.functions.push_back(other);
    plan.losses.push_back(
        fmt::format("{} (class {:06x}) of the same IOMMU group {} loses its driver {}",
                    other.address, other.class_code, plan.controller.iommu_group, other.driver));
  }
}

std::string write_failed(const std::string& path, int error) {
  if (error == EACCES || error == EPERM || error == EROFS) {
    return fmt::format("may not write {}: run as root, outside of containers", path);
  }
  return fmt::format("cannot write {}: {}", path, std::strerror(error));
}

// Says which driver is allowed (kVfio, or "\n": any), lets go of the present one if it is not of
// that kind, and lets the kernel look for one.
std::string change_driver(const std::string& root, const PciFunction& function,
                          std::string_view only, BindingSystem& system) {
  const std::string device = device_folder(root, function);
  std::string path = device + "/driver_override";
  if (const int error = system.write(path, only); error != 0) return write_failed(path, error);
  const std::string driver = driver_of(root, function);
  const bool to_vfio = only == kVfio;
  if (!driver.empty() && to_vfio != (driver == kVfio)) {
    path = device + "/driver/unbind";
    if (const int error = system.write(path, function.address); error != 0) {
      return write_failed(path, error);
    }
  }
  path = pci_folder(root) + "/drivers_probe";
  // The kernel reports a driver that refused as an error here; who has the device then, we look.
  const int error = system.write(path, function.address);
  if (error == EACCES || error == EPERM || error == EROFS) return write_failed(path, error);
  return {};
}

std::string bind_one(const std::string& root, const PciFunction& function, BindingSystem& system) {
  const std::string wrong = change_driver(root, function, kVfio, system);
  if (!wrong.empty()) return wrong;
  if (driver_of(root, function) == kVfio) return {};
  return fmt::format("{} did not take {}: 'dmesg' says why; it has its old driver again", kVfio,
                     function.address);
}

}  // namespace

BindingSystem& BindingSystem::real() {
  static RealSystem system;
  return system;
}

std::string plan_bind(const BindRequest& request, BindPlan& plan) {
  if (const std::string wrong = find(request, plan.controller); !wrong.empty()) return wrong;
  const Controller& c = plan.controller;
  if (c.function.driver != kVfio) {
    plan.functions.push_back(c.function);
    plan.losses.push_back(
        fmt::format("{} works for tbt only: no docks, displays, disks or thunderbolt-net on its "
                    "ports until 'tbt unbind {}'",
                    c.function.address, c.function.address));
  }
  note_cable_devices(plan);
  note_group(plan);
  if (plan.functions.empty()) return {};
  if (!c.has_iommu && !request.without_iommu) {
    return fmt::format(
        "no IOMMU guards {}: turn on VT-d or AMD-Vi in the firmware (Intel: boot with "
        "intel_iommu=on); --no-iommu binds it without, for reading registers only",
        c.function.address);
  }
  if (!sys::exists(pci_folder(request.root) + "/drivers/" + kVfio)) {
    return fmt::format("the driver {} is not loaded: modprobe {}", kVfio, kVfio);
  }
  return {};
}

std::string plan_unbind(const BindRequest& request, BindPlan& plan) {
  if (const std::string wrong = find(request, plan.controller); !wrong.empty()) return wrong;
  const Controller& c = plan.controller;
  const auto is_ours = [](const PciFunction& f) {
    return f.driver == kVfio || f.driver_override == kVfio;
  };
  if (is_ours(c.function)) plan.functions.push_back(c.function);
  for (const PciFunction& other : c.others) {
    // A function that has vfio-pci for another reason has it without an override.
    if (other.driver_override == kVfio) plan.functions.push_back(other);
  }
  return {};
}

std::string apply_bind(const std::string& root, const BindPlan& plan, BindingSystem& system) {
  for (size_t i = 0; i < plan.functions.size(); ++i) {
    const std::string wrong = bind_one(root, plan.functions[i], system);
    if (wrong.empty()) continue;
    for (size_t done = i + 1; done-- > 0;) {
      static_cast<void>(change_driver(root, plan.functions[done], "\n", system));
    }
    return wrong;
  }
  return {};
}

// The kernel would wait in this call until a user lets go, so that is looked at first.
std::string apply_unbind(const std::string& root, const BindPlan& plan, BindingSystem& system) {
  const Controller& c = plan.controller;
  const std::string file =
      fmt::format("/dev/vfio/{}{}", c.has_iommu ? "" : "noiommu-", c.iommu_group);
  if (!c.iommu_group.empty() && system.is_busy(root + file)) {
    return fmt::format("a process has {} open: end it first (tbtd?); 'fuser -v {}' names it", file,
                       file);
  }
  for (const PciFunction& function : plan.functions) {
    const std::string wrong = change_driver(root, function, "\n", system);
    if (!wrong.empty()) return wrong;
  }
  return {};
}

}  // namespace tbt::tool
