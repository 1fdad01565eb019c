// ProcessToken: names one life of one process, so that a lock can tell who holds it and whether
// that process still lives. A pid alone is reused; pid and start time together are not.
//
// All holders are taken to be in one pid namespace, as the processes of one machine's fabric are.
#pragma once

#include <atomic>
#include <cstdint>

namespace tbt::sys {

// Low half: the pid (bit 31 is free for the lock). High half: low 32 bits of the start time in
// clock ticks.
using ProcessToken = uint64_t;

inline constexpr uint32_t token_pid(ProcessToken token) noexcept {
  return static_cast<uint32_t>(token) & 0x7fffffffU;
}

// Of this process; costs a load after the first call. A forked child gets its own.
inline std::atomic<ProcessToken> cached_token{0};
ProcessToken make_own_token() noexcept;
inline ProcessToken own_token() noexcept {
  const ProcessToken token = cached_token.load(std::memory_order_relaxed);
  return token != 0 ? token : make_own_token();
}

// False only if it is certain that the process is gone: ended, or a zombie with no thread left.
// Reads /proc: for slow paths.
bool is_alive(ProcessToken token) noexcept;

}  // namespace tbt::sys
