// What is peculiar to a controller, by its PCI identity: a table with the source of each line
// (docs/rails/nhi.md says how far each has been seen). The driver asks for what matters to it;
// hop counts and rates only inform, because the driver reads the hop count from the controller.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/pci_device.h"

namespace tbt::rail::nhi {

inline constexpr uint16_t kVendorIntel = 0x8086;
inline constexpr uint16_t kVendorAmd = 0x1022;
inline constexpr uint16_t kVendorApple = 0x106b;

// How a bit of the interrupt status goes away. A ring fires once when its bit is set, and not again
// before that.
enum class InterruptClear : uint8_t {
  kByReading,  // Intel; all status registers must be read before any ring fires again
  kByWriting,  // a one is written back, and reading is told not to: kDmaMiscNoIsrAutoClear
};

struct Quirks {
  const char* name = "";
  uint16_t vendor = 0;                // 0: any
  std::array<uint16_t, 8> devices{};  // none: any of the vendor
  InterruptClear interrupt_clear = InterruptClear::kByWriting;
  bool force_power = false;        // asleep behind its PCI function until told (vfio_config.h)
  uint32_t reserved_e2e_ring = 0;  // the TX ring that returns all end-to-end credits; 0: none
  uint32_t throttling_register = kRegThrottling;
  uint32_t hops = 0;             // 0: not known
  uint32_t ring_mbps = 0;        // what one ring was seen to move, or may; 0: not known
  uint32_t controller_mbps = 0;  // of all rings together
  const char* source = "";

  // Ring 0 is the control channel's; on some controllers ring 1 is not for data either.
  [[nodiscard]] constexpr uint32_t first_data_ring() const noexcept {
    return reserved_e2e_ring + 1;
  }
  // The TX ring that returns the credits of RX ring `ring`.
  [[nodiscard]] constexpr uint32_t e2e_ring_of(uint32_t ring) const noexcept {
    return reserved_e2e_ring != 0 ? reserved_e2e_ring : ring;
  }
};

std::span<const Quirks> quirk_table() noexcept;
// The first line that fits; the last one fits everything.
const Quirks& quirks_of(PciIdentity identity) noexcept;

}  // namespace tbt::rail::nhi
