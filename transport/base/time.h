// Instant and Duration: time as a parameter. There is no now() here: the device room owns the clock,
// the simulator owns a virtual one, and everything below is told what time it is.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace tbt {

struct Duration {
  int64_t ns = 0;

  static constexpr Duration from_us(int64_t us) noexcept { return {us * 1000}; }
  static constexpr Duration from_ms(int64_t ms) noexcept { return {ms * 1000 * 1000}; }
  static constexpr Duration from_s(int64_t s) noexcept { return {s * 1000 * 1000 * 1000}; }
  constexpr auto operator<=>(const Duration&) const noexcept = default;
};

constexpr Duration operator+(Duration a, Duration b) noexcept { return {a.ns + b.ns}; }
constexpr Duration operator-(Duration a, Duration b) noexcept { return {a.ns - b.ns}; }
constexpr Duration operator*(Duration a, int64_t k) noexcept { return {a.ns * k}; }

// A point on a monotonic clock, in nanoseconds from an arbitrary origin.
struct Instant {
  int64_t ns = 0;

  static constexpr Instant never() noexcept { return {std::numeric_limits<int64_t>::max()}; }
  [[nodiscard]] constexpr bool is_never() const noexcept { return *this == never(); }
  constexpr auto operator<=>(const Instant&) const noexcept = default;
};

constexpr Instant operator+(Instant t, Duration d) noexcept {
  return t.is_never() ? t : Instant{t.ns + d.ns};
}
constexpr Duration operator-(Instant a, Instant b) noexcept { return {a.ns - b.ns}; }

}  // namespace tbt
