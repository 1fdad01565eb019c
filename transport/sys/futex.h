// Futex: sleep on a 32-bit word in shared memory, and wake those who do. Works between processes.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

namespace tbt::sys {

static_assert(sizeof(std::atomic<uint32_t>) == 4);

// Sleeps while `word` is `expected`, at most `timeout_ns`; may return early for any reason.
inline void futex_wait(const void* word, uint32_t expected, int64_t timeout_ns) noexcept {
  if (timeout_ns <= 0) return;
  timespec timeout{};
  timeout.tv_sec = timeout_ns / 1000000000;
  timeout.tv_nsec = timeout_ns % 1000000000;
  syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

inline void futex_wake_all(const void* word) noexcept {
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace tbt::sys
