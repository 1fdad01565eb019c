// ConnectionManager: what the kernel's thunderbolt driver would do with a host router, for a
// controller that we drive ourselves, without I/O. It sets up the router and its ports, finds the
// hosts at the other ends of the cables (XDomain), agrees with those that run this project on
// HopIDs, and programs the paths by which frames then go from ring to ring.
//
// Inputs:  start, shutdown, rail_held, flow_tested, ip_rings, handle_packet, handle_timeout, look.
//          They never call out.
// Outputs: poll_transmit (packets for ring 0), poll_event, poll_timeout; ask until empty after each
//          input.
//
// Port k, in the order of the lane adapters, is rail k and uses transmit and receive ring
// first_ring + k of the NHI. The rings must be running before start(), and until is_closed() after
// shutdown(): the manager opens paths when both hosts are ready, and a path into a ring that stands
// still holds up or loses frames. The rings for ThunderboltIP, another pair per port, are asked for
// when a peer is found that runs thunderbolt-net only, and from then on likewise.
//
//            RouterSetup -- once -.
//   ring 0 -- ControlChannel ---- ConnectionManager ---- Port 0..P-1: LinkSetup, XDomainPeer,
//                                                         PathNegotiator, FlowNegotiator,
//                                                         PathEntryTask
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/time.h"
#include "fabric/control_channel.h"
#include "fabric/router_status.h"
#include "wire/tb/control_packet.h"
#include "wire/tb/flow_agreement.h"
#include "wire/tb/service.h"

namespace tbt::fabric {

class Port;
class RouterSetup;

struct ManagerConfig {
  std::string host_name;
  uint64_t incarnation = 1;  // random, not 0; the same as the host agent's
  // Of the rails: port k has ring pair first_ring + k, if that is below ring_pairs; the NHI
  // adapter's limit counts too.
  uint32_t first_ring = 1, ring_pairs = 32;
  uint16_t ring_entries = 256;  // of each receive ring
  wire::tb::TbtService service;
  // Ring pairs for ThunderboltIP: port k, below the count, has the first one + k, and offers the
  // service. Beyond those of the rails.
  uint32_t first_ip_ring = 0, ip_rings = 0;
  // wire::tb::PathFeature: how our ends may be kept from sending too much.
  uint32_t flow_features = wire::tb::kPathFeatureE2e | wire::tb::kPathFeatureCredits;
  // Of a manager that goes on for another one of the same incarnation, whose paths carry frames:
  // those paths. They count as up from the start; each is told of as up or down once it is looked
  // at.
  std::vector<PathStatus> kept;
  // Paths that it makes itself count on from here; no manager before it has come so far.
  uint32_t generation = 0;
};

struct RouterReady {};  // the ports are known: status().ports
// The controller is left alone from here on.
struct RouterRefused {
  std::string text;
};
// Anything of a port's link: state, speed, lanes.
struct PortChanged {
  PortStatus status;
};
// A host has been found, or says something else of itself.
struct PeerFound {
  uint32_t port = 0;
  PeerStatus peer;
};
struct PeerLost {
  uint32_t port = 0;
};
// The path is open, and the hardware's end-to-end credits are to be tried on it: its rail is to be
// held by the daemon, which is answered with rail_held().
struct FlowTestWanted {
  uint32_t port = 0;
  uint32_t session = 0;
};
// Both ends hold their rails: the test is to be run, and answered with flow_tested().
struct FlowTestDue {
  uint32_t port = 0;
  uint32_t session = 0;
};
// No answer is wanted any more.
struct FlowTestOver {
  uint32_t port = 0;
};
// Frames may pass, once the rail runs with the path's flow control.
struct PathUp {
  PathStatus path;
};
struct PathDown {
  uint32_t port = 0;
  std::string why;
};
// To be answered with ip_rings().
struct IpRingsWanted {
  uint32_t port = 0;
  uint16_t ring = 0;
};
struct IpUp {
  uint32_t port = 0;
  IpLinkStatus link;
};
struct IpDown {
  uint32_t port = 0;
  std::string why;
};
struct ManagerWarning {
  std::string text;
};
using ManagerEvent = std::variant<RouterReady, RouterRefused, PortChanged, PeerFound, PeerLost,
                                  FlowTestWanted, FlowTestDue, FlowTestOver, PathUp, PathDown,
                                  IpRingsWanted, IpUp, IpDown, ManagerWarning>;

class ConnectionManager {
 public:
  explicit ConnectionManager(ManagerConfig config);
  ~ConnectionManager();
  ConnectionManager(const ConnectionManager&) = delete;
  ConnectionManager& operator=(const ConnectionManager&) = delete;

  void start(Instant now);
  // Tells the peers and clears the paths; in bounded time is_closed() is true.
  void shutdown(Instant now);
  // Answers to FlowTestWanted and FlowTestDue; late ones, of another session, change nothing.
  void rail_held(Instant now, uint32_t port, uint32_t session);
  void flow_tested(Instant now, uint32_t port, uint32_t session, wire::tb::FlowOutcome outcome);
  // The rings for ThunderboltIP of `port` run, under this address; or they cannot.
  void ip_rings(Instant now, uint32_t port, std::optional<IpMac> mac);

  // `pdf` is the EOF PDF of the descriptor.
  void handle_packet(Instant now, uint8_t pdf, std::span<const std::byte> bytes);
  void handle_timeout(Instant now);
  // Looks at the links that are up. To be called now and then: nothing tells of a link that has
  // become slower or narrower.
  void look(Instant now);

  bool poll_transmit(Instant now, wire::tb::ControlFrame& out);
  bool poll_event(ManagerEvent& out);
  [[nodiscard]] Instant poll_timeout() const;

  [[nodiscard]] bool is_closed() const noexcept { return status_.state == RouterState::kClosed; }
  [[nodiscard]] RouterStatus status() const;
  [[nodiscard]] const ChannelStats& channel_stats() const noexcept { return channel_.stats(); }

 private:
  void refuse(std::string text);
  void handle_event(Instant now, const ChannelEvent& event);
  void router_known(Instant now);
  void work(Instant now);
  void handle_message(Instant now, const wire::tb::XDomainPacket& packet);
  Port* port_of_adapter(uint8_t adapter);
  // The paths of ports that are not there are down, too.
  void drop_kept(const std::string& why);
  void post_accesses(Instant now);

  ManagerConfig config_;
  ControlChannel channel_;
  RouterStatus status_;
  std::unique_ptr<RouterSetup> setup_;
  uint32_t setup_ticket_ = 0;
  std::vector<std::unique_ptr<Port>> ports_;
  std::deque<ManagerEvent> events_;
};

}  // namespace tbt::fabric
