#include "rail/loopback_rail.h"

#include <algorithm>

#include "base/assert.h"
#include "rail/shared_rail.h"

namespace tbt::rail {

LoopbackRail::LoopbackRail(HostMemory& memory, SlotId slot, Classifier classify) noexcept
    : SharedRail(memory, memory.cables(), slot, classify) {
  capabilities_ = {kBurst, pool_.size(), true, false};
}

// A dispatcher that died may have marked buffers for an inbox and not put them there.
bool LoopbackRail::lock_tx() noexcept {
  const sys::LockOutcome outcome = lock_tx_in_time();
  if (outcome == sys::LockOutcome::kOwnerDied) {
    repair_marks([](uint32_t, BufferMark) { return false; });
  }
  return outcome != sys::LockOutcome::kBusy;
}

// `starved` names the slot (plus one) whose inbox went beyond the limit. While its owner still
// takes from it, senders wait; once it is stuck they go on, and what is for it is dropped.
bool LoopbackRail::is_congested() noexcept {
  const uint32_t marked = state_.rx.starved.load(std::memory_order_relaxed);
  if (marked == 0) return false;
  const auto slot = static_cast<SlotId>((marked - 1) % kSlotsMax);
  if (inbox_of(slot).count() >= limit()) return !is_stuck(slot);
  state_.rx.starved.store(0, std::memory_order_relaxed);
  return false;
}

size_t LoopbackRail::tx_begin(std::span<std::byte*> buffers) noexcept {
  if (!lock_tx()) return 0;
  const auto wanted = static_cast<uint32_t>(std::min<size_t>(buffers.size(), kBurst));
  reserved_count_ = 0;
  if (!is_congested()) {
    while (reserved_count_ < wanted) {
      const uint32_t buffer = pool_.take();
      if (buffer == kNoBuffer) break;
      pool_.set(buffer, mark_held(slot_));
      buffers[reserved_count_] = pool_.data(buffer);
      reserved_[reserved_count_++] = buffer;
    }
  }
  if (reserved_count_ == 0) {
    bump(state_.tx.full);
    state_.tx.lock.unlock_fast();
  }
  return reserved_count_;
}

void LoopbackRail::tx_commit(std::span<const TxFrame> frames) noexcept {
  TBT_ASSERT(frames.size() <= reserved_count_);
  const bool capturing = capture_.enabled();
  for (uint32_t i = 0; i < frames.size(); ++i) {
    const TxFrame& f = frames[i];
    const uint32_t buffer = reserved_[i];
    if (capturing) capture_.put(true, pool_.data(buffer), f.length, f.sof, f.eof);
    bump(state_.tx.frames);
    bump(state_.tx.bytes, f.length);
    InboxEntry entry{buffer, kNoBuffer, static_cast<uint16_t>(f.length), 0, f.sof, f.eof, 0, 0};
    if (f.eof == kEofHead && i + 1 < frames.size() && frames[i + 1].eof == kEofPayload) {
      const TxFrame& p = frames[++i];
      if (capturing) capture_.put(true, pool_.data(reserved_[i]), p.length, p.sof, p.eof);
      bump(state_.tx.frames);
      bump(state_.tx.bytes, p.length);
      entry.payload_buffer = reserved_[i];
      entry.payload_length = static_cast<uint16_t>(p.length);
      entry.payload_sof = p.sof;
      entry.payload_eof = p.eof;
    }
    deliver(entry);
  }
  for (auto i = static_cast<uint32_t>(frames.size()); i < reserved_count_; ++i) {
    pool_.set(reserved_[i], kMarkFree);
  }
  reserved_count_ = 0;
  state_.tx.lock.unlock_fast();
  wake_receivers();
}

void LoopbackRail::deliver(const InboxEntry& entry) noexcept {
  const bool pair = entry.payload_buffer != kNoBuffer;
  bump(state_.rx_counters.frames, pair ? 2 : 1);
  bump(state_.rx_counters.bytes, uint64_t{entry.head_length} + entry.payload_length);
  if (!pair && (entry.head_eof == kEofHead || entry.head_eof == kEofPayload)) {
    bump(state_.rx_counters.orphans);
    return free_entry(entry);
  }
  const RxPacket packet = packet_of(entry);
  const SlotId slot =
      classify_({packet.head.data, packet.head.length}, packet.head.sof, packet.head.eof);
  if (!is_attached(slot)) {
    bump(state_.rx_counters.no_slot);
    return free_entry(entry);
  }
  if (inbox_of(slot).count() >= limit()) {
    if (is_stuck(slot)) {
      bump(state_.rx_counters.inbox_full);
      return free_entry(entry);
    }
    state_.rx.starved.store(uint32_t{slot} + 1, std::memory_order_relaxed);
  }
  put_inbox(slot, entry);
}

bool LoopbackRail::reclaim(SlotId dead) noexcept {
  if (!lock_tx()) return false;
  reclaim_buffers(dead);
  state_.tx.lock.unlock_fast();
  return true;
}

std::unique_ptr<Rail> open_loopback_rail(HostMemory& memory, SlotId slot, Classifier classify) {
  return std::make_unique<LoopbackRail>(memory, slot, classify);
}

}  // namespace tbt::rail
