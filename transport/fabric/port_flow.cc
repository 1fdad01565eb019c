// The part of a port that chooses the flow control of its path, when the entries are open and
// before frames pass: by what both ends offer, and if the hardware's end-to-end credits may be
// taken, by trying them. As everywhere in a port, what should be is compared with what is.
#include <utility>

#include "fabric/port.h"
#include "wire/tb/credit_frame.h"

namespace tbt::fabric {

using wire::tb::FlowOutcome;
using wire::tb::kPathFeatureCredits;
using wire::tb::kPathFeatureE2e;
using wire::tb::PathFlow;

namespace {

constexpr uint32_t kBoth = kPathFeatureE2e | kPathFeatureCredits;

}  // namespace

// Short rings can have no credits in software, or none that hardware is tried against.
uint32_t Port::my_features() const {
  const uint32_t entries = config_.ring_entries;
  if (entries < wire::tb::kCreditRingEntriesMin) return config_.flow_features & kPathFeatureE2e;
  const bool short_of_test = entries < wire::tb::kFlowTestRingEntriesMin;
  if (config_.flow_features == kBoth && short_of_test) return kPathFeatureCredits;
  return config_.flow_features;
}

uint32_t Port::agreed_features() const { return my_features() & negotiator_.agreed()->features; }

uint32_t Port::session() const {
  return wire::tb::path_session(negotiator_.epoch(), negotiator_.agreed()->epoch);
}

void Port::follow_flow() {
  if (!transmit_open_ || !negotiator_.agreed()) return stop_flow();
  if (status_.path) return;
  if (agreed_features() == kBoth) {
    if (std::exchange(flow_session_, session()) != session()) {
      flow_.start(status_.peer->uuid, negotiator_.epoch(), negotiator_.agreed()->epoch);
      events_.emplace_back(FlowTestWanted{status_.port, flow_session_});
    }
    if (flow_.stage() == FlowStage::kTesting && !std::exchange(flow_due_told_, true)) {
      events_.emplace_back(FlowTestDue{status_.port, flow_session_});
    }
    if (flow_.stage() != FlowStage::kSettled) return;
  }
  path_up();
}

void Port::stop_flow() {
  const bool over = flow_.stage() == FlowStage::kIdle || flow_.stage() == FlowStage::kSettled;
  flow_.stop();
  flow_session_ = 0;
  flow_due_told_ = false;
  if (!over) events_.emplace_back(FlowTestOver{status_.port});
}

void Port::choose_flow(PathStatus& path) const {
  path.features = agreed_features();
  path.flow_reason = FlowReason::kOffered;
  if (path.features == kBoth) {
    const bool here = flow_.mine() == FlowOutcome::kHeld;
    const bool there = flow_.theirs() == FlowOutcome::kHeld;
    path.flow = here && there ? PathFlow::kE2e : PathFlow::kCredits;
    path.flow_reason = !here   ? FlowReason::kFailedHere
                       : there ? FlowReason::kTested
                               : FlowReason::kFailedThere;
  } else if (path.features == kPathFeatureE2e) {
    path.flow = PathFlow::kE2e;
  } else {
    path.flow = path.features == 0 ? PathFlow::kNone : PathFlow::kCredits;
  }
  path.session = path.flow == PathFlow::kCredits ? session() : 0;
}

void Port::rail_held(Instant now, uint32_t session) {
  if (session != flow_session_ || flow_.stage() != FlowStage::kHolding) return;
  flow_.held(now);
  update(now);
}

void Port::flow_tested(Instant now, uint32_t session, FlowOutcome outcome) {
  if (session != flow_session_ || flow_.stage() != FlowStage::kTesting) return;
  flow_.tested(now, outcome);
  update(now);
}

// Whoever goes on for a daemon that was killed knows what was chosen, and can be asked for it.
void Port::resume_flow(const wire::tb::PathEpoch& mine, const PathStatus& kept) {
  if ((my_features() & kept.peer_features) != kBoth) return;
  const bool failed_here = kept.flow_reason == FlowReason::kFailedHere;
  const wire::tb::PathEpoch theirs{kept.peer_incarnation, kept.peer_generation};
  flow_session_ = wire::tb::path_session(mine, theirs);
  flow_.settle(
      kept.peer, mine, theirs, failed_here ? FlowOutcome::kMissing : FlowOutcome::kHeld,
      kept.flow_reason == FlowReason::kFailedThere ? FlowOutcome::kMissing : FlowOutcome::kHeld);
}

}  // namespace tbt::fabric
