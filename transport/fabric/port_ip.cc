// The part of a port that speaks ThunderboltIP, with a peer that runs thunderbolt-net and not this
// project: when to log in, and the two entries of its path. The rings at the ends of the path are
// the daemon's, and run before the peer is told of anything.
//
// It goes like the rail's path: what should be open is compared with what is (plan_ip_closing(),
// plan_ip_opening()), and closing comes before everything else, so a peer that begins to run this
// project finds the lane's HopIDs free.
#include <algorithm>
#include <utility>

#include "fabric/port.h"

namespace tbt::fabric {

using wire::tb::kPathHopIdMin;

void Port::ip_rings(Instant now, std::optional<IpMac> mac) {
  ip_mac_ = mac;
  if (!mac) {  // then it is not to be had, and the peers are told so
    status_.ip_ring = 0;
    xdomain_.set_properties(now, property_block());
  }
  update(now);
}

// A peer with which there is nothing else: no rail.
bool Port::peer_is_ip_only() const {
  return status_.peer && status_.peer->thunderbolt_net &&
         !(status_.usable && status_.peer->runs_tbt());
}

bool Port::wants_ip() const {
  return status_.ip_ring != 0 && peer_is_ip_only() && !closing_ && !ip_broken_;
}

// Our rails' HopID is left to them as long as the peer has another one.
uint16_t Port::ip_transmit_hop_id() const {
  const uint16_t last = std::min(status_.max_out_hop_id, status_.peer->max_hop_id);
  return last < kPathHopIdMin ? 0 : std::min<uint16_t>(last, kPathHopIdMin + 1);
}

void Port::follow_ip(Instant now) {
  if (!wants_ip()) {
    if (ip_) ip_->log_out(now);
  } else if (!ip_mac_) {
    if (!std::exchange(ip_asked_, true)) {
      events_.emplace_back(IpRingsWanted{status_.port, status_.ip_ring});
    }
  } else {
    start_ip(now);
  }
  if (ip_up_ && ip_entries_ != ip_path()) ip_down("the peer is logged in no longer");
  show_ip();
}

void Port::start_ip(Instant now) {
  const uint16_t hop_id = ip_transmit_hop_id();
  if (hop_id == 0) {
    ip_broken_ = true;
    return trouble("no HopID by which the peer's thunderbolt-net could receive");
  }
  if (!ip_ || hop_id != ip_hop_id_) {
    ip_hop_id_ = hop_id;
    ip_.emplace(IpPeerConfig{.self = router_.uuid, .transmit_path = hop_id, .mac = *ip_mac_});
  }
  ip_->start(now, status_.peer->uuid, std::exchange(ip_follows_, false));
  const auto path = ip_->path();
  if (!path || (path->in_hop_id >= kPathHopIdMin && path->in_hop_id <= status_.max_in_hop_id)) {
    return;
  }
  ip_broken_ = true;
  ip_->log_out(now);
  trouble("thunderbolt-net of the peer wants to send by HopID " + std::to_string(path->in_hop_id) +
          ", which the lane does not have");
}

void Port::stop_ip(const char* why) {
  if (ip_) ip_->stop();
  ip_down(why);
}

// What is to be open. By which HopID we receive is the peer's choice.
std::optional<IpPath> Port::ip_path() const {
  const auto path = ip_ ? ip_->path() : std::nullopt;
  if (!path || ip_broken_) return std::nullopt;
  return path;
}

// Whether there was something to close; then nothing else is done before it is.
bool Port::plan_ip_closing() {
  if (!ip_entries_ || ip_entries_ == ip_path()) return false;
  if (ip_transmit_open_) {
    add(Work::kCloseIpTransmit, std::make_unique<PathEntryTask>(ip_transmit_entry(), std::nullopt));
  } else if (ip_receive_open_) {
    add(Work::kCloseIpReceive, std::make_unique<PathEntryTask>(ip_receive_entry(), std::nullopt));
  } else {
    ip_entries_.reset();
    return false;
  }
  return true;
}

void Port::plan_ip_opening() {
  const auto path = ip_path();
  if (!path || receive_open_ || (ip_receive_open_ && ip_transmit_open_)) return;
  ip_entries_ = path;
  if (!ip_receive_open_) {
    const PathTarget target{.egress_adapter = router_.nhi_adapter,
                            .next_hop_id = status_.ip_ring,
                            .credits = status_.receive_credits};
    add(Work::kClStates, std::make_unique<ClStatesTask>(shape_));
    add(Work::kOpenIpReceive, std::make_unique<PathEntryTask>(ip_receive_entry(), target));
  } else {
    const PathTarget target{.egress_adapter = shape_.lane0, .next_hop_id = path->out_hop_id};
    add(Work::kOpenIpTransmit, std::make_unique<PathEntryTask>(ip_transmit_entry(), target));
  }
}

PathIngress Port::ip_transmit_entry() const {
  return {.adapter = router_.nhi_adapter, .hop_id = status_.ip_ring, .lane = false};
}

PathIngress Port::ip_receive_entry() const {
  return {.adapter = shape_.lane0, .hop_id = ip_entries_->in_hop_id, .lane = true};
}

void Port::opened_ip(const ConfigTask& task, bool& open) {
  if (!task.failure().empty()) {
    ip_broken_ = true;  // follow_ip() logs out
    return trouble("thunderbolt-net: " + task.failure());
  }
  open = true;
  if (!ip_transmit_open_ || ip_entries_ != ip_path()) return;
  ip_up_ = true;
  show_ip();
  events_.emplace_back(IpUp{status_.port, *status_.ip});
}

void Port::ip_down(const char* why) {
  if (std::exchange(ip_up_, false)) events_.emplace_back(IpDown{status_.port, why});
}

IpLinkState Port::ip_state() const {
  if (status_.ip_ring == 0) return IpLinkState::kNotOffered;
  if (ip_broken_) return IpLinkState::kFailed;
  if (!ip_) return IpLinkState::kStarting;
  switch (ip_->state()) {
    case IpPeerState::kConnected:
      return ip_up_ ? IpLinkState::kConnected : IpLinkState::kOpening;
    case IpPeerState::kResting:
      return IpLinkState::kResting;
    case IpPeerState::kDown:
    case IpPeerState::kLoggingOut:
      return IpLinkState::kLoggedOut;
    case IpPeerState::kClearing:
    case IpPeerState::kLoggingIn:
      break;
  }
  return IpLinkState::kLoggingIn;
}

void Port::show_ip() {
  status_.ip.reset();
  if (!peer_is_ip_only()) return;
  status_.ip = IpLinkStatus{.state = ip_state(), .ring = status_.ip_ring};
  if (ip_mac_) status_.ip->mac = *ip_mac_;
  if (ip_) status_.ip->peer_mac = ip_->peer_mac();
  if (!ip_up_) return;
  status_.ip->in_hop_id = ip_entries_->in_hop_id;
  status_.ip->out_hop_id = ip_entries_->out_hop_id;
}

bool Port::ip_closed() const noexcept {
  return !ip_entries_ && (!ip_ || ip_->state() == IpPeerState::kDown);
}

}  // namespace tbt::fabric
