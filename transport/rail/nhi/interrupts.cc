#include "rail/nhi/interrupts.h"

#include <algorithm>

namespace tbt::rail::nhi {

// Intel's other way, kDmaMiscAutoClear, lets the controller forget the bit as it fires: then every
// frame fires until somebody has woken up and masked, and nobody can tell later what fired. Linux
// sets it with MSI-X; with one MSI it reads the status as is done here.
void choose_interrupt_clear(PciDevice& device, const Quirks& quirks) noexcept {
  const uint32_t misc = device.read32(kRegDmaMisc);
  if (misc == kDeviceGone) return;
  const bool by_reading = quirks.interrupt_clear == InterruptClear::kByReading;
  const uint32_t wanted = by_reading ? misc & ~(kDmaMiscAutoClear | kDmaMiscNoIsrAutoClear)
                                     : misc | kDmaMiscNoIsrAutoClear;
  if (misc != wanted) device.write32(kRegDmaMisc, wanted);
}

uint32_t vector_count(const PciDevice& device) noexcept {
  uint32_t n = 0;
  while (n < kVectorsMax && device.interrupt_fd(n) >= 0) ++n;
  return std::max(n, 1u);
}

void wire_vector(PciDevice& device, const Quirks& quirks, uint32_t bit, uint32_t vector) noexcept {
  const uint32_t offset = kRegVectorAllocation + bit / 8 * 4;
  const uint32_t shift = bit % 8 * 4;
  const uint32_t others = device.read32(offset) & ~(0xfu << shift);
  device.write32(offset, others | vector << shift);
  device.write32(quirks.throttling_register + vector * 4, 0);
}

}  // namespace tbt::rail::nhi
