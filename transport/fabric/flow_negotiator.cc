#include "fabric/flow_negotiator.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace tbt::fabric {

using wire::tb::FlowMessage;
using wire::tb::FlowOutcome;
using wire::tb::FlowStep;

namespace {

constexpr size_t kAnswersMax = 4;  // a peer has one request outstanding, unless it repeats itself

}  // namespace

void FlowNegotiator::start(const wire::tb::Uuid& peer, const wire::tb::PathEpoch& mine,
                           const wire::tb::PathEpoch& theirs) {
  stop();
  stage_ = FlowStage::kHolding;
  peer_ = peer;
  mine_ = mine;
  theirs_ = theirs;
}

void FlowNegotiator::settle(const wire::tb::Uuid& peer, const wire::tb::PathEpoch& mine,
                            const wire::tb::PathEpoch& theirs, FlowOutcome mine_found,
                            FlowOutcome theirs_found) {
  start(peer, mine, theirs);
  stage_ = FlowStage::kSettled;
  peer_step_ = FlowStep::kTested;
  mine_found_ = mine_found;
  theirs_found_ = theirs_found;
}

void FlowNegotiator::stop() {
  stage_ = FlowStage::kIdle;
  peer_step_ = FlowStep::kPreparing;
  mine_found_ = theirs_found_ = FlowOutcome::kOpen;
  unsaid_ = false;
  attempts_ = 0;
  answers_.clear();
}

void FlowNegotiator::held(Instant now) {
  TBT_ASSERT(stage_ == FlowStage::kHolding);
  stage_ = FlowStage::kReady;
  say(now);
  advance();
}

void FlowNegotiator::tested(Instant now, FlowOutcome outcome) {
  TBT_ASSERT(stage_ == FlowStage::kTesting && outcome != FlowOutcome::kOpen);
  stage_ = FlowStage::kTested;
  mine_found_ = outcome;
  say(now);
  advance();
}

FlowStep FlowNegotiator::step() const noexcept {
  switch (stage_) {
    case FlowStage::kIdle:
    case FlowStage::kHolding:
      return FlowStep::kPreparing;
    case FlowStage::kReady:
    case FlowStage::kTesting:
      return FlowStep::kReady;
    case FlowStage::kTested:
    case FlowStage::kSettled:
      return FlowStep::kTested;
  }
  return FlowStep::kPreparing;
}

bool FlowNegotiator::asking() const noexcept {
  return unsaid_ || stage_ == FlowStage::kReady || stage_ == FlowStage::kTested;
}

void FlowNegotiator::say(Instant now) {
  unsaid_ = true;
  attempts_ = 0;
  due_ = now;
}

void FlowNegotiator::advance() {
  if (stage_ == FlowStage::kReady && peer_step_ >= FlowStep::kReady) {
    stage_ = FlowStage::kTesting;
  } else if (stage_ == FlowStage::kTested && peer_step_ == FlowStep::kTested) {
    stage_ = FlowStage::kSettled;
  }
}

void FlowNegotiator::handle_packet(const wire::tb::XDomainPacket& packet) {
  FlowMessage message;
  if (decode_flow_message(packet, message) != wire::tb::XDomainError::kNone ||
      stage_ == FlowStage::kIdle || message.destination != self_ || message.source != peer_ ||
      message.from != theirs_ || message.to != mine_) {
    ++ignored_;
    return;
  }
  if (message.step >= peer_step_) {
    peer_step_ = message.step;
    theirs_found_ = message.outcome;
  }
  advance();
  if (message.answer || answers_.size() == kAnswersMax) return;
  answers_.push_back(this->message(true, packet.sequence));
}

wire::tb::XDomainPacket FlowNegotiator::message(bool answer, uint8_t sequence) const {
  return wire::tb::encode_flow_message({.source = self_,
                                        .destination = peer_,
                                        .answer = answer,
                                        .from = mine_,
                                        .to = theirs_,
                                        .step = step(),
                                        .outcome = mine_found_},
                                       {.route = route_, .sequence = sequence});
}

bool FlowNegotiator::poll_transmit(Instant now, wire::tb::XDomainPacket& out) {
  if (!answers_.empty()) {
    out = std::move(answers_.front());
    answers_.pop_front();
    return true;
  }
  if (!asking() || now < due_) return false;
  unsaid_ = false;
  const uint32_t doublings = std::min(attempts_, 10u);
  due_ = now + std::min(kFlowAskFirst * (int64_t{1} << doublings), kFlowAskSlow);
  out = message(false, static_cast<uint8_t>(attempts_++ % 4));
  return true;
}

}  // namespace tbt::fabric
