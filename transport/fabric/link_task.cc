#include "fabric/link_task.h"

#include <algorithm>
#include <array>

#include "fabric/router_regs.h"

namespace tbt::fabric {

using wire::tb::ConfigSpace;

namespace {

ConfigAccess write_word(uint8_t adapter, uint16_t offset, uint32_t word) {
  const std::array<uint32_t, 1> words = {word};
  return config_write(ConfigSpace::kAdapter, adapter, offset, words);
}

PortState state_of(uint32_t state) {
  if (state == kLaneDisabled) return PortState::kDisabled;
  if (state == kLaneTraining) return PortState::kTraining;
  return state <= kLaneUpLast ? PortState::kUp : PortState::kUnplugged;
}

uint32_t gbps_of(uint32_t speed) {
  if (speed == kSpeedGen4) return 40;
  if (speed == kSpeedGen3) return 20;
  return speed == kSpeedGen2 ? 10 : 0;
}

// Lanes that carry from us to the peer.
uint32_t lanes_of(uint32_t width) {
  if (width == kWidthDual) return 2;
  return width == kWidthAsymTx ? 3 : 1;
}

LaneReading read_lane(uint32_t able, uint32_t is) {
  LaneReading reading;
  reading.state = state_of(bits(is, 29, 26));
  reading.supported_speed = static_cast<uint8_t>(bits(able, 19, 16));
  reading.supported_width = static_cast<uint8_t>(bits(able, 25, 20));
  reading.target_speed = static_cast<uint8_t>(bits(is, 3, 0));
  reading.target_width = static_cast<uint8_t>(bits(is, 5, 4));
  if (reading.state == PortState::kUp) {
    reading.speed_gbps = gbps_of(bits(is, 19, 16));
    reading.lanes = lanes_of(bits(is, 25, 20));
  }
  return reading;
}

}  // namespace

ConfigAccess LinkTask::write(uint16_t offset) const {
  return write_word(shape_.lane0, offset, word_);
}

ConfigAccess LinkTask::access(Instant now) {
  const auto control = static_cast<uint16_t>(shape_.usb4_port + kPortControl);
  switch (step_) {
    case Step::kHotPlug:
      return config_read(ConfigSpace::kAdapter, shape_.lane0, kAdapterHops, 1);
    case Step::kReportPlugs:
      return write(kAdapterHops);
    case Step::kLane:
      limit_ = std::min(limit_, now + kTrainingLimit);
      return config_read(ConfigSpace::kAdapter, shape_.lane0, shape_.lane0_cap, 2);
    case Step::kEnableLane:
      return write(static_cast<uint16_t>(shape_.lane0_cap + 1));
    case Step::kPort:
      return config_read(ConfigSpace::kAdapter, shape_.lane0, control, 1);
    case Step::kReset:
    case Step::kEndReset:
    case Step::kInterDomain:
      return write(control);
    case Step::kLock:
      return config_read(ConfigSpace::kAdapter, shape_.lane0, kAdapterLocked, 1);
    case Step::kUnlock:
      break;
  }
  return write(kAdapterLocked);
}

void LinkTask::take(Instant now, const ConfigResult& result) {
  if (failed(result, "the port's registers")) return;
  switch (step_) {
    case Step::kHotPlug:
      // Before the link is looked at, so that nothing is plugged between the look and the report.
      word_ = result.word(0) & ~kHotPlugOff;
      step_ = (result.word(0) & kHotPlugOff) != 0 ? Step::kReportPlugs : Step::kLane;
      return;
    case Step::kReportPlugs:
    case Step::kEnableLane:
      step_ = Step::kLane;
      return;
    case Step::kLane:
      return lane(now, result);
    case Step::kPort:
      return port(result);
    case Step::kReset:
      word_ &= ~kPortReset;
      step_ = Step::kEndReset;
      return wait_until(now + kPortResetTime);
    case Step::kEndReset:
      step_ = Step::kLane;
      return wait_until(now + kTrainingPoll);
    case Step::kInterDomain:
      step_ = Step::kLock;
      return;
    case Step::kLock:
      if ((result.word(0) & kAdapterLock) == 0) return finish();
      word_ = result.word(0) & ~kAdapterLock;
      step_ = Step::kUnlock;
      return;
    case Step::kUnlock:
      return finish();
  }
}

void LinkTask::lane(Instant now, const ConfigResult& result) {
  reading_ = read_lane(result.word(0), result.word(1));
  if (reading_.state == PortState::kUp) {
    step_ = Step::kPort;
  } else if ((result.word(1) & kLaneDisable) != 0 && !enabled_) {
    enabled_ = true;
    word_ = result.word(1) & ~kLaneDisable;
    step_ = Step::kEnableLane;
  } else if (reading_.state == PortState::kTraining && now < limit_) {
    wait_until(now + kTrainingPoll);
  } else {
    finish();
  }
}

void LinkTask::port(const ConfigResult& result) {
  const uint32_t word = result.word(0);
  if ((word & kPortConfigured) != 0 && !reset_) {
    reset_ = true;
    word_ = (word & ~kPortConfigured) | kPortReset;
    step_ = Step::kReset;
  } else if ((word & kPortInterDomain) == 0) {
    word_ = word | kPortInterDomain;
    step_ = Step::kInterDomain;
  } else {
    step_ = Step::kLock;
  }
}

ClStatesTask::ClStatesTask(const PortShape& shape) {
  lanes_.push_back({shape.lane0, shape.lane0_cap});
  if (shape.lane1 != 0) lanes_.push_back({shape.lane1, shape.lane1_cap});
}

ConfigAccess ClStatesTask::access(Instant /*now*/) {
  const auto offset = static_cast<uint16_t>(lanes_.back().offset + 1);
  if (write_) return write_word(lanes_.back().adapter, offset, word_);
  return config_read(ConfigSpace::kAdapter, lanes_.back().adapter, offset, 1);
}

void ClStatesTask::take(Instant /*now*/, const ConfigResult& result) {
  if (!write_ && result.done() && (result.word(0) & kLaneClStates) != 0) {
    word_ = result.word(0) & ~kLaneClStates;
    write_ = true;
    return;
  }
  write_ = false;
  lanes_.pop_back();
  if (lanes_.empty()) finish();
}

ConfigAccess BondTask::access(Instant /*now*/) {
  const uint8_t adapter = lane0_ ? shape_.lane0 : shape_.lane1;
  const auto offset = static_cast<uint16_t>((lane0_ ? shape_.lane0_cap : shape_.lane1_cap) + 1);
  if (write_) return write_word(adapter, offset, word_);
  return config_read(ConfigSpace::kAdapter, adapter, offset, 1);
}

void BondTask::take(Instant /*now*/, const ConfigResult& result) {
  if (failed(result, "lane bonding")) return;
  if (!write_) {
    word_ = with_bits(result.word(0), 5, 4, kTargetWidthDual);
    if (lane0_ && drive_) word_ |= kLaneBond;
    write_ = true;
    return;
  }
  write_ = false;
  if (lane0_) finish();
  lane0_ = true;
}

PathSweep::PathSweep(uint8_t adapter, uint16_t first, uint16_t last)
    : adapter_(adapter), next_(first), last_(last) {
  if (next_ > last_) finish();
}

uint16_t PathSweep::count() const noexcept {
  return std::min<uint16_t>(wire::tb::kConfigDataMax / 2, static_cast<uint16_t>(last_ - next_ + 1));
}

ConfigAccess PathSweep::access(Instant /*now*/) {
  return config_read(ConfigSpace::kPath, adapter_, static_cast<uint16_t>(2 * next_),
                     static_cast<uint8_t>(2 * count()));
}

void PathSweep::take(Instant /*now*/, const ConfigResult& result) {
  const uint16_t taken = count();
  for (uint16_t i = 0; result.done() && i < taken; ++i) {
    if ((result.word(2u * i) & kPathEnable) == 0) continue;
    enabled_.push_back(static_cast<uint16_t>(next_ + i));
  }
  next_ = static_cast<uint16_t>(next_ + taken);
  if (next_ > last_) finish();
}

ConfigAccess RouterProbe::access(Instant /*now*/) {
  ConfigAccess access = config_read(ConfigSpace::kRouter, 0, kRouterIds, 1);
  access.route = route_;
  return access;
}

void RouterProbe::take(Instant /*now*/, const ConfigResult& result) {
  found_ = result.done();
  finish();
}

}  // namespace tbt::fabric
