// XDomainPeer: one cable's end of the discovery protocol, asking (XDomainRequester) and answering.
// It stands between the control channel, which gives it packets, and the connection manager, which
// hears who was found.
//
// Answering needs no state but our own block of properties and the state of our lanes. Requests of
// kinds that we do not serve, lane bonding among them as long as nothing is known of the lanes, are
// answered with kNotSupported, which Linux takes for "go on without".
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/time.h"
#include "fabric/xdomain_requester.h"
#include "wire/tb/control_packet.h"
#include "wire/tb/xdomain.h"

namespace tbt::fabric {

struct PeerStats {
  uint64_t requests = 0;  // of the peer, answered
  uint64_t malformed = 0;
  uint64_t foreign = 0;    // another route or protocol
  uint64_t overflows = 0;  // requests dropped, because too many answers were waiting
};

class XDomainPeer {
 public:
  // `route` leads from this host's router to the peer.
  XDomainPeer(const wire::tb::Uuid& self, wire::tb::Route route)
      : self_(self), route_(route), requester_(self) {}

  void link_up(Instant now) { requester_.start(now); }
  void link_down();
  // 1..kPropertyBlockMax words. Until the first call the peer is told that we are not ready.
  void set_properties(Instant now, std::vector<uint32_t> block);

  void handle_packet(Instant now, const wire::tb::XDomainPacket& packet);
  // What is said of our lanes when the peer asks. `may_change`: it may ask for two lanes, too.
  void set_link_state(const wire::tb::LinkStateStatusResponse& state, bool may_change) {
    link_state_ = state;
    may_change_ = may_change;
  }
  // What the peer asked for and was granted, once.
  std::optional<wire::tb::LinkStateChangeRequest> take_link_change() {
    return std::exchange(link_change_, std::nullopt);
  }
  void ask_link_status(Instant now) { requester_.ask_link_status(now); }
  void ask_link_change(Instant now, const wire::tb::LinkStateChangeRequest& change) {
    requester_.ask_link_change(now, change);
  }

  // The peer speaks another protocol than this one.
  void handle_sign_of_life(Instant now) { requester_.handle_sign_of_life(now); }
  void handle_timeout(Instant now) { requester_.handle_timeout(now); }

  bool poll_transmit(Instant now, wire::tb::XDomainPacket& out);
  std::optional<DiscoveryEvent> poll_event() { return requester_.poll_event(); }
  [[nodiscard]] Instant poll_timeout() const { return requester_.poll_timeout(); }

  [[nodiscard]] const XDomainRequester& discovery() const noexcept { return requester_; }
  [[nodiscard]] const PeerStats& stats() const noexcept { return stats_; }

 private:
  void handle_request(Instant now, const wire::tb::XDomainMessage& request, uint8_t sequence);
  [[nodiscard]] wire::tb::XDomainMessage answer_to(const wire::tb::XDomainMessage& request) const;
  void owe(const wire::tb::XDomainMessage& answer, uint8_t sequence);

  wire::tb::Uuid self_;
  wire::tb::Route route_;
  XDomainRequester requester_;
  std::vector<uint32_t> block_;
  uint32_t generation_ = 0;
  std::optional<wire::tb::LinkStateStatusResponse> link_state_;
  bool may_change_ = false;
  std::optional<wire::tb::LinkStateChangeRequest> link_change_;
  std::deque<wire::tb::XDomainPacket> answers_;
  PeerStats stats_;
};

}  // namespace tbt::fabric
