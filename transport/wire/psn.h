// Psn: 24-bit packet sequence numbers and their window arithmetic (IBTA vol. 1, 9.7.2).
// Of two PSNs the one less than 2^23 ahead (modulo 2^24) is the later.
#pragma once

#include <cstdint>

namespace tbt::wire {

inline constexpr uint32_t kPsnMask = 0xffffff;

constexpr uint32_t psn_add(uint32_t psn, uint32_t n) noexcept { return (psn + n) & kPsnMask; }

// Signed distance a - b in [-2^23, 2^23).
constexpr int32_t psn_diff(uint32_t a, uint32_t b) noexcept {
  return static_cast<int32_t>((a - b) << 8) >> 8;
}

}  // namespace tbt::wire
