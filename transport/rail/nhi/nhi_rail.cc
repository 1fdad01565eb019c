#include "rail/nhi/nhi_rail.h"

#include <algorithm>

#include "base/assert.h"
#include "sys/barrier.h"

namespace tbt::rail::nhi {
namespace {

// The receive ring is filled up again when so many descriptors are empty: one doorbell for many.
constexpr uint32_t kRefillBatch = 32;
// Frames handed on in one rx_burst beyond the caller's own, so that a caller is not everybody's
// servant.
constexpr uint32_t kDispatchBudget = 64;
// Looks at a taken receive lock before its holder's pulse is felt.
constexpr uint32_t kMissesMax = 4096;
// A head and its payload: with less credit than this the peer is to be asked for more.
constexpr uint32_t kPair = 2;
// When buffers run short, a slot may have so many packets waiting before the others wait for it.
constexpr uint32_t kFairShare = 4;

uint32_t entries_of(const RailGeometry& geometry) noexcept { return geometry.ring_entries; }

}  // namespace

NhiRail::NhiRail(HostMemory& memory, uint32_t rail, PciDevice& device, SlotId slot,
                 Classifier classify) noexcept
    : SharedRail(memory, rail, slot, classify),
      device_(device),
      quirks_(quirks_of(device.identity())),
      tx_(reinterpret_cast<std::byte*>(&state_), geometry_, state_.tx),
      rx_(reinterpret_cast<std::byte*>(&state_), geometry_, state_.rx),
      credits_(state_, geometry_.ring_entries),
      hop_(rail + quirks_.first_data_ring()),
      hop_count_(hop_count(device)),
      interrupt_(memory, device, quirks_, hop_count_ + hop_, hop_count_) {
  capabilities_ = {entries_of(geometry_) - 1, entries_of(geometry_) - 1, true, true};
}

NhiRail::~NhiRail() {
  if (polling_) stop_polling(slot_);
}

// ---- sending

size_t NhiRail::tx_begin(std::span<std::byte*> buffers) noexcept {
  if (!is_up() || !lock_tx()) return 0;
  const auto wanted = static_cast<uint32_t>(buffers.size());
  uint32_t n = std::min(wanted, tx_.room(wanted));
  if (n == 0) bump(state_.tx.full);
  if (credits_.on()) {
    const uint32_t allowed = credits_.room();
    if (allowed < std::min(wanted, kPair)) ask_for_credit();
    n = std::min(n, allowed);
  }
  if (!is_up()) n = 0;  // the daemon has taken it meanwhile
  if (n == 0) {
    unlock_tx();
    return 0;
  }
  for (uint32_t i = 0; i < n; ++i) buffers[i] = tx_.buffer(i);
  reserved_ = n;
  return n;
}

void NhiRail::tx_commit(std::span<const TxFrame> frames) noexcept {
  TBT_ASSERT(frames.size() <= reserved_);
  reserved_ = 0;
  uint64_t bytes = 0;
  uint32_t direct = 0;
  const bool capturing = capture_.enabled();
  for (uint32_t i = 0; i < frames.size(); ++i) {
    const TxFrame& f = frames[i];
    const bool is_direct = f.direct.iova != 0;
    bytes += f.length;
    direct += is_direct ? 1 : 0;
    if (capturing) {
      capture_.put(true, is_direct ? f.direct.data : tx_.buffer(i), f.length, f.sof, f.eof);
    }
  }
  if (!frames.empty()) {
    tx_.post(frames, state_.shared.iova.load(std::memory_order_relaxed));
    bump(state_.tx.frames, frames.size());
    bump(state_.tx.bytes, bytes);
    if (direct != 0) bump(state_.tx.direct, direct);
    if (credits_.due()) post_credit_frame(/*ask=*/false);  // by the same doorbell
    device_.write32(tx_ring_register(hop_, kRingIndex), tx_.doorbell());
  }
  unlock_tx();
}

bool NhiRail::lock_tx() noexcept {
  const sys::LockOutcome outcome = lock_tx_in_time();
  if (outcome == sys::LockOutcome::kOwnerDied) repair_tx();
  return outcome != sys::LockOutcome::kBusy;
}

// With the lock: whoever died holding it may have left a doorbell unrung.
bool NhiRail::tx_read(uint32_t posted) noexcept {
  if (state_.shared.up.load(std::memory_order_acquire) == kRailDown) return true;
  if (!lock_tx()) return false;
  const bool read = tx_.passed(posted);
  unlock_tx();
  return read;
}

// The last holder died before, in or after its doorbell. The head was moved before the doorbell, so
// frames beyond it were never announced, and ringing again for those before it does no harm.
void NhiRail::repair_tx() noexcept {
  device_.write32(tx_ring_register(hop_, kRingIndex), tx_.doorbell());
}

// ---- receiving

size_t NhiRail::rx_burst(std::span<RxPacket> out) noexcept {
  if (!polling_) disarm();
  size_t n = take_inbox(out);
  if (n == out.size()) return n;
  if (!rx_.ready() && state_.rx.starved.load(std::memory_order_relaxed) == 0) {
    if (credits_.on()) send_due_credit();
    return n;
  }
  if (!lock_rx()) return n;         // the holder dispatches for us
  n += take_inbox(out.subspan(n));  // what it left there before we had the lock
  if (is_up()) n += dispatch(out.subspan(n));
  refill();
  state_.rx.lock.unlock_fast();
  if (credits_.on()) send_due_credit();
  wake_receivers();
  return n;
}

bool NhiRail::lock_rx() noexcept {
  sys::LockOutcome outcome = state_.rx.lock.try_lock();
  if (outcome == sys::LockOutcome::kBusy) {
    if (++lock_misses_ < kMissesMax) return false;
    lock_misses_ = 0;
    outcome = state_.rx.lock.try_lock_or_recover();
    if (outcome == sys::LockOutcome::kBusy) return false;
  }
  lock_misses_ = 0;
  if (outcome == sys::LockOutcome::kOwnerDied) repair_rx();
  return true;
}

size_t NhiRail::dispatch(std::span<RxPacket> out) noexcept {
  size_t taken = 0;
  for (size_t budget = out.size() + kDispatchBudget; budget > 0; --budget) {
    RxFrame frame;
    const Arrival arrival = rx_.peek(frame, pool_);
    if (arrival == Arrival::kNone) break;
    if (arrival != Arrival::kGood) {
      bump(arrival == Arrival::kDamaged ? state_.rx_counters.crc_errors
                                        : state_.rx_counters.overruns);
      consume(frame);
      pool_.set(frame.buffer, kMarkFree);
      continue;
    }
    if (frame.eof == wire::tb::kPdfCredit) {
      take_credit_frame(frame);
      continue;
    }
    if (route(frame, out, taken) == Routed::kBlocked) break;
  }
  return taken;
}

// Puts heads and payloads together. A head is kept until the next frame shows whether its payload
// came.
NhiRail::Routed NhiRail::route(const RxFrame& frame, std::span<RxPacket> out,
                               size_t& taken) noexcept {
  const KeptHead& kept = state_.rx.kept;
  const bool is_payload = frame.eof == kEofPayload;
  if (is_payload != (kept.buffer != kNoBuffer)) {
    bump(state_.rx_counters.orphans);
    if (is_payload) {
      consume(frame);
      pool_.set(frame.buffer, kMarkFree);
      return Routed::kDone;
    }
    drop_kept_head();
  }
  if (frame.eof == kEofHead) {
    keep_head(frame);
    return Routed::kDone;
  }
  InboxEntry entry{
      frame.buffer, kNoBuffer, static_cast<uint16_t>(frame.length), 0, frame.sof, frame.eof, 0, 0};
  if (is_payload) {
    entry = {kept.buffer,
             frame.buffer,
             static_cast<uint16_t>(kept.length),
             static_cast<uint16_t>(frame.length),
             kept.sof,
             kept.eof,
             frame.sof,
             frame.eof};
  }
  return deliver(entry, out, taken);
}

// The tail moves before the marks change: whoever is killed in between leaves buffers marked as
// posted that are not on the ring, which repair_rx() frees.
NhiRail::Routed NhiRail::deliver(const InboxEntry& entry, std::span<RxPacket> out,
                                 size_t& taken) noexcept {
  const RxPacket packet = packet_of(entry);
  const SlotId slot =
      classify_({packet.head.data, packet.head.length}, packet.head.sof, packet.head.eof);
  const RxFrame& last = packet.payload.data != nullptr ? packet.payload : packet.head;
  const bool attached = is_attached(slot);
  bool drop = !attached;
  if (slot == slot_ && taken == out.size()) return Routed::kBlocked;
  if (attached && slot != slot_ && state_.rx.starved.load(std::memory_order_relaxed) != 0 &&
      inbox_of(slot).count() >= kFairShare) {
    if (!is_stuck(slot)) return Routed::kBlocked;  // hold the sender up rather than lose a frame
    drop = true;
  }
  consume(last);
  count_delivered(entry);
  if (drop) {
    bump(attached ? state_.rx_counters.inbox_full : state_.rx_counters.no_slot);
    free_entry(entry);
  } else if (slot == slot_) {
    mark_entry(entry, mark_held(slot_));
    out[taken++] = packet;
  } else {
    put_inbox(slot, entry);
  }
  state_.rx.kept.buffer = kNoBuffer;
  return Routed::kDone;
}

void NhiRail::consume(const RxFrame& frame) noexcept {
  if (capture_.enabled()) capture_.put(false, frame.data, frame.length, frame.sof, frame.eof);
  rx_.consume();
}

void NhiRail::keep_head(const RxFrame& frame) noexcept {
  consume(frame);
  state_.rx.kept = {frame.buffer, frame.length, frame.sof, frame.eof};
  pool_.set(frame.buffer, kMarkKept);
}

void NhiRail::drop_kept_head() noexcept {
  pool_.set(state_.rx.kept.buffer, kMarkFree);
  state_.rx.kept.buffer = kNoBuffer;
}

void NhiRail::count_delivered(const InboxEntry& entry) noexcept {
  const bool pair = entry.payload_buffer != kNoBuffer;
  bump(state_.rx_counters.frames, pair ? 2 : 1);
  bump(state_.rx_counters.bytes, uint64_t{entry.head_length} + entry.payload_length);
}

void NhiRail::refill() noexcept {
  if (!is_up()) return;
  const uint32_t room = entries_of(geometry_) - 1 - rx_.posted();
  const bool starved = state_.rx.starved.load(std::memory_order_relaxed) != 0;
  if (room < std::min(kRefillBatch, entries_of(geometry_) / 4) && !starved) return;
  if (room == 0) {
    state_.rx.starved.store(0, std::memory_order_relaxed);
    return;
  }
  if (rx_.fill(pool_, state_.shared.iova.load(std::memory_order_relaxed)) > 0) {
    ring_rx_doorbell();
  }
  const bool still = rx_.posted() < entries_of(geometry_) / 2;
  if (still != starved) state_.rx.starved.store(still ? 1 : 0, std::memory_order_relaxed);
}

// The peer is promised only what was announced to the NHI: whoever is killed before has promised
// nothing.
void NhiRail::ring_rx_doorbell() noexcept {
  device_.write32(rx_ring_register(hop_, kRingIndex), rx_.doorbell());
  state_.credits.posted.store(rx_.tail() + rx_.posted(), std::memory_order_release);
}

// Buffers given back while the ring starves go to it at once: the frames wait at the sender.
void NhiRail::rx_release(std::span<const RxPacket> packets) noexcept {
  SharedRail::rx_release(packets);
  if (state_.rx.starved.load(std::memory_order_relaxed) == 0 || !lock_rx()) return;
  refill();
  state_.rx.lock.unlock_fast();
  if (credits_.on()) send_due_credit();
}

void NhiRail::repair_rx() noexcept {
  KeptHead& kept = state_.rx.kept;
  if (kept.buffer >= pool_.size() || pool_.mark(kept.buffer) != kMarkKept) kept.buffer = kNoBuffer;
  repair_marks([&](uint32_t buffer, BufferMark mark) {
    return mark == kMarkKept ? kept.buffer == buffer : rx_.holds(buffer);
  });
  // A doorbell may be missing; ringing again does no harm.
  ring_rx_doorbell();
  state_.rx.starved.store(1, std::memory_order_relaxed);  // refill() looks again
}

bool NhiRail::reclaim(SlotId dead) noexcept {
  if (state_.shared.up.load(std::memory_order_relaxed) == kRailDown) return true;
  if (!lock_tx()) return false;
  unlock_tx();
  const sys::LockOutcome outcome = state_.rx.lock.lock_within(kLockNs);
  if (outcome == sys::LockOutcome::kBusy) return false;
  if (outcome == sys::LockOutcome::kOwnerDied) repair_rx();
  reclaim_buffers(dead);
  refill();
  state_.rx.lock.unlock_fast();
  if (credits_.on()) send_due_credit();
  return stop_polling(dead);
}

// ---- interrupts

// A process has gone. If it was the last one to poll, the others count on the interrupt from now
// on.
bool NhiRail::stop_polling(SlotId slot) noexcept {
  const uint64_t bit = uint64_t{1} << slot;
  if (state_.shared.pollers.fetch_and(~bit, std::memory_order_seq_cst) != bit) return true;
  if (!interrupt_.enable()) {
    state_.shared.pollers.fetch_or(bit, std::memory_order_seq_cst);
    return false;
  }
  sys::full_barrier();
  if (rx_.ready()) memory_.wake_for_interrupt();
  return true;
}

bool NhiRail::arm() noexcept {
  const uint64_t bit = uint64_t{1} << slot_;
  polling_ = false;
  const uint64_t before = state_.shared.pollers.fetch_and(~bit, std::memory_order_seq_cst);
  const bool enabled = (before & ~bit) != 0 || interrupt_.enable();
  sys::full_barrier();  // we wrote the mask and look at the ring; the NHI does it the other way
                        // round
  // With no buffer on the ring no frame can arrive, so no interrupt would come either.
  const bool dry = state_.rx.starved.load(std::memory_order_relaxed) != 0 && rx_.posted() == 0;
  // Nor does anything wake us when there is room for a credit frame that the peer may wait for.
  if (credits_.on()) send_due_credit();
  if (enabled && !dry && !rx_pending() && !credits_.due()) return true;
  disable_interrupt();
  return false;
}

// The first process to poll again finds out what woke the host: the interrupt, or some watchdog. It
// looks at the ring first: a frame that comes between the two looks has its interrupt yet to come.
void NhiRail::disarm() noexcept {
  if (!disable_interrupt()) return;
  const bool found = rx_.ready();
  if (interrupt_.take_status()) {
    state_.shared.interrupts.fetch_add(1, std::memory_order_relaxed);
  } else if (found) {
    state_.shared.stranded.fetch_add(1, std::memory_order_relaxed);
  }
}

// True if this process is the first one to poll.
bool NhiRail::disable_interrupt() noexcept {
  const uint64_t bit = uint64_t{1} << slot_;
  polling_ = true;
  if (state_.shared.pollers.fetch_or(bit, std::memory_order_seq_cst) != 0) return false;
  interrupt_.disable();
  return true;
}

}  // namespace tbt::rail::nhi
