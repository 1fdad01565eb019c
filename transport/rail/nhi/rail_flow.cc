// The part of an NHI rail that is about flow control: starting its rings anew for another kind of
// it, and the credit frames of the kind that is software.
#include "rail/nhi/nhi_rail.h"
#include "sys/barrier.h"
#include "sys/monotonic_clock.h"

namespace tbt::rail::nhi {

using wire::tb::CreditFrame;
using wire::tb::kCreditFrameBytes;
using wire::tb::kPdfCredit;

// ---- the daemon, before a path carries frames

sys::LockOutcome NhiRail::lock_both() noexcept {
  if (!lock_tx()) return sys::LockOutcome::kBusy;
  const sys::LockOutcome outcome = state_.rx.lock.lock_within(kLockNs);
  if (outcome == sys::LockOutcome::kOwnerDied) repair_rx();
  if (outcome == sys::LockOutcome::kBusy) state_.tx.lock.unlock_fast();
  return outcome;
}

void NhiRail::unlock_both() noexcept {
  state_.rx.lock.unlock_fast();
  state_.tx.lock.unlock_fast();
}

Status NhiRail::hold(RingFlow flow, uint32_t buffers) noexcept {
  if (state_.shared.up.load(std::memory_order_relaxed) == kRailDown) {
    return Status(EINVAL, "the rail is not up");
  }
  if (lock_both() == sys::LockOutcome::kBusy) {
    return Status(EBUSY, "a stopped process holds the rail");
  }
  state_.shared.up.store(kRailHeld, std::memory_order_seq_cst);
  credits_.end();
  disable_rings();
  reset_rings();
  const uint64_t iova = state_.shared.iova.load(std::memory_order_relaxed);
  program_tx_ring(iova, flow);
  program_rx_ring(iova, flow);
  rx_.fill(pool_, iova, buffers);
  ring_rx_doorbell();
  unlock_both();
  return {};
}

void NhiRail::post(uint32_t buffers) noexcept {
  if (state_.rx.lock.lock() == sys::LockOutcome::kOwnerDied) repair_rx();
  rx_.fill(pool_, state_.shared.iova.load(std::memory_order_relaxed), rx_.posted() + buffers);
  ring_rx_doorbell();
  state_.rx.lock.unlock_fast();
}

bool NhiRail::send_held(const CreditFrame& frame) noexcept {
  if (!lock_tx()) return false;
  const bool room = tx_.room(1) > 0;
  if (room) {
    encode_credit_frame(frame, tx_.buffer(0));
    const TxFrame tx{kCreditFrameBytes, kPdfCredit, kPdfCredit};
    tx_.post({&tx, 1}, state_.shared.iova.load(std::memory_order_relaxed));
    device_.write32(tx_ring_register(hop_, kRingIndex), tx_.doorbell());
  }
  state_.tx.lock.unlock_fast();
  return room;
}

bool NhiRail::take_held(CreditFrame& frame) noexcept {
  if (state_.rx.lock.lock() == sys::LockOutcome::kOwnerDied) repair_rx();
  bool found = false;
  RxFrame rx;
  for (Arrival arrival = rx_.peek(rx, pool_); !found && arrival != Arrival::kNone;
       arrival = found ? Arrival::kNone : rx_.peek(rx, pool_)) {
    found = arrival != Arrival::kDamaged && rx.eof == kPdfCredit &&
            decode_credit_frame({rx.data, rx.length}, frame);
    rx_.consume();
    pool_.set(rx.buffer, kMarkFree);
  }
  state_.rx.lock.unlock_fast();
  return found;
}

Status NhiRail::release() noexcept {
  if (is_up()) return {};
  if (lock_both() == sys::LockOutcome::kBusy) {
    return Status(EBUSY, "a stopped process holds the rail");
  }
  state_.rx.starved.store(1, std::memory_order_relaxed);
  state_.shared.up.store(kRailUp, std::memory_order_seq_cst);
  refill();
  unlock_both();
  memory_.wake_for_interrupt();  // what came meanwhile, nobody has looked at
  return {};
}

Status NhiRail::carry(RingFlow flow, uint32_t session) noexcept {
  if (ring_flow() != flow) {
    if (const Status s = hold(flow, 0); !s) return s;
  }
  if (const Status s = use_credits(session); !s) return s;
  return release();
}

Status NhiRail::use_credits(uint32_t session, uint32_t first) noexcept {
  if (credits_.session() == session) return {};
  if (session != 0 && geometry_.ring_entries < wire::tb::kCreditRingEntriesMin) {
    return Status(EINVAL, "the rings are too short for credits");
  }
  if (lock_both() == sys::LockOutcome::kBusy) {
    return Status(EBUSY, "a stopped process holds the rail");
  }
  session == 0 ? credits_.end() : credits_.begin(session, first);
  unlock_both();
  if (session != 0) credits_granted();
  return {};
}

bool NhiRail::credits_granted() noexcept {
  if (!credits_.on() || credits_.granted()) return true;
  if (!lock_tx()) return false;
  ask_for_credit();
  unlock_tx();
  return false;
}

// ---- credit frames; with the transmit lock held

void NhiRail::ask_for_credit() noexcept {
  bump(state_.credits.held_up);
  if (!credits_.wants_to_ask(sys::monotonic_now().ns)) return;
  if (post_credit_frame(/*ask=*/true)) {
    device_.write32(tx_ring_register(hop_, kRingIndex), tx_.doorbell());
  }
}

// The doorbell is the caller's.
bool NhiRail::post_credit_frame(bool ask) noexcept {
  if (!credits_.may_speak() || tx_.room(1) == 0) return false;
  const CreditFrame frame = credits_.speak(ask);
  encode_credit_frame(frame, tx_.buffer(0));
  if (capture_.enabled()) {
    capture_.put(true, tx_.buffer(0), kCreditFrameBytes, kPdfCredit, kPdfCredit);
  }
  const TxFrame tx{kCreditFrameBytes, kPdfCredit, kPdfCredit};
  tx_.post({&tx, 1}, state_.shared.iova.load(std::memory_order_relaxed));
  credits_.spoken(frame);
  return true;
}

// Whoever holds the transmit lock when a credit frame falls due does not see it, and whoever finds
// the lock taken leaves: so one of the two looks again.
void NhiRail::unlock_tx() noexcept {
  state_.tx.lock.unlock_fast();
  if (credits_.on()) send_due_credit();
}

void NhiRail::send_due_credit() noexcept {
  for (;;) {
    sys::full_barrier();
    if (!credits_.due() || !is_up()) return;
    if (state_.tx.lock.try_lock() != sys::LockOutcome::kTaken) return;
    const bool sent = credits_.due() && post_credit_frame(/*ask=*/false);
    if (sent) device_.write32(tx_ring_register(hop_, kRingIndex), tx_.doorbell());
    state_.tx.lock.unlock_fast();
    if (!sent) return;
  }
}

// With the receive lock held. First what it says, then the ring's index: whoever is killed between
// them leaves it to be taken again.
void NhiRail::take_credit_frame(const RxFrame& frame) noexcept {
  CreditFrame said;
  if (!decode_credit_frame({frame.data, frame.length}, said)) {
    bump(state_.credits.frames_refused);
  } else if (said.kind == wire::tb::CreditKind::kCredit) {
    credits_.take(said, rx_.tail());
  }
  consume(frame);
  pool_.set(frame.buffer, kMarkFree);
}

}  // namespace tbt::rail::nhi
