// XDomainPeer: one cable's end of the discovery protocol, asking (XDomainRequester) and answering.
// It stands between the control channel, which gives it packets, and the connection manager, which
// hears who was found.
//
// Answering needs no state but our own block of properties. Requests of kinds that we do not serve,
// lane bonding among them, are answered with kNotSupported, which Linux takes for "go on without".
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
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
  std::deque<wire::tb::XDomainPacket> answers_;
  PeerStats stats_;
};

}  // namespace tbt::fabric
