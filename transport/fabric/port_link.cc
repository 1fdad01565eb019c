// The part of a port that follows its link: what the lane adapter says, and making one link of two
// lanes. Lanes of generation 4 are always one; below it the hosts must agree (XDomain), as in the
// kernel's xdomain.c: the one with the lower UUID asks and drives, the other one follows.
#include "fabric/port.h"
#include "fabric/router_regs.h"

namespace tbt::fabric {

namespace {

// How often, and for how long, a link is looked at that is to become wider: nothing tells of it.
constexpr uint32_t kLooks = 8;
constexpr Duration kFirstLook = Duration::from_ms(5);  // doubled each time

// How often a link is bonded again that has become narrower.
constexpr uint32_t kWiden = 3;

constexpr uint32_t kGen4Gbps = 40;

bool same_link(const PortStatus& a, const PortStatus& b) {
  return a.state == b.state && a.speed_gbps == b.speed_gbps && a.lanes == b.lanes;
}

bool can_bond(const PortShape& shape, const LaneReading& lanes) {
  return shape.lane1 != 0 && lanes.lanes == 1 && lanes.speed_gbps != 0 &&
         lanes.speed_gbps < kGen4Gbps && (lanes.supported_width & kWidthDual) != 0;
}

}  // namespace

void Port::take_reading(Instant now, const LaneReading& reading) {
  const PortStatus before = status_;
  if (reading.state != PortState::kUp) {
    lose_link(reading.state, "the link is down");
    return;
  }
  if (!link_up_) {
    link_up_ = true;
    probed_ = broken_ = ip_broken_ = false;
    if (status_.usable) status_.trouble.clear();
    bonding_ = false;
    xdomain_.link_up(now);
  }
  lanes_ = reading;
  const bool may_bond = can_bond(shape_, lanes_);
  xdomain_.set_link_state({.supported_width = lanes_.supported_width,
                           .target_width = lanes_.target_width,
                           .supported_speed = lanes_.supported_speed,
                           .target_speed = lanes_.target_speed},
                          may_bond);
  if (!may_bond) look_ = Instant::never();
  if (status_.state != PortState::kForeign) status_.state = PortState::kUp;
  status_.speed_gbps = reading.speed_gbps;
  status_.lanes = reading.lanes;
  if (same_link(before, status_)) return;
  events_.emplace_back(PortChanged{status_});
  if (reading.lanes < before.lanes) widen_ = kWiden;
  widen(now);
}

void Port::lose_link(PortState state, const char* why) {
  const PortStatus before = status_;
  if (link_up_) {
    lose_peer(why);
    xdomain_.link_down();
    link_up_ = false;
  }
  look_ = Instant::never();
  status_.state = state;
  status_.speed_gbps = status_.lanes = 0;
  if (!same_link(before, status_)) events_.emplace_back(PortChanged{status_});
}

void Port::consider_bonding(Instant now) {
  if (bonding_ || !can_bond(shape_, lanes_) || !(router_.uuid < status_.peer->uuid)) return;
  bonding_ = true;
  xdomain_.ask_link_status(now);
}

void Port::follow_bonding(Instant now, DiscoveryEvent answer) {
  if (!can_bond(shape_, lanes_)) return;
  if (answer == DiscoveryEvent::kLinkChange) return bond(now, true);
  if ((xdomain_.discovery().link_status().supported_width & kWidthDual) == 0) return;
  xdomain_.ask_link_change(now,
                           {.target_width = kTargetWidthDual, .target_speed = lanes_.target_speed});
}

void Port::bond(Instant now, bool drive) {
  if (closing_ || !can_bond(shape_, lanes_)) return;
  add(Work::kBond, std::make_unique<BondTask>(shape_, drive));
  looks_ = 0;
  look_ = now + kFirstLook;
}

void Port::look(Instant now) {
  if (!link_up_ || closing_) return;
  widen(now);
  handle_link_news(now);
}

// A link that was of one piece. The peer may not have seen yet that it is not any more.
void Port::widen(Instant now) {
  if (widen_ == 0 || !status_.peer || !can_bond(shape_, lanes_)) return;
  --widen_;
  bonding_ = false;
  consider_bonding(now);
}

void Port::look_again(Instant now) {
  if (now < look_) return;
  relink_ = true;
  look_ = ++looks_ < kLooks ? now + kFirstLook * (int64_t{1} << looks_) : Instant::never();
}

}  // namespace tbt::fabric
