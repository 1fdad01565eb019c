// Links: what the ports at the two ends of a cable want, what becomes of it, how the lane adapters
// show it, and the hot-plug events.
#include <algorithm>

#include "rail/emulated/router_model.h"

namespace tbt::rail::emulated {
namespace {

// Buffers of a lane adapter, for as many lanes as its link has.
constexpr uint32_t kBuffersPerLane = 60;

uint32_t speed_code(uint8_t generation) noexcept {
  if (generation >= 4) return kSpeedGen4;
  return generation == 3 ? kSpeedGen3 : kSpeedGen2;
}

void show_lane(uint32_t& lane_cs1, const LinkState& link, bool lane_up) noexcept {
  uint32_t state = lane_up ? kLaneCl0 : kLaneUnplugged;
  if ((lane_cs1 & kLaneDisable) != 0) state = kLaneDisabled;
  uint32_t value = (lane_cs1 & kLaneCs1Writable) | state << kLaneStateShift;
  if (lane_up) {
    value |= speed_code(link.generation) << kSpeedShift;
    value |= (link.bonded ? kWidthDual : kWidthSingle) << kWidthShift;
  }
  lane_cs1 = value;
}

}  // namespace

PortWish RouterModel::wish(uint32_t port) const noexcept {
  const PortSilicon& p = s_.ports[port];
  const uint32_t lane0 = p.lane0[kLaneCs1], lane1 = p.lane1[kLaneCs1];
  PortWish wish;
  wish.enabled = (lane0 & kLaneDisable) == 0 && (p.lane0[kPortCs19] & kPortReset) == 0;
  wish.second_lane = (lane1 & kLaneDisable) == 0;
  wish.dual =
      (lane0 & kTargetWidthMask) == kTargetDual && (lane1 & kTargetWidthMask) == kTargetDual;
  wish.bond = (lane0 & kLaneBond) != 0;
  wish.generation_max = s_.shape.usb4_v2 ? 4 : 3;
  return wish;
}

// Lanes of generation 4 are always one link, so there is none of a single lane. Below it, both ends
// must want two lanes and one of them must say when. A link that changes while it is up is trained
// anew without going down: no event tells of it.
LinkState negotiate(const CableLink& cable, const PortWish& a, const PortWish& b) noexcept {
  LinkState link;
  if (!cable.plugged || !a.enabled || !b.enabled) return link;
  link.up = true;
  link.generation = std::min({cable.generation_max, a.generation_max, b.generation_max});
  if (cable.one_lane) link.generation = std::min<uint8_t>(link.generation, 3);
  const bool gen4 = link.generation >= 4;
  link.second_lane = gen4 || (!cable.one_lane && a.second_lane && b.second_lane);
  link.bonded = gen4 || (link.second_lane && a.dual && b.dual && (a.bond || b.bond));
  return link;
}

void train(const CableLink& cable, RouterModel& a, uint32_t port_a, RouterOutput& out_a,
           RouterModel& b, uint32_t port_b, RouterOutput& out_b) {
  const LinkState link = negotiate(cable, a.wish(port_a), b.wish(port_b));
  if (a.link(port_a).up != b.link(port_b).up) {
    a.handle_link(port_a, {}, out_a);
    b.handle_link(port_b, {}, out_b);
  }
  a.handle_link(port_a, link, out_a);
  b.handle_link(port_b, link, out_b);
}

void RouterModel::handle_link(uint32_t port, const LinkState& link, RouterOutput& out) {
  TBT_ASSERT(port < ports());
  PortSilicon& p = s_.ports[port];
  const bool came_up = link.up && !p.link.up;
  p.link = link;
  // What is behind a new link must not be reached before the manager has looked.
  if (came_up) p.lane0[kAdapterCs4] |= kAdapterLock;
  show_link(port);
  announce(port, out);
}

void RouterModel::show_link(uint32_t port) noexcept {
  PortSilicon& p = s_.ports[port];
  show_lane(p.lane0[kLaneCs1], p.link, p.link.up);
  show_lane(p.lane1[kLaneCs1], p.link, p.link.up && p.link.second_lane);
  const uint32_t buffers = p.link.bonded ? 2 * kBuffersPerLane : kBuffersPerLane;
  p.lane0[kAdapterCs4] = (p.lane0[kAdapterCs4] & ~kBuffersMask) | buffers << kBuffersShift;
  p.lane1[kAdapterCs4] = (p.lane1[kAdapterCs4] & ~kBuffersMask) | kBuffersPerLane << kBuffersShift;
  const uint32_t bit = 1u << port;
  const uint32_t before = s_.ports_up.load(std::memory_order_relaxed);
  const uint32_t after = p.link.up ? before | bit : before & ~bit;
  s_.ports_up.store(after, std::memory_order_release);
  if (before != after) paths_changed();
}

// Whenever what was said last is not what is; not before the router is enumerated, nor while the
// manager does not want to hear.
void RouterModel::announce(uint32_t port, RouterOutput& out) {
  PortSilicon& p = s_.ports[port];
  if (p.announced == p.link.up || (s_.router[kRouterCs3] & kRouterValid) == 0 ||
      (p.lane0[kAdapterCs5] & kNoHotPlug) != 0) {
    return;
  }
  const wire::tb::HotPlug event{
      .route = {}, .adapter = static_cast<uint8_t>(lane_adapter(port)), .unplug = !p.link.up};
  wire::tb::encode_control_packet(event, out.add(RouterOutput::kHost));
  p.announced = p.link.up;
  ++s_.counters.events;
}

void RouterModel::announce_all(RouterOutput& out) {
  for (uint32_t port = 0; port < ports(); ++port) announce(port, out);
}

}  // namespace tbt::rail::emulated
