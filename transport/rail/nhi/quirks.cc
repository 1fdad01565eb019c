#include "rail/nhi/quirks.h"

#include <algorithm>

namespace tbt::rail::nhi {
namespace {

constexpr auto kByReading = InterruptClear::kByReading;
constexpr auto kByWriting = InterruptClear::kByWriting;

// Before Alder Lake no controller moves more than 20 Gb/s by DMA (the reason given in Linux commit
// 8e1de7042596, the bonding of lanes between hosts).
constexpr uint32_t kBeforeAlderLakeMbps = 20000;

// Sources: "Linux" is drivers/thunderbolt of 7.3; nhi.h and pci.c have the ids, nhi_ops.c who needs
// force power, nhi.c and nhi_regs.h the interrupt flavours and the reserved ring. A single fact
// from elsewhere is named. No line was checked on hardware by us.
constexpr auto kTable = std::to_array<Quirks>({
    {.name = "Falcon Ridge",
     .vendor = kVendorIntel,
     .devices = {0x156a, 0x156c},
     .interrupt_clear = kByReading,
     .reserved_e2e_ring = 1,
     .controller_mbps = kBeforeAlderLakeMbps,
     .source = "Linux nhi.c: ring 1 is kept for end-to-end credits"},
    {.name = "Alpine Ridge",
     .vendor = kVendorIntel,
     .devices = {0x1575, 0x1577, 0x15bf, 0x15d2, 0x15d9, 0x15dc, 0x15dd, 0x15de},
     .interrupt_clear = kByReading,
     .controller_mbps = kBeforeAlderLakeMbps,
     .source = "Linux nhi.h; the firmware manages connections on PCs"},
    {.name = "Titan Ridge",
     .vendor = kVendorIntel,
     .devices = {0x15e8, 0x15eb},
     .interrupt_clear = kByReading,
     .hops = 12,
     .controller_mbps = kBeforeAlderLakeMbps,
     .source = "Linux nhi.h; hops as read through VFIO by github.com/rajatkha/libusb4"},
    {.name = "Ice Lake, Tiger Lake",
     .vendor = kVendorIntel,
     .devices = {0x8a17, 0x8a0d, 0x9a1b, 0x9a1d, 0x9a1f, 0x9a21},
     .interrupt_clear = kByReading,
     .force_power = true,
     .controller_mbps = kBeforeAlderLakeMbps,
     .source = "Linux nhi_ops.c, pci.c"},
    {.name = "Alder Lake, Raptor Lake",
     .vendor = kVendorIntel,
     .devices = {0x463e, 0x466d, 0xa73e, 0xa76d},
     .interrupt_clear = kByReading,
     .force_power = true,
     .source = "Linux nhi_ops.c, pci.c"},
    {.name = "Meteor Lake, Lunar Lake",
     .vendor = kVendorIntel,
     .devices = {0x7eb2, 0x7ec2, 0x7ec3, 0xa833, 0xa834},
     .interrupt_clear = kByReading,
     .force_power = true,
     .source = "Linux nhi_ops.c, pci.c"},
    {.name = "Panther Lake, Wildcat Lake",
     .vendor = kVendorIntel,
     .devices = {0xe333, 0xe334, 0xe433, 0xe434, 0x4d33},
     .interrupt_clear = kByReading,
     .force_power = true,
     .source = "Linux nhi_ops.c, pci.c"},
    {.name = "Maple Ridge",
     .vendor = kVendorIntel,
     .devices = {0x1134, 0x1137},
     .interrupt_clear = kByReading,
     .source = "Linux nhi.h"},
    {.name = "Barlow Ridge 80G",
     .vendor = kVendorIntel,
     .devices = {0x5781},
     .interrupt_clear = kByReading,
     .source = "Linux nhi.h"},
    {.name = "Barlow Ridge 40G",
     .vendor = kVendorIntel,
     .devices = {0x5784},
     .interrupt_clear = kByReading,
     .source = "Linux nhi.h"},
    {.name = "Strix Halo",
     .vendor = kVendorAmd,
     .devices = {0x158d, 0x158e},
     .interrupt_clear = kByWriting,
     .hops = 3,
     .ring_mbps = 12100,
     .controller_mbps = 25000,
     .source = "github.com/hellas-ai/thunderbolt-ibverbs, docs: register dump and measurements"},
    {.name = "Phoenix, Hawk Point",
     .vendor = kVendorAmd,
     .devices = {0x1668},
     .interrupt_clear = kByWriting,
     .source = "Linux pci.c"},
    // No PCI function on Apple silicon: this line waits for a way to its controller.
    {.name = "Apple silicon",
     .vendor = kVendorApple,
     .interrupt_clear = kByWriting,
     .throttling_register = 0xd004c,
     .source = "github.com/hellas-ai/thunderbolt-ibverbs, pull request 75"},
    {.name = "Intel",
     .vendor = kVendorIntel,
     .interrupt_clear = kByReading,
     .source = "Linux nhi.c: by vendor"},
    {.name = "USB4 host interface",
     .interrupt_clear = kByWriting,
     .source = "Linux nhi.c: every vendor but Intel"},
});

bool fits(const Quirks& line, PciIdentity identity) noexcept {
  if (line.vendor == 0) return true;
  if (line.vendor != identity.vendor) return false;
  const auto& ids = line.devices;
  return ids[0] == 0 ||
         (identity.device != 0 && std::find(ids.begin(), ids.end(), identity.device) != ids.end());
}

}  // namespace

std::span<const Quirks> quirk_table() noexcept { return kTable; }

const Quirks& quirks_of(PciIdentity identity) noexcept {
  return *std::find_if(kTable.begin(), std::prev(kTable.end()),
                       [&](const Quirks& line) { return fits(line, identity); });
}

}  // namespace tbt::rail::nhi
