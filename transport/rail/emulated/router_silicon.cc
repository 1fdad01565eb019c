#include "rail/emulated/router_silicon.h"

#include "base/assert.h"

namespace tbt::rail::emulated {
namespace {

// Host routers that exist, so that a driver's quirks apply: Barlow Ridge, Alder Lake, AMD.
constexpr uint32_t kIntelVendor = 0x8087, kAmdVendor = 0x0438;
constexpr uint32_t kBarlowRidge = 0x5781, kAlderLake = 0x463e, kAmdRouter = 0x020b;
constexpr uint32_t kNhiBuffers = 24;
constexpr uint32_t kControlCredits = 2;

uint32_t ids(const RouterShape& shape) noexcept {
  if (!shape.intel) return kAmdVendor | kAmdRouter << 16;
  return kIntelVendor | (shape.usb4_v2 ? kBarlowRidge : kAlderLake) << 16;
}

void power_on_router(RouterSilicon& s, const RouterShape& shape) noexcept {
  const uint32_t last = nhi_adapter(shape.ports);
  s.router = {};
  s.router[kRouterCs0] = ids(shape);
  s.router[kRouterCs1] = kRouterTmu | last << kUpstreamShift | last << kMaxAdapterShift;
  s.router[kRouterCs4] = (shape.usb4_v2 ? kUsb4V2 : kUsb4V1) << kUsb4VersionShift;
  s.router[kRouterCs6] = kRouterNoThunderbolt3;
  s.router[kRouterCs7] = static_cast<uint32_t>(shape.unique_id);
  s.router[kRouterCs7 + 1] = static_cast<uint32_t>(shape.unique_id >> 32);
  s.router[kRouterTmu] = kCapabilityTmu << 8 | kTmuUnidirectional;
}

// The basic dwords of an adapter, the same for all kinds.
template <typename Space>
void power_on_adapter(Space& space, const RouterShape& shape, uint32_t number, uint32_t type,
                      uint32_t hop_max) noexcept {
  space = {};
  space[kAdapterCs0] = ids(shape);
  space[kAdapterCs2] = type;
  space[kAdapterCs3] = number << kAdapterNumberShift;
  space[kAdapterCs5] = hop_max | hop_max << kMaxHopOutShift;
}

template <typename Space>
void power_on_lane(Space& space, const RouterShape& shape, uint32_t number) noexcept {
  power_on_adapter(space, shape, number, kTypeLane, kPathHopsMax - 1);
  const uint32_t speeds = kSpeedGen2 | kSpeedGen3 | (shape.usb4_v2 ? kSpeedGen4 : 0);
  space[kAdapterCs1] = kLaneCs0;
  space[kLaneCs0] = kAdapterTmu | kCapabilityLane << 8 | speeds << kSpeedShift |
                    (kWidthSingle | kWidthDual) << kWidthShift;
  space[kLaneCs1] = kTargetSpeedGen3 | kTargetSingle | kLaneUnplugged << kLaneStateShift;
  space[kAdapterTmu] = kCapabilityTmu << 8;
}

void power_on_paths(PathSilicon& space, uint64_t entry) noexcept {
  for (std::atomic<uint64_t>& slot : space.entries) slot.store(entry, std::memory_order_release);
  space.pending_reads = {};
}

void power_on_port(RouterSilicon& s, const RouterShape& shape, uint32_t port) noexcept {
  PortSilicon& p = s.ports[port];
  p = {};
  power_on_lane(p.lane0, shape, lane_adapter(port));
  power_on_lane(p.lane1, shape, lane_adapter(port) + 1);
  p.lane0[kAdapterTmu] |= kPortCs0;
  p.lane0[kPortCs0] = kCapabilityUsb4Port << 8;
  p.lane0[kPortCs18] = kBondingEnabled;
  power_on_paths(s.lane_paths[port], 0);
  // HopID 0 is the control channel's.
  s.lane_paths[port].entries[0].store(uint64_t{kControlCredits} << kCreditsShift);
}

}  // namespace

void power_on(RouterSilicon& silicon, const RouterShape& shape) noexcept {
  TBT_ASSERT(shape.ports >= 1 && shape.ports <= kRouterPortsMax);
  TBT_ASSERT(shape.hop_count >= 1 && shape.hop_count <= kPathHopsMax);
  silicon.shape = shape;
  power_cycle(silicon);
}

void power_cycle(RouterSilicon& silicon) noexcept {
  const RouterShape& shape = silicon.shape;
  silicon.ports_up.store(0, std::memory_order_release);
  power_on_router(silicon, shape);
  power_on_adapter(silicon.nhi, shape, nhi_adapter(shape.ports), kTypeNhi, shape.hop_count - 1);
  silicon.nhi[kAdapterCs4] = kNhiBuffers << kBuffersShift;
  // Some value where the vendor's bits are, so that a manager that does not keep them is noticed.
  power_on_paths(silicon.nhi_paths, uint64_t{kNhiBuffers} << kCreditsShift | kIngressShared);
  for (uint32_t port = 0; port < shape.ports; ++port) power_on_port(silicon, shape, port);
  silicon.generation.fetch_add(1, std::memory_order_acq_rel);
}

}  // namespace tbt::rail::emulated
