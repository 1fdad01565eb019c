#include "sys/robust_lock.h"

#include <sched.h>

#include "sys/barrier.h"
#include "sys/futex.h"
#include "sys/monotonic_clock.h"

namespace tbt::sys {
namespace {

constexpr int kSpins = 200;                // about the length of a burst under the lock
constexpr int kYields = 50;                // the holder may have been taken off its processor
constexpr int64_t kSleepNs = 1000 * 1000;  // between looks at whether the holder lives

bool is_past(int64_t end_ns) noexcept {
  return end_ns != INT64_MAX && monotonic_now().ns >= end_ns;
}

}  // namespace

LockOutcome RobustLock::try_lock_or_recover() noexcept {
  uint64_t holder = word_.load(std::memory_order_relaxed);
  if (holder == 0) return try_lock();
  if (is_alive(holder & ~kWaiters)) return LockOutcome::kBusy;
  const uint64_t ours = own_token() | (holder & kWaiters);
  const bool taken = word_.compare_exchange_strong(holder, ours, std::memory_order_acquire,
                                                   std::memory_order_relaxed);
  return taken ? LockOutcome::kOwnerDied : LockOutcome::kBusy;
}

LockOutcome RobustLock::wait(int64_t most_ns) noexcept {
  for (int i = 0; i < kSpins; ++i) {
    cpu_relax();
    if (!is_locked() && try_lock() == LockOutcome::kTaken) return LockOutcome::kTaken;
  }
  const int64_t end_ns = most_ns == INT64_MAX ? INT64_MAX : monotonic_now().ns + most_ns;
  // On a crowded machine one yield may last for longer than the caller will wait.
  for (int i = 0; i < kYields && !is_past(end_ns); ++i) {
    sched_yield();
    if (!is_locked() && try_lock() == LockOutcome::kTaken) return LockOutcome::kTaken;
  }
  return sleep_until_taken(end_ns);
}

LockOutcome RobustLock::sleep_until_taken(int64_t end_ns) noexcept {
  for (;;) {
    const LockOutcome outcome = try_lock_or_recover();
    if (outcome != LockOutcome::kBusy) return outcome;
    if (is_past(end_ns)) return LockOutcome::kBusy;
    uint64_t held = word_.load(std::memory_order_relaxed);
    if (held == 0) continue;
    if (!word_.compare_exchange_strong(held, held | kWaiters, std::memory_order_relaxed)) continue;
    futex_wait(&word_, static_cast<uint32_t>(held | kWaiters),
               kSleepNs);  // low half: little endian
  }
}

void RobustLock::wake_waiters() noexcept { futex_wake_all(&word_); }

}  // namespace tbt::sys
