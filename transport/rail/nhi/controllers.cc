#include "rail/nhi/controllers.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "rail/nhi/quirks.h"
#include "sys/file_look.h"

namespace tbt::rail::nhi {
namespace {

using sys::first_line;
using sys::link_target_name;
using sys::names_in;

constexpr unsigned long kInterfaceUp = 1;  // IFF_UP in the flags of a network interface
constexpr int kRoutersDeep = 8;            // of docks behind docks

bool is_hex(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isxdigit(c) != 0; });
}

// "0-301" of domain 0, "0-1.2" is a service of 0-1.
bool is_cable_device(const std::string& name) {
  const size_t dash = name.find('-');
  return dash != std::string::npos && is_hex(name.substr(0, dash)) && is_hex(name.substr(dash + 1));
}
bool is_service_of(const std::string& name, const std::string& device) {
  return name.rfind(device + ".", 0) == 0;
}
// The router of the host itself: 0-0.
bool is_host_router(const std::string& name) { return name.substr(name.find('-') + 1) == "0"; }

PciFunction look_at_function(const std::string& folder, const std::string& address) {
  const std::string device = folder + "/" + address;
  std::string only = first_line(device + "/driver_override");
  if (only == "(null)") only.clear();
  return {.address = address,
          .class_code = sys::hex_in(device + "/class"),
          .driver = link_target_name(device + "/driver"),
          .driver_override = std::move(only)};
}

void add_interfaces(const std::string& service, std::vector<CableInterface>& found) {
  for (const std::string& name : names_in(service + "/net")) {
    const std::string flags = first_line(service + "/net/" + name + "/flags");
    found.push_back({name, (std::strtoul(flags.c_str(), nullptr, 16) & kInterfaceUp) != 0});
  }
}

void add_devices(const std::string& folder, int deeper, std::vector<CableDevice>& found) {
  for (const std::string& name : names_in(folder)) {
    if (!is_cable_device(name)) continue;
    if (!is_host_router(name)) found.push_back(look_at_cable_device(folder, name));
    if (deeper > 0) add_devices(folder + "/" + name, deeper - 1, found);
  }
}

}  // namespace

std::string pci_address(const std::string& text) {
  const std::string whole = std::count(text.begin(), text.end(), ':') == 1 ? "0000:" + text : text;
  const size_t bus = whole.find(':');
  if (bus == std::string::npos || bus < 4 || whole.size() != bus + 8) return {};
  const bool shaped = whole[bus + 3] == ':' && whole[bus + 6] == '.';
  const bool numbers = is_hex(whole.substr(0, bus)) && is_hex(whole.substr(bus + 1, 2)) &&
                       is_hex(whole.substr(bus + 4, 2)) && whole[bus + 7] >= '0' &&
                       whole[bus + 7] <= '7';
  if (!shaped || !numbers) return {};
  std::string lower = whole;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

CableDevice look_at_cable_device(const std::string& folder, const std::string& name) {
  const std::string device = folder + "/" + name;
  CableDevice found{.name = name,
                    .is_peer = sys::exists(device + "/maxhopid"),  // only hosts have a HopID limit
                    .vendor = first_line(device + "/vendor_name"),
                    .title = first_line(device + "/device_name"),
                    .speed = first_line(device + "/rx_speed"),
                    .lanes = first_line(device + "/rx_lanes"),
                    .interfaces = {}};
  for (const std::string& entry : names_in(device)) {
    if (is_service_of(entry, name)) add_interfaces(device + "/" + entry, found.interfaces);
  }
  return found;
}

Controller look_at_controller(const std::string& root, const std::string& address) {
  const std::string folder = root + "/sys/bus/pci/devices";
  const std::string device = folder + "/" + address;
  if (address.empty() || !sys::exists(device)) return {};
  Controller c;
  c.function = look_at_function(folder, address);
  c.identity = {static_cast<uint16_t>(sys::hex_in(device + "/vendor")),
                static_cast<uint16_t>(sys::hex_in(device + "/device"))};
  c.iommu_group = link_target_name(device + "/iommu_group");
  c.has_iommu =
      !c.iommu_group.empty() && first_line(device + "/iommu_group/name") != "vfio-noiommu";
  for (const std::string& other : names_in(device + "/iommu_group/devices")) {
    if (other != address) c.others.push_back(look_at_function(folder, other));
  }
  c.power_state = first_line(device + "/power_state");
  for (const std::string& entry : names_in(device)) {
    if (entry.rfind("domain", 0) == 0) add_devices(device + "/" + entry, kRoutersDeep, c.devices);
  }
  return c;
}

// Bound to vfio-pci a controller from before USB4 is known only by its identity.
bool is_controller(const Controller& c) noexcept {
  if (c.function.class_code == kClassUsb4HostInterface || c.function.driver == "thunderbolt") {
    return true;
  }
  const auto& ids = quirks_of(c.identity).devices;
  return c.identity.device != 0 &&
         std::find(ids.begin(), ids.end(), c.identity.device) != ids.end();
}

std::vector<Controller> find_controllers(const std::string& root) {
  std::vector<Controller> found;
  for (const std::string& address : names_in(root + "/sys/bus/pci/devices")) {
    Controller c = look_at_controller(root, address);
    if (is_controller(c)) found.push_back(std::move(c));
  }
  return found;
}

}  // namespace tbt::rail::nhi
