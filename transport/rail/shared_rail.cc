#include <bit>

#include "base/assert.h"
#include "rail/shared_rail_base.h"
#include "sys/monotonic_clock.h"

namespace tbt::rail {
namespace {

std::byte* area_of(RailState& state) noexcept { return reinterpret_cast<std::byte*>(&state); }

uint64_t read(const Counter& counter) noexcept { return counter.load(std::memory_order_relaxed); }

}  // namespace

SharedRail::SharedRail(HostMemory& memory, uint32_t rail, SlotId slot, Classifier classify) noexcept
    : memory_(memory),
      geometry_(RailMemory::geometry(memory)),
      state_(RailMemory::rail(memory, rail)),
      pool_(area_of(state_), geometry_, state_.rx),
      capture_(state_, geometry_),
      slot_(slot),
      classify_(classify),
      inbox_(state_, geometry_, slot) {
  TBT_ASSERT(slot < kSlotsMax && classify != nullptr);
}

RxPacket SharedRail::packet_of(const InboxEntry& e) const noexcept {
  RxPacket packet;
  packet.head = {pool_.data(e.head_buffer), e.head_length, e.head_buffer, e.head_sof, e.head_eof};
  if (e.payload_buffer != kNoBuffer) {
    packet.payload = {pool_.data(e.payload_buffer), e.payload_length, e.payload_buffer,
                      e.payload_sof, e.payload_eof};
  }
  return packet;
}

void SharedRail::mark_entry(const InboxEntry& entry, BufferMark mark) noexcept {
  pool_.set(entry.head_buffer, mark);
  if (entry.payload_buffer != kNoBuffer) pool_.set(entry.payload_buffer, mark);
}

void SharedRail::free_entry(const InboxEntry& entry) noexcept { mark_entry(entry, kMarkFree); }

// Marked as held before it leaves the inbox: whoever finds it in neither place may then trust the
// mark.
size_t SharedRail::take_inbox(std::span<RxPacket> out) noexcept {
  size_t n = 0;
  while (n < out.size() && !inbox_.empty()) {
    const InboxEntry entry = inbox_.front();
    mark_entry(entry, mark_held(slot_));
    inbox_.drop_front();
    out[n++] = packet_of(entry);
  }
  return n;
}

void SharedRail::rx_release(std::span<const RxPacket> packets) noexcept {
  for (const RxPacket& packet : packets) {
    TBT_DCHECK(pool_.mark(packet.head.buffer) == mark_held(slot_));
    pool_.set(packet.head.buffer, kMarkFree);
    if (packet.payload.data != nullptr) pool_.set(packet.payload.buffer, kMarkFree);
  }
}

sys::LockOutcome SharedRail::lock_tx_in_time() noexcept {
  const sys::LockOutcome outcome =
      tx_held_up_ ? state_.tx.lock.try_lock_or_recover() : state_.tx.lock.lock_within(kLockNs);
  tx_held_up_ = outcome == sys::LockOutcome::kBusy;
  return outcome;
}

bool SharedRail::is_attached(SlotId slot) noexcept {
  if (slot >= kSlotsMax) return false;
  if (slot == kDaemonSlot || slot == slot_) return true;
  return memory_.slot(slot).state.load(std::memory_order_acquire) == SlotState::kAttached;
}

void SharedRail::put_inbox(SlotId slot, const InboxEntry& entry) noexcept {
  mark_entry(entry, mark_inbox(slot));
  inbox_of(slot).put(entry);
  to_wake_ |= uint64_t{1} << slot;
}

void SharedRail::wake_receivers() noexcept {
  while (to_wake_ != 0) {
    const auto slot = static_cast<SlotId>(std::countr_zero(to_wake_));
    to_wake_ &= to_wake_ - 1;
    if (slot != slot_) memory_.wake(slot);
  }
}

bool SharedRail::is_stuck(SlotId slot) noexcept {
  return inbox_of(slot).is_stuck(sys::monotonic_now().ns, kStuckNs);
}

void SharedRail::reclaim_buffers(SlotId dead) noexcept {
  inbox_of(dead).clear();
  for (uint32_t b = 0; b < pool_.size(); ++b) {
    const BufferMark mark = pool_.mark(b);
    if (mark == mark_held(dead) || mark == mark_inbox(dead)) pool_.set(b, kMarkFree);
  }
}

RailStats SharedRail::stats() const noexcept {
  RailStats s;
  s.tx_frames = read(state_.tx.frames);
  s.tx_bytes = read(state_.tx.bytes);
  s.tx_direct = read(state_.tx.direct);
  s.tx_full = read(state_.tx.full);
  s.rx_frames = read(state_.rx_counters.frames);
  s.rx_bytes = read(state_.rx_counters.bytes);
  s.rx_crc_errors = read(state_.rx_counters.crc_errors);
  s.rx_overruns = read(state_.rx_counters.overruns);
  s.rx_no_slot = read(state_.rx_counters.no_slot);
  s.rx_inbox_full = read(state_.rx_counters.inbox_full);
  s.rx_orphan_payload = read(state_.rx_counters.orphans);
  s.credit_frames = read(state_.credits.frames_sent);
  s.credit_requests = read(state_.credits.requests);
  s.credit_refused = read(state_.credits.frames_refused);
  s.tx_held_up = read(state_.credits.held_up);
  s.interrupts = read(state_.shared.interrupts);
  s.stranded = read(state_.shared.stranded);
  return s;
}

}  // namespace tbt::rail
