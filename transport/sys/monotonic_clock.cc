#include "sys/monotonic_clock.h"

#include <ctime>

namespace tbt::sys {

Instant monotonic_now() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return Instant{static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec};
}

}  // namespace tbt::sys
