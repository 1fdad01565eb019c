// RobustLock: a lock in shared memory that survives the death of its holder.
//
// One 64-bit word holds the ProcessToken of the holder. Uncontended, taking and giving it back is
// one atomic operation each and no system call. Who waits spins, then yields, then sleeps on the
// word, and looks from time to time whether the holder still lives; if not, it takes the lock over
// and is told so: it must then repair what the lock guards before it goes on (and if it dies in
// turn, the next one must).
//
// Zero-filled memory is a free lock. It is not recursive, and not fair.
#pragma once

#include <atomic>
#include <cstdint>

#include "sys/process_token.h"

namespace tbt::sys {

enum class [[nodiscard]] LockOutcome{
    kBusy,  // not taken
    kTaken,
    kOwnerDied,  // taken from a dead process: repair first
};

class RobustLock {
 public:
  // Never waits and never looks after the holder.
  LockOutcome try_lock() noexcept {
    uint64_t free = 0;
    const bool taken = word_.compare_exchange_strong(free, own_token(), std::memory_order_acquire,
                                                     std::memory_order_relaxed);
    return taken ? LockOutcome::kTaken : LockOutcome::kBusy;
  }

  // Like try_lock, but takes the lock from a dead holder. Slow when busy (reads /proc).
  LockOutcome try_lock_or_recover() noexcept;

  // Waits. Never returns kBusy.
  LockOutcome lock() noexcept {
    const LockOutcome outcome = try_lock();
    return outcome == LockOutcome::kBusy ? wait(INT64_MAX) : outcome;
  }
  // Waits for about so long, then kBusy: a holder may be stopped (SIGSTOP, a debugger) for any
  // time.
  LockOutcome lock_within(int64_t ns) noexcept {
    const LockOutcome outcome = try_lock();
    return outcome == LockOutcome::kBusy ? wait(ns) : outcome;
  }

  // A full barrier: what the holder wrote is visible before anything that it reads afterwards.
  void unlock() noexcept {
    if ((word_.exchange(0, std::memory_order_seq_cst) & kWaiters) != 0) wake_waiters();
  }
  // Cheaper, and no barrier. Who begins to sleep at this very moment may be overlooked; it looks
  // again after a millisecond (robust_lock.cc).
  void unlock_fast() noexcept {
    const bool waiters = (word_.load(std::memory_order_relaxed) & kWaiters) != 0;
    word_.store(0, std::memory_order_release);
    if (waiters) wake_waiters();
  }

  // Of this moment; 0 if free.
  [[nodiscard]] ProcessToken holder() const noexcept {
    return word_.load(std::memory_order_acquire) & ~kWaiters;
  }
  [[nodiscard]] bool is_locked() const noexcept {
    return word_.load(std::memory_order_acquire) != 0;
  }

 private:
  static constexpr uint64_t kWaiters = uint64_t{1} << 31;

  LockOutcome wait(int64_t most_ns) noexcept;
  LockOutcome sleep_until_taken(int64_t end_ns) noexcept;
  void wake_waiters() noexcept;

  std::atomic<uint64_t> word_;
};
static_assert(sizeof(RobustLock) == 8);

}  // namespace tbt::sys
