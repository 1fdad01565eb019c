// Route strings: the way from a host's router to another router or, across its last link, to
// another host. Byte i holds the number of the lane adapter through which hop i leaves, 0 where the
// way has ended. 54 bits: seven hops, six bits each.
#pragma once

#include <cstdint>

namespace tbt::wire::tb {

inline constexpr unsigned kRouteHopsMax = 7;
inline constexpr unsigned kAdapterMax = 63;

struct Route {
  uint64_t value = 0;

  friend constexpr bool operator==(const Route&, const Route&) = default;
};

constexpr uint8_t route_hop(Route route, unsigned hop) noexcept {
  return static_cast<uint8_t>(route.value >> (8 * hop));
}

// How many hops the way has; 0 is the host's own router.
constexpr unsigned route_depth(Route route) noexcept {
  unsigned depth = 0;
  while (depth < kRouteHopsMax && route_hop(route, depth) != 0) ++depth;
  return depth;
}

// Adapters have six bits, nothing stands behind the end of the way.
constexpr bool route_is_legal(Route route) noexcept {
  const unsigned depth = route_depth(route);
  for (unsigned hop = 0; hop < depth; ++hop) {
    if (route_hop(route, hop) > kAdapterMax) return false;
  }
  return route.value >> (8 * depth) == 0;
}

// The way on through `adapter` of the router at its end. Not for a route of kRouteHopsMax hops.
constexpr Route route_append(Route route, uint8_t adapter) noexcept {
  return Route{route.value | uint64_t{adapter} << (8 * route_depth(route))};
}

// Its two dwords in a packet; the upper ten bits of the high one are not the route's.
inline constexpr uint32_t kRouteHighMask = (1u << 22) - 1;
constexpr uint32_t route_high(Route route) noexcept {
  return static_cast<uint32_t>(route.value >> 32) & kRouteHighMask;
}
constexpr uint32_t route_low(Route route) noexcept { return static_cast<uint32_t>(route.value); }
constexpr Route route_from_dwords(uint32_t high, uint32_t low) noexcept {
  return Route{uint64_t{high & kRouteHighMask} << 32 | low};
}

}  // namespace tbt::wire::tb
