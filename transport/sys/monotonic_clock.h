// The monotonic clock, for device/ and tools/ only; everything below takes the time as a parameter.
#pragma once

#include "base/time.h"

namespace tbt::sys {

Instant monotonic_now() noexcept;

}  // namespace tbt::sys
