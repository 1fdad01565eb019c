#include "fabric/port.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "wire/tb/thunderbolt_ip.h"

namespace tbt::fabric {

namespace {

constexpr size_t kHostNameMax = 63;

}  // namespace

uint16_t first_hop_id(uint16_t limit, uint16_t peer_limit) noexcept {
  const uint16_t last = std::min(limit, peer_limit);
  return last >= wire::tb::kPathHopIdMin ? wire::tb::kPathHopIdMin : 0;
}

Port::Port(const ManagerConfig& config, const RouterStatus& router, const PortShape& shape,
           PortStatus status)
    : config_(config),
      router_(router),
      shape_(shape),
      status_(std::move(status)),
      xdomain_(router.uuid, route()),
      negotiator_(router.uuid, route()),
      flow_(router.uuid, route()),
      generation_(config.generation),
      ip_follows_(config.generation != 0) {}

std::vector<uint32_t> Port::property_block() const {
  wire::tb::HostProperties host;
  host.device_name =
      config_.host_name.substr(0, std::min(config_.host_name.find('\0'), kHostNameMax));
  host.max_hop_id = status_.max_in_hop_id;
  wire::tb::PropertyDirectory root = host_directory(host);
  if (status_.usable) {
    wire::tb::TbtService service = config_.service;
    const bool e2e = (my_features() & wire::tb::kPathFeatureE2e) != 0;
    service.settings = e2e ? uint32_t{wire::tb::kTbtSettingE2e} : 0;
    add_tbt_service(service, root);
  }
  if (status_.ip_ring != 0) {
    wire::tb::PropertyDirectory network;
    network.uuid = wire::tb::kThunderboltIpServiceUuid;
    network.add("prtcid", 1u);
    network.add("prtcvers", wire::tb::kThunderboltIpVersion);
    network.add("prtcrevs", 1u);
    network.add("prtcstns", wire::tb::kThunderboltIpSettings);
    root.add(wire::tb::kThunderboltIpServiceKey, std::move(network));
  }
  std::vector<uint32_t> block;
  const wire::tb::PropertyError error = build_property_block(root, block);
  TBT_ASSERT(error == wire::tb::PropertyError::kNone);
  return block;
}

void Port::start(Instant now, const PathStatus* kept) {
  xdomain_.set_properties(now, property_block());
  if (kept != nullptr) {
    if (can_resume(*kept)) return resume(now, *kept);
    events_.emplace_back(PathDown{status_.port, "what the last daemon has left is of no use"});
  }
  // Whoever was here before us may have left paths open.
  if (ring() <= router_.nhi_hop_id_max) {
    add(Work::kClearEntry, std::make_unique<PathEntryTask>(transmit_entry(), std::nullopt));
  }
  if (status_.ip_ring != 0) {
    add(Work::kClearEntry, std::make_unique<PathEntryTask>(ip_transmit_entry(), std::nullopt));
  }
  sweep();
  add(Work::kLink, std::make_unique<LinkTask>(shape_));
}

void Port::shutdown(Instant now) {
  if (closing_) return;
  closing_ = true;
  path_down("shut down");
  negotiator_.withdraw(now);
  xdomain_.link_down();
  look_ = Instant::never();
  // What is being opened or closed is brought to its end; nothing else matters any more.
  const auto superfluous = [](const Job& job) { return job.work < Work::kClearEntry; };
  if (!jobs_.empty() && superfluous(jobs_.front())) ticket_ = 0;  // nobody waits for its result
  std::erase_if(jobs_, superfluous);
  update(now);
}

bool Port::closed() const noexcept {
  return closing_ && jobs_.empty() && !receive_open_ && !transmit_open_ &&
         !negotiator_.withdrawing() && ip_closed();
}

void Port::handle_hot_plug(Instant now, bool unplug) {
  if (unplug) lose_link(PortState::kUnplugged, "the cable was pulled");
  handle_link_news(now);
}

void Port::handle_link_news(Instant now) {
  relink_ = true;
  update(now);
}

void Port::handle_packet(Instant now, const wire::tb::XDomainPacket& packet) {
  // Nothing comes over a link that is out: we have missed that it was plugged.
  if (!link_up_) relink_ = true;
  if (packet.protocol == wire::tb::kPathProtocol) {
    xdomain_.handle_sign_of_life(now);
    if (link_up_ || closing_) negotiator_.handle_packet(now, packet);
  } else if (packet.protocol == wire::tb::kFlowProtocol) {
    xdomain_.handle_sign_of_life(now);
    flow_.handle_packet(packet);
  } else if (packet.protocol == wire::tb::kThunderboltIpProtocol) {
    xdomain_.handle_sign_of_life(now);
    if (ip_) ip_->handle_packet(now, packet);
  } else {
    xdomain_.handle_packet(now, packet);
  }
  update(now);
}

void Port::handle_timeout(Instant now) {
  xdomain_.handle_timeout(now);
  negotiator_.handle_timeout(now);
  if (ip_) ip_->handle_timeout(now);
  look_again(now);
  update(now);
}

bool Port::poll_transmit(Instant now, wire::tb::XDomainPacket& out) {
  if (xdomain_.poll_transmit(now, out) || negotiator_.poll_transmit(now, out) ||
      flow_.poll_transmit(now, out)) {
    follow_agreement();
    return true;
  }
  if (!ip_ || !ip_->poll_transmit(now, out)) return false;
  out.route = route();
  return true;
}

bool Port::poll_event(ManagerEvent& out) {
  if (events_.empty()) return false;
  out = std::move(events_.front());
  events_.pop_front();
  return true;
}

Instant Port::poll_timeout() const {
  Instant next =
      std::min({xdomain_.poll_timeout(), negotiator_.poll_timeout(), flow_.poll_timeout(), look_});
  if (ip_) next = std::min(next, ip_->poll_timeout());
  if (!jobs_.empty()) next = std::min(next, jobs_.front().task->poll_timeout());
  return next;
}

void Port::update(Instant now) {
  take_discovery(now);
  if (const auto change = xdomain_.take_link_change()) bond(now, false);
  follow_agreement();
  follow_flow();
  follow_ip(now);
  plan();
}

void Port::lose_peer(const char* why) {
  path_down(why);
  negotiator_.stop();
  stop_ip(why);
  if (!status_.peer) return;
  status_.peer.reset();
  events_.emplace_back(PeerLost{status_.port});
}

void Port::take_discovery(Instant now) {
  while (const auto event = xdomain_.poll_event()) {
    switch (*event) {
      case DiscoveryEvent::kFound:
        if (status_.state == PortState::kForeign) {
          status_.state = PortState::kUp;
          events_.emplace_back(PortChanged{status_});
        }
        if (status_.peer && status_.peer->uuid != xdomain_.discovery().peer()) {
          lose_peer("another host is at the other end");
        }
        break;
      case DiscoveryEvent::kProperties:
        read_peer(now);
        break;
      case DiscoveryEvent::kFailed:
        discovery_failed();
        break;
      case DiscoveryEvent::kLinkStatus:
      case DiscoveryEvent::kLinkChange:
        follow_bonding(now, *event);
        break;
    }
  }
}

void Port::discovery_failed() {
  const DiscoveryFailure failure = xdomain_.discovery().failure();
  trouble(std::string("discovery: ") + discovery_failure_name(failure));
  if (failure != DiscoveryFailure::kNoAnswer) {
    lose_peer("the peer cannot be read any more");
  } else if (!status_.peer && !probed_) {
    // It may be no host at all, or a lock that we have not seen close.
    probed_ = true;
    relink_ = true;
    add(Work::kProbe, std::make_unique<RouterProbe>(route()));
  }
}

void Port::read_peer(Instant now) {
  const wire::tb::PropertyDirectory& root = *xdomain_.discovery().properties();
  PeerStatus peer;
  peer.uuid = *xdomain_.discovery().peer();
  wire::tb::HostProperties host;
  if (read_host(root, host)) {
    peer.vendor_name = host.vendor_name;
    peer.host_name = host.device_name;
    peer.max_hop_id = host.max_hop_id;
  }
  peer.services = list_services(root);
  peer.tbt_error = read_tbt_service(root, peer.tbt);
  peer.thunderbolt_net = std::ranges::any_of(peer.services, [](const auto& service) {
    return service.key == wire::tb::kThunderboltIpServiceKey && service.protocol_id == 1;
  });
  status_.peer = peer;
  events_.emplace_back(PeerFound{status_.port, std::move(peer)});
  follow_service(now);
  consider_bonding(now);
}

void Port::follow_service(Instant now) {
  const PeerStatus& peer = *status_.peer;
  const bool running = negotiator_.state() != AgreementState::kIdle;
  if (!status_.usable || !peer.runs_tbt()) {
    if (!running) return;
    path_down("the peer offers our service no longer");
    negotiator_.withdraw(now);
    return;
  }
  if (first_hop_id(status_.max_in_hop_id, peer.max_hop_id) == 0) {
    trouble("no HopID that both hosts can use");
    path_down("no HopID that both hosts can use");
    if (running) negotiator_.withdraw(now);
    return;
  }
  if (!running && !closing_ && !broken_) {
    ++generation_;
    reported_ = false;
    negotiator_.start(peer.uuid, {config_.incarnation, generation_}, status_.max_out_hop_id);
    return;
  }
  if (!status_.path) return;
  if (status_.path->peer_max_frame == peer.tbt.max_frame &&
      status_.path->peer_settings == peer.tbt.settings) {
    return;
  }
  // The same path under other terms; follow_flow() says so.
  path_down("the peer's service has changed");
}

void Port::follow_agreement() {
  if (status_.path && !negotiator_.agreed()) path_down(negotiator_.failure());
  const bool refused = negotiator_.state() == AgreementState::kRefused;
  const bool unanswered = negotiator_.unanswered();
  if (!refused && !unanswered && !flow_.unanswered()) {
    reported_ = false;
  } else if (!std::exchange(reported_, true)) {
    trouble(refused      ? negotiator_.failure()
            : unanswered ? "the peer does not answer the path agreement"
                         : "the peer does not come to an end of the flow agreement");
  }
}

void Port::path_up() {
  const wire::tb::PathOffer& theirs = *negotiator_.agreed();
  status_.trouble.clear();
  status_.path = PathStatus{.port = status_.port,
                            .tx_ring = ring(),
                            .rx_ring = ring(),
                            .in_hop_id = receive_entry().hop_id,
                            .out_hop_id = theirs.hop_id,
                            .peer = status_.peer->uuid,
                            .peer_incarnation = theirs.epoch.incarnation,
                            .peer_rail = theirs.rail,
                            .peer_ring_entries = theirs.ring_entries,
                            .peer_max_frame = status_.peer->tbt.max_frame,
                            .peer_settings = status_.peer->tbt.settings,
                            .generation = negotiator_.epoch().generation,
                            .peer_generation = theirs.epoch.generation,
                            .peer_features = theirs.features};
  choose_flow(*status_.path);
  events_.emplace_back(PathUp{*status_.path});
}

void Port::path_down(const std::string& why) {
  if (!status_.path) return;
  status_.path.reset();
  untold_ = false;
  events_.emplace_back(PathDown{status_.port, why});
}

void Port::trouble(std::string what) {
  status_.trouble = std::move(what);
  events_.emplace_back(
      ManagerWarning{"port " + std::to_string(status_.port) + ": " + status_.trouble});
}

}  // namespace tbt::fabric
