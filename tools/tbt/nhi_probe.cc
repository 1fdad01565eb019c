#include "tbt/nhi_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/quirks.h"

namespace tbt::tool {
namespace {

using namespace rail::nhi;

constexpr uint32_t kFirmwareManages = 1u << 0;       // of the firmware status: ICM is enabled
constexpr uint32_t kModeShift = 8, kModeMask = 0xf;  // of the outbox

// Which firmware manages connections, where one does (K7.3: nhi.h, enum nhi_fw_mode).
std::string mode_name(uint32_t mode) {
  constexpr std::array kNames = {"safe", "authentication", "end point", "connection manager"};
  return mode < kNames.size() ? kNames[mode] : fmt::format("mode {}", mode);
}

std::string options_text(uint32_t options) {
  if ((options & kOptionEnable) == 0) return "off";
  std::string text = "on";
  if ((options & kOptionRaw) != 0) text += " raw";
  if ((options & kOptionE2e) != 0) text += " e2e";
  if ((options & kOptionNoSnoop) != 0) text += " no-snoop";
  if ((options & kOptionIsochronous) != 0) text += " isochronous";
  return text;
}

std::string line(const char* name, const std::string& value) {
  return fmt::format("{:<12}{}", name, value);
}

std::string clear_text(const NhiView& view, const Quirks& quirks) {
  const char* how =
      quirks.interrupt_clear == InterruptClear::kByReading ? "by reading" : "by writing";
  std::string text = fmt::format("status cleared {}; misc {:#x}", how, view.dma_misc);
  if ((view.dma_misc & kDmaMiscAutoClear) != 0) text += ", cleared by the controller as it fires";
  if ((view.dma_misc & kDmaMiscNoIsrAutoClear) != 0) text += ", reading does not clear";
  return text;
}

std::string quirks_text(const Quirks& quirks) {
  std::string text = quirks.name;
  if (quirks.force_power) text += "; needs force power";
  if (quirks.reserved_e2e_ring != 0) {
    text += fmt::format("; ring {} kept for end-to-end credits", quirks.reserved_e2e_ring);
  }
  if (quirks.ring_mbps != 0) text += fmt::format("; {:.1f} Gb/s a ring", quirks.ring_mbps / 1000.0);
  if (quirks.controller_mbps != 0) {
    text += fmt::format("; {:.1f} Gb/s at most", quirks.controller_mbps / 1000.0);
  }
  return text + fmt::format(" ({})", quirks.source);
}

}  // namespace

NhiView probe_nhi(PciDevice& device) {
  NhiView view;
  const uint32_t capabilities = device.read32(kRegCapabilities);
  view.gone = capabilities == kDeviceGone;
  if (view.gone) return view;
  view.hops = capability_hops(capabilities);
  view.version = capability_version(capabilities);
  view.usb4_v2 = view.version >= kCapabilityUsb4V2;
  view.dma_misc = device.read32(kRegDmaMisc);
  view.firmware_status = device.read32(kRegFirmwareStatus);
  view.firmware_mode = device.read32(kRegOutbox) >> kModeShift & kModeMask;
  for (uint32_t ring = 0; ring < std::min(view.hops, kHopsMax); ++ring) {
    const RingView seen{.ring = ring,
                        .tx_options = device.read32(tx_options_register(ring)),
                        .rx_options = device.read32(rx_options_register(ring)),
                        .tx_entries = device.read32(tx_ring_register(ring, kRingSize)) & 0xffff,
                        .rx_entries = device.read32(rx_ring_register(ring, kRingSize)) & 0xffff};
    if ((seen.tx_options | seen.rx_options | seen.tx_entries | seen.rx_entries) != 0) {
      view.rings.push_back(seen);
    }
  }
  // What was read of a controller that went in between means nothing.
  view.gone = device.read32(kRegCapabilities) == kDeviceGone;
  return view;
}

std::vector<std::string> describe(const NhiView& view, PciIdentity identity) {
  if (view.gone) return {line("gone", "the registers read all ones")};
  const Quirks& quirks = quirks_of(identity);
  std::vector<std::string> lines;
  lines.push_back(line("id", fmt::format("{:04x}:{:04x}", identity.vendor, identity.device)));
  lines.push_back(line("known as", quirks_text(quirks)));
  lines.push_back(
      line("version", fmt::format("{:#x}, USB4 {}", view.version, view.usb4_v2 ? "v2" : "v1")));
  const uint32_t first = quirks.first_data_ring();
  std::string rings = fmt::format("{}: ring 0 for control, {} for data", view.hops,
                                  view.hops > first ? view.hops - first : 0);
  if (quirks.hops != 0 && quirks.hops != view.hops) {
    rings += fmt::format(" (others have seen {} here)", quirks.hops);
  }
  lines.push_back(line("rings", rings));
  lines.push_back(line("interrupts", clear_text(view, quirks)));
  lines.push_back(line(
      "firmware", (view.firmware_status & kFirmwareManages) != 0
                      ? fmt::format("manages connections itself ({}): status {:#x}",
                                    mode_name(view.firmware_mode), view.firmware_status)
                      : fmt::format("manages no connections: status {:#x}", view.firmware_status)));
  for (const RingView& ring : view.rings) {
    lines.push_back(
        line(fmt::format("ring {}", ring.ring).c_str(),
             fmt::format("TX {}, {} entries ({:#x}); RX {}, {} entries ({:#x})",
                         options_text(ring.tx_options), ring.tx_entries, ring.tx_options,
                         options_text(ring.rx_options), ring.rx_entries, ring.rx_options)));
  }
  return lines;
}

}  // namespace tbt::tool
