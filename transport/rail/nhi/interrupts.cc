#include "rail/nhi/interrupts.h"

#include <algorithm>

#include "rail/shared_rail_base.h"
#include "rail/shared_state.h"

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

uint32_t hop_count(PciDevice& device) noexcept {
  return std::min(device.read32(kRegCapabilities) & 0x3ff, kHopsMax);
}

void RingInterrupt::disable() noexcept {
  device_.write32(kRegInterruptMaskClear + bit_ / 32 * 4, 1u << (bit_ % 32));
}

// The order matters: clear what is pending, unmask, clear again, then look at the ring.
// A frame that lands before the last clearing is seen there, a later one fires. The first clearing
// only saves interrupts. Without the second, the bit of a frame that somebody has already taken
// could be set just before the unmasking: nothing fires for it, it is never cleared, and so nothing
// fires for any frame after it.
bool RingInterrupt::enable() noexcept {
  take_status();
  HostHeader& header = RailMemory::header(memory_);
  const uint32_t offset = kRegInterruptMask + bit_ / 32 * 4;
  // One register for several rings; there is nothing to repair after a death.
  if (header.interrupt_lock.lock_within(kLockNs) == sys::LockOutcome::kBusy) return false;
  device_.write32(offset, device_.read32(offset) | 1u << (bit_ % 32));
  header.interrupt_lock.unlock();
  take_status();
  return true;
}

// Where reading clears, it does so for all rings at once, and no ring fires again before all of the
// registers were read: what was seen for the others is put down in shared memory. Elsewhere the bit
// is cleared by writing it back.
bool RingInterrupt::take_status() noexcept {
  const uint32_t bit = 1u << (bit_ % 32);
  auto& seen = RailMemory::header(memory_).interrupt_status;
  if (quirks_.interrupt_clear == InterruptClear::kByWriting) {
    const uint32_t status = device_.read32(kRegNotify + bit_ / 32 * 4);
    if (status == kDeviceGone || (status & bit) == 0) return false;
    device_.write32(kRegInterruptClear + bit_ / 32 * 4, bit);
    return true;
  }
  for (uint32_t i = 0; i * 32 < 3 * hop_count_; ++i) {
    const uint32_t status = device_.read32(kRegNotify + i * 4);
    if (status == kDeviceGone) return false;
    if (status != 0) seen[i].fetch_or(status, std::memory_order_relaxed);
  }
  return (seen[bit_ / 32].fetch_and(~bit, std::memory_order_relaxed) & bit) != 0;
}

}  // namespace tbt::rail::nhi
