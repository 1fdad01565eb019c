// The Thunderbolt and USB4 controllers of a machine as the kernel shows them in /sys: who drives
// them, who shares their IOMMU group, and what hangs on them. Only looks; what cannot be read is
// not there. `root` is put before every path: "" is the machine itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rail/nhi/pci_device.h"

namespace tbt::rail::nhi {

inline constexpr uint32_t kClassUsb4HostInterface = 0x0c0340;  // of any vendor

struct PciFunction {
  std::string address;  // 0000:3a:00.0
  uint32_t class_code = 0;
  std::string driver;           // empty: none
  std::string driver_override;  // the only driver that it may get; empty: any
};

// A network interface that thunderbolt-net made for a peer.
struct CableInterface {
  std::string name;
  bool up = false;  // an administrator has turned it on
};

// What the kernel's thunderbolt driver found behind a controller. In /sys/bus/thunderbolt/devices
// as well.
struct CableDevice {
  std::string name;           // 0-1, 0-301
  bool is_peer = false;       // another host; else a dock, a disk, a display
  std::string vendor, title;  // as it calls itself; may be empty
  std::string speed, lanes;   // of the cable, towards us: "40.0 Gb/s", "2"
  std::vector<CableInterface> interfaces;
};

struct Controller {
  PciFunction function;
  PciIdentity identity;
  std::string iommu_group;           // empty: no IOMMU
  bool has_iommu = false;            // false for a group that VFIO made without an IOMMU
  std::vector<PciFunction> others;   // of its IOMMU group
  std::string power_state;           // D0, D3hot, D3cold; "unknown"; empty: an old kernel
  std::vector<CableDevice> devices;  // empty unless the kernel's driver has the controller
};

// "3a:00.0" is taken for "0000:3a:00.0"; empty if it is no PCI address.
std::string pci_address(const std::string& text);

// By class; those from before USB4 by their driver or identity.
std::vector<Controller> find_controllers(const std::string& root);
// The function at `address`, whether it is a controller or not; an empty address in it: none there.
Controller look_at_controller(const std::string& root, const std::string& address);
bool is_controller(const Controller& controller) noexcept;

// A device or peer as it lies in the folder: of a controller, or of /sys/bus/thunderbolt/devices.
CableDevice look_at_cable_device(const std::string& folder, const std::string& name);

}  // namespace tbt::rail::nhi
