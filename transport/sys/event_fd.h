// Named event_fd.h because <sys/eventfd.h> is the system's own.
// An eventfd is a counter behind a descriptor; readable while it is not zero. Non-blocking.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::sys {

inline Result<UniqueFd> make_eventfd() {
  UniqueFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return Status(errno, "eventfd failed");
  return fd;
}

// A counter that is full already is readable already, so a refused write loses nothing.
inline void signal_eventfd(int fd) noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(fd, &one, sizeof one);
}

// Makes it unreadable again; returns how often it was signalled.
inline uint64_t drain_eventfd(int fd) noexcept {
  uint64_t count = 0;
  return read(fd, &count, sizeof count) == sizeof count ? count : 0;
}

}  // namespace tbt::sys
