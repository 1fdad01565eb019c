#include "rail/nhi/credits.h"

namespace tbt::rail::nhi {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int64_t kAskFirstNs = 2 * 1000 * 1000;  // doubled each time, up to
constexpr int64_t kAskSeldomNs = 128 * 1000 * 1000;
// A limit further from what was sent is none that an honest peer gives.
constexpr uint32_t kLimitMost = 1u << 16;

uint32_t tail_of(uint64_t window) noexcept { return static_cast<uint32_t>(window); }

}  // namespace

// `session` is written last, so that whoever finds it finds the rest; a daemon that is killed
// before leaves none, and the next one begins again.
void Credits::begin(uint32_t session, uint32_t first) noexcept {
  end();
  const uint32_t tail = tail_of(state_.rx.window.load(std::memory_order_acquire));
  credits_.granted.store(0, kRelaxed);
  credits_.tx_base.store(state_.tx.head.load(kRelaxed) - first, kRelaxed);
  credits_.limit.store(first, kRelaxed);
  credits_.synced.store(first, kRelaxed);
  credits_.offset.store(first - tail, kRelaxed);
  credits_.announced.store(first, kRelaxed);
  credits_.asked.store(0, kRelaxed);
  credits_.ask_limit.store(first, kRelaxed);
  credits_.ask_at_ns.store(0, kRelaxed);
  credits_.ask_wait_ns.store(kAskFirstNs, kRelaxed);
  credits_.session.store(session, std::memory_order_release);
}

uint32_t Credits::allowance() const noexcept {
  return credits_.posted.load(std::memory_order_acquire) + credits_.offset.load(kRelaxed) - step_;
}

// Half of a step, when buffers are short: then each counts, and still two credit frames are
// answered by one at most.
bool Credits::due() const noexcept {
  if (!on()) return false;
  if (credits_.asked.load(std::memory_order_acquire) != 0) return true;
  const bool starved = state_.rx.starved.load(kRelaxed) != 0;
  const uint32_t step = starved ? (step_ + 1) / 2 + (step_ < 4 ? 1 : 0) : step_;
  const uint32_t news = allowance() - credits_.announced.load(kRelaxed);
  if (news + step - 1 > 2 * step - 2) return true;  // as far as `step`, in either direction
  // The peer is to know of what got lost in time, whatever there is to tell it else.
  return sent() - credits_.synced.load(kRelaxed) >= 4 * step_;
}

bool Credits::wants_to_ask(int64_t now_ns) noexcept {
  const uint32_t known = limit();
  if (credits_.ask_limit.load(kRelaxed) != known) {
    credits_.ask_limit.store(known, kRelaxed);
    credits_.ask_wait_ns.store(kAskFirstNs, kRelaxed);
    credits_.ask_at_ns.store(now_ns + kAskFirstNs, kRelaxed);
    return false;
  }
  if (now_ns < credits_.ask_at_ns.load(kRelaxed)) return false;
  const int64_t wait = credits_.ask_wait_ns.load(kRelaxed);
  credits_.ask_at_ns.store(now_ns + wait, kRelaxed);
  credits_.ask_wait_ns.store(wait >= kAskSeldomNs ? kAskSeldomNs : 2 * wait, kRelaxed);
  return true;
}

// Who has asked in vain for as long as the reserve goes has asked a dead cable, or lost count: all
// that it asked was lost, and the buffers are still there.
bool Credits::may_speak() const noexcept {
  if (static_cast<int32_t>(limit() + step_ - sent()) > 0) return true;
  return credits_.ask_wait_ns.load(kRelaxed) >= kAskSeldomNs;
}

// Whoever asks from here on is answered by the next one.
wire::tb::CreditFrame Credits::speak(bool ask) noexcept {
  credits_.asked.store(0, std::memory_order_seq_cst);
  return {wire::tb::CreditKind::kCredit, ask, session(), sent() + 1, allowance()};
}

void Credits::spoken(const wire::tb::CreditFrame& frame) noexcept {
  credits_.synced.store(frame.sent, kRelaxed);
  credits_.announced.store(frame.limit, kRelaxed);
  bump(credits_.frames_sent);
  if (frame.answer) bump(credits_.requests);
}

void Credits::take(const wire::tb::CreditFrame& frame, uint32_t tail) noexcept {
  const uint32_t beyond = frame.limit - sent() + kLimitMost;
  if (frame.session != session() || beyond > 2 * kLimitMost) {
    bump(credits_.frames_refused);
    return;
  }
  credits_.offset.store(frame.sent - (tail + 1), kRelaxed);
  credits_.limit.store(frame.limit, std::memory_order_release);
  credits_.granted.store(frame.session, std::memory_order_release);
  if (frame.answer) credits_.asked.store(1, std::memory_order_release);
  bump(credits_.frames_taken);
}

}  // namespace tbt::rail::nhi
