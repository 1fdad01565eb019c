#include "tbtd/slots.h"

#include <algorithm>

namespace tbt::daemon {
namespace {

constexpr uint32_t kLocalQpns = 1u << 18;

}  // namespace

rail::SlotId take_slot(rail::HostMemory& memory, rail::SlotId& last, pid_t pid) noexcept {
  for (rail::SlotId step = 1; step < rail::kSlotsMax; step++) {
    // Slots 1..63 in a circle, beginning after the one given out last.
    const auto id = static_cast<rail::SlotId>((last - 1 + step) % (rail::kSlotsMax - 1) + 1);
    rail::Slot& slot = memory.slot(id);
    if (slot.state.load(std::memory_order_acquire) != rail::SlotState::kFree) continue;
    slot.pid.store(pid, std::memory_order_relaxed);
    slot.qpn_first.store(slot.qpn_next.load(std::memory_order_relaxed), std::memory_order_relaxed);
    slot.sleeping.store(0, std::memory_order_relaxed);
    slot.direct_bytes.store(0, std::memory_order_relaxed);
    slot.copied_regions.store(0, std::memory_order_relaxed);
    slot.state.store(rail::SlotState::kAttached, std::memory_order_release);
    last = id;
    return id;
  }
  return rail::kNoSlot;
}

// The counters lie in memory that the process could write: whatever they say, the range stays
// legal.
wire::ProcessGone mark_slot_dead(rail::HostMemory& memory, rail::SlotId id) noexcept {
  rail::Slot& slot = memory.slot(id);
  slot.state.store(rail::SlotState::kDead, std::memory_order_seq_cst);
  const uint32_t first = slot.qpn_first.load(std::memory_order_relaxed);
  const uint32_t used = slot.qpn_next.load(std::memory_order_relaxed) - first;
  wire::ProcessGone gone;
  gone.slot = static_cast<uint8_t>(id);
  gone.first = first % kLocalQpns;
  gone.count = std::min(used, kLocalQpns);
  return gone;
}

void free_slot(rail::HostMemory& memory, rail::SlotId id) noexcept {
  rail::Slot& slot = memory.slot(id);
  slot.pid.store(0, std::memory_order_relaxed);
  slot.sleeping.store(0, std::memory_order_relaxed);
  slot.state.store(rail::SlotState::kFree, std::memory_order_release);
}

std::vector<SlotUse> slots_in_use(rail::HostMemory& memory) {
  std::vector<SlotUse> out;
  for (rail::SlotId id = 1; id < rail::kSlotsMax; id++) {
    const rail::Slot& slot = memory.slot(id);
    if (slot.state.load(std::memory_order_acquire) != rail::SlotState::kAttached) continue;
    out.push_back({id, slot.pid.load(std::memory_order_relaxed),
                   slot.direct_bytes.load(std::memory_order_relaxed),
                   slot.copied_regions.load(std::memory_order_relaxed)});
  }
  return out;
}

}  // namespace tbt::daemon
