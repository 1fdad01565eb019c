// EngineLock: the one lock around a process's endpoint. Uncontended it is one atomic exchange each
// way. A waiter spins for about a microsecond (the holder is usually copying a few frames), then
// yields, then sleeps.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

#include "sys/futex.h"

namespace tbt::device {

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class EngineLock {
 public:
  void lock() noexcept {
    if (!try_lock()) lock_slow();
  }
  bool try_lock() noexcept {
    uint32_t expected = kFree;
    return word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire,
                                         std::memory_order_relaxed);
  }
  void unlock() noexcept {
    if (word_.exchange(kFree, std::memory_order_release) == kContended) sys::futex_wake_all(&word_);
  }

 private:
  enum : uint32_t { kFree = 0, kHeld = 1, kContended = 2 };
  static constexpr int kSpins = 64;
  static constexpr int kYields = 16;

  void lock_slow() noexcept {
    for (int i = 0; i < kSpins; ++i) {
      cpu_relax();
      if (try_lock()) return;
    }
    for (int i = 0; i < kYields; ++i) {
      sched_yield();
      if (try_lock()) return;
    }
    // From here on the word says kContended, so that the holder wakes us.
    while (word_.exchange(kContended, std::memory_order_acquire) != kFree) {
      sys::futex_wait(&word_, kContended, kSleepNs);
    }
  }

  static constexpr int64_t kSleepNs = 10 * 1000 * 1000;
  std::atomic<uint32_t> word_{kFree};
};

}  // namespace tbt::device
