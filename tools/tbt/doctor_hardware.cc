// The doctor's checks of the kernel and the Thunderbolt hardware.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "rail/nhi/controllers.h"
#include "rail/nhi/quirks.h"
#include "sys/file_look.h"
#include "tbt/doctor.h"

namespace tbt::tool {
namespace {

using sys::exists;
using sys::first_line;
using sys::link_target_name;
using sys::names_in;

struct KernelVersion {
  unsigned major = 0, minor = 0;
  auto operator<=>(const KernelVersion&) const = default;
};
constexpr KernelVersion kOldestKernel{5, 9};    // close_range, which starting the daemons needs
constexpr KernelVersion kTbstreamKernel{7, 2};  // the first with /dev/tbstreamX

KernelVersion version_of(const Machine& m) {
  KernelVersion v;
  if (std::sscanf(m.kernel_release.c_str(), "%u.%u", &v.major, &v.minor) != 2) return {};
  return v;
}

std::string controller_text(const rail::nhi::Controller& c) {
  const std::string& driver = c.function.driver;
  std::string text =
      fmt::format("{} [0x{:04x}:0x{:04x}] driver {}", c.function.address, c.identity.vendor,
                  c.identity.device, driver.empty() ? "none" : driver);
  if (const auto& quirks = rail::nhi::quirks_of(c.identity); quirks.controller_mbps != 0) {
    text += fmt::format(" ({}: {:.0f} Gb/s at most)", quirks.name,
                        static_cast<double>(quirks.controller_mbps) / 1000);
  }
  return text;
}

std::vector<std::string> controllers_of(const Machine& m) {
  std::vector<std::string> found;
  for (const auto& c : rail::nhi::find_controllers(m.root)) found.push_back(controller_text(c));
  return found;
}

std::vector<std::string> peers_of(const Machine& m) {
  const std::string folder = m.root + "/sys/bus/thunderbolt/devices";
  std::vector<std::string> found;
  for (const std::string& name : names_in(folder)) {
    const auto device = rail::nhi::look_at_cable_device(folder, name);
    if (!device.is_peer) continue;
    found.push_back(fmt::format("{} '{}' {} x{}", name, device.title, device.speed, device.lanes));
  }
  return found;
}

bool is_thunderbolt_interface(const Machine& m, const std::string& name) {
  const std::string device = m.root + "/sys/class/net/" + name + "/device";
  return link_target_name(device + "/driver") == "thunderbolt-net" ||
         name.rfind("thunderbolt", 0) == 0;
}

std::string plural(size_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

}  // namespace

Check check_kernel(const Machine& m) {
  Check check{.name = "kernel", .text = "Linux " + m.kernel_release, .needed = true};
  if (version_of(m) < kOldestKernel) {
    check.result = CheckResult::kFix;
    check.next = fmt::format("use Linux {}.{} or newer", kOldestKernel.major, kOldestKernel.minor);
  }
  return check;
}

Check check_controllers(const Machine& m) {
  Check check{.name = "controllers"};
  const auto found = controllers_of(m);
  check.text = fmt::format("{}", fmt::join(found, ", "));
  if (found.empty()) {
    check.result = CheckResult::kMissing;
    check.text = "no Thunderbolt or USB4 controller";
    check.next =
        "none is needed for emulated fabrics; with one in the machine, turn it on in the firmware";
  }
  return check;
}

Check check_domains(const Machine& m) {
  Check check{.name = "cables"};
  const bool has_controller = !controllers_of(m).empty();
  if (!exists(m.root + "/sys/bus/thunderbolt")) {
    check.result = has_controller ? CheckResult::kFix : CheckResult::kMissing;
    check.text = "the kernel's thunderbolt driver is not loaded";
    check.next = has_controller ? "modprobe thunderbolt" : "it has nothing to drive here";
    return check;
  }
  const auto peers = peers_of(m);
  check.text = fmt::format("{}", fmt::join(peers, ", "));
  if (peers.empty()) {
    check.result = CheckResult::kMissing;
    check.text = "no other host at the end of a cable";
    check.next = "connect two hosts with a Thunderbolt or USB4 cable; the other must be running";
  }
  return check;
}

Check check_thunderbolt_net(const Machine& m) {
  Check check{.name = "thunderbolt-net"};
  std::vector<std::string> found;
  for (const std::string& name : names_in(m.root + "/sys/class/net")) {
    if (is_thunderbolt_interface(m, name)) found.push_back(name);
  }
  check.text = fmt::format("{}", fmt::join(found, ", "));
  if (!found.empty()) return check;
  check.result = CheckResult::kMissing;
  if (exists(m.root + "/sys/module/thunderbolt_net")) {
    check.text = "loaded, but no interface";
    check.next = "it makes one when a host that has it too is connected";
  } else {
    check.text = "not loaded";
    check.next = "modprobe thunderbolt-net, for IP over a cable";
  }
  return check;
}

Check check_tbstream(const Machine& m) {
  Check check{.name = "tbstream"};
  std::vector<std::string> found;
  for (const std::string& name : names_in(m.root + "/dev")) {
    if (name.rfind("tbstream", 0) == 0) found.push_back("/dev/" + name);
  }
  check.text = fmt::format("{}", fmt::join(found, ", "));
  if (!found.empty()) return check;
  check.result = CheckResult::kMissing;
  const std::string group = "/sys/kernel/config/thunderbolt/stream";
  if (exists(m.root + group)) {
    check.text = "available, no stream is made";
    check.next = fmt::format("make one below {}", group);
  } else if (version_of(m) < kTbstreamKernel) {
    check.text = "this kernel has none";
    check.next =
        fmt::format("it comes with Linux {}.{}", kTbstreamKernel.major, kTbstreamKernel.minor);
  } else {
    check.text = "not loaded";
    check.next = "mount configfs on /sys/kernel/config and load the kernel's USB4 stream module";
  }
  return check;
}

Check check_vfio(const Machine& m) {
  Check check{.name = "vfio"};
  const size_t groups = names_in(m.root + "/sys/kernel/iommu_groups").size();
  if (groups == 0) {
    check.result = CheckResult::kMissing;
    check.text = "no IOMMU";
    check.next =
        "to drive a controller from user space, turn on VT-d or AMD-Vi in the firmware "
        "(Intel: boot with intel_iommu=on)";
  } else if (!exists(m.root + "/dev/vfio/vfio")) {
    check.result = CheckResult::kMissing;
    check.text = fmt::format("IOMMU with {}, no /dev/vfio/vfio", plural(groups, "group"));
    check.next = "modprobe vfio-pci";
  } else {
    check.text = fmt::format("IOMMU with {}, /dev/vfio/vfio", plural(groups, "group"));
  }
  return check;
}

}  // namespace tbt::tool
