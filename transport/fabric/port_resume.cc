// The part of a port that goes on for a daemon that was killed. Frames go on by its path meanwhile,
// so nothing is written to the router as long as all is as it was left.
#include <utility>

#include "fabric/port.h"

namespace tbt::fabric {

// What was kept lies in memory that others can write: it is to fit before it is looked at.
bool Port::can_resume(const PathStatus& kept) const {
  return status_.usable && kept.port == status_.port && kept.peer_incarnation != 0 &&
         kept.tx_ring == ring() && kept.rx_ring == ring() &&
         kept.in_hop_id == receive_entry().hop_id && kept.out_hop_id >= wire::tb::kPathHopIdMin &&
         kept.out_hop_id <= status_.max_out_hop_id && kept.flow <= wire::tb::PathFlow::kCredits &&
         kept.flow_reason <= FlowReason::kFailedThere &&
         (kept.flow == wire::tb::PathFlow::kCredits) == (kept.session != 0);
}

void Port::resume(Instant now, const PathStatus& kept) {
  PeerStatus peer;  // its names come with its properties
  peer.uuid = kept.peer;
  peer.tbt_error = wire::tb::ServiceError::kNone;
  peer.tbt.max_frame = kept.peer_max_frame;
  peer.tbt.settings = kept.peer_settings;
  status_.peer = std::move(peer);
  status_.path = kept;
  receive_open_ = transmit_open_ = true;
  untold_ = true;
  link_up_ = true;
  wire::tb::PathOffer mine = my_offer();
  mine.epoch = {config_.incarnation, kept.generation};
  const wire::tb::PathOffer theirs{.epoch = {kept.peer_incarnation, kept.peer_generation},
                                   .rail = kept.peer_rail,
                                   .hop_id = kept.out_hop_id,
                                   .ring_entries = kept.peer_ring_entries,
                                   .features = kept.peer_features};
  negotiator_.resume(now, kept.peer, mine, theirs, status_.max_out_hop_id);
  resume_flow(mine.epoch, kept);
  xdomain_.link_up(now);
  add(Work::kLink, std::make_unique<LinkTask>(shape_));
  const PathTarget transmit{.egress_adapter = shape_.lane0, .next_hop_id = kept.out_hop_id};
  add(Work::kCheckReceive, std::make_unique<PathEntryCheck>(receive_entry(), receive_target()));
  add(Work::kCheckTransmit, std::make_unique<PathEntryCheck>(transmit_entry(), transmit));
}

// The path may have gone down since, for another reason.
void Port::checked(const PathEntryCheck& check, bool last) {
  if (!status_.path) return;
  if (check.as_wanted()) {
    if (last && std::exchange(untold_, false)) events_.emplace_back(PathUp{*status_.path});
    return;
  }
  // From here on as if the link had just come up.
  lose_peer("its path is not as the last daemon has left it");
  xdomain_.link_down();
  link_up_ = false;
  relink_ = true;
  sweep();
}

}  // namespace tbt::fabric
