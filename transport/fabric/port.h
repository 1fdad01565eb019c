// Port: one USB4 port of the router, which is one rail. It follows its link, discovers the host at
// the other end, agrees with it on a path, and keeps the two path entries in step with that.
//
// The path is not driven by events but by comparing what should be with what is: after each input
// plan() starts the one next piece of work, if none is going on. So an unplug in the middle of
// opening is only another state of affairs.
//
//   receive entry is open   while the negotiator has made an offer, or is to make one
//   transmit entry is open  while the negotiator has agreed
//   the path is up          while both are, and the flow control is settled (port_flow.cc)
//
// With a peer that runs thunderbolt-net only, the port logs in to that instead, and keeps the two
// entries of that path (port_ip.cc).
//
// A port that goes on for a daemon that was killed begins with its path as it was left: up. If the
// link, the two entries or the peer say otherwise, it goes down and comes up in the ordinary way.
//
// Internal to the connection manager, which carries accesses, packets and events.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "fabric/config_task.h"
#include "fabric/connection_manager.h"
#include "fabric/flow_negotiator.h"
#include "fabric/link_task.h"
#include "fabric/path_entry_task.h"
#include "fabric/path_negotiator.h"
#include "fabric/router_status.h"
#include "fabric/thunderbolt_ip_peer.h"
#include "fabric/xdomain_peer.h"

namespace tbt::fabric {

class Port {
 public:
  // `status` holds what is known of the port by its adapters: numbers, limits, whether it is
  // usable. Both references outlive the port.
  Port(const ManagerConfig& config, const RouterStatus& router, const PortShape& shape,
       PortStatus status);

  // `kept`: the path that the last daemon has left.
  void start(Instant now, const PathStatus* kept);
  void shutdown(Instant now);
  void handle_hot_plug(Instant now, bool unplug);
  // The router says something about the link.
  void handle_link_news(Instant now);
  void look(Instant now);
  // Of the protocols that are ours.
  void handle_packet(Instant now, const wire::tb::XDomainPacket& packet);
  void handle_result(Instant now, const ConfigResult& result);
  void handle_timeout(Instant now);
  void rail_held(Instant now, uint32_t session);
  void flow_tested(Instant now, uint32_t session, wire::tb::FlowOutcome outcome);
  // An answer to IpRingsWanted: the rings run, and this is the address of our end; or not.
  void ip_rings(Instant now, std::optional<IpMac> mac);

  // Accesses: the caller posts one and gives the ticket back.
  std::optional<ConfigAccess> poll_access(Instant now);
  void posted(uint32_t ticket) noexcept { ticket_ = ticket; }
  [[nodiscard]] uint32_t ticket() const noexcept { return ticket_; }
  bool poll_transmit(Instant now, wire::tb::XDomainPacket& out);
  bool poll_event(ManagerEvent& out);
  [[nodiscard]] Instant poll_timeout() const;

  [[nodiscard]] bool owns(uint8_t adapter) const noexcept {
    return adapter == shape_.lane0 || (adapter == shape_.lane1 && adapter != 0);
  }
  [[nodiscard]] wire::tb::Route route() const noexcept { return {shape_.lane0}; }
  [[nodiscard]] const PortStatus& status() const noexcept { return status_; }
  // After shutdown(): nothing is left to do.
  [[nodiscard]] bool closed() const noexcept;

 private:
  enum class Work : uint8_t {
    kSweep,
    kLink,
    kProbe,
    kBond,
    kClStates,
    kCheckReceive,
    kCheckTransmit,
    kClearEntry,  // of somebody who was here before
    kOpenReceive,
    kOpenTransmit,
    kCloseTransmit,
    kCloseReceive,
    kOpenIpReceive,
    kOpenIpTransmit,
    kCloseIpTransmit,
    kCloseIpReceive,
  };
  struct Job {
    Work work;
    std::unique_ptr<ConfigTask> task;
  };

  // port.cc: the link, the peer, the path as the world sees it; port_link.cc: the link
  void update(Instant now);
  void take_reading(Instant now, const LaneReading& reading);
  void lose_link(PortState state, const char* why);
  void lose_peer(const char* why);
  void take_discovery(Instant now);
  void discovery_failed();
  void read_peer(Instant now);
  void follow_service(Instant now);
  void consider_bonding(Instant now);
  void follow_bonding(Instant now, DiscoveryEvent answer);
  void bond(Instant now, bool drive);
  void look_again(Instant now);
  void widen(Instant now);
  void follow_agreement();
  void path_up();
  void path_down(const std::string& why);
  void trouble(std::string what);

  // port_flow.cc: flow control
  void follow_flow();
  void stop_flow();
  void choose_flow(PathStatus& path) const;
  void resume_flow(const wire::tb::PathEpoch& mine, const PathStatus& kept);
  [[nodiscard]] uint32_t my_features() const;
  // The rest while a path is agreed on.
  [[nodiscard]] uint32_t agreed_features() const;
  [[nodiscard]] uint32_t session() const;

  // port_ip.cc: ThunderboltIP
  [[nodiscard]] bool peer_is_ip_only() const;
  [[nodiscard]] bool wants_ip() const;
  [[nodiscard]] uint16_t ip_transmit_hop_id() const;
  void follow_ip(Instant now);
  void start_ip(Instant now);
  void stop_ip(const char* why);
  [[nodiscard]] std::optional<IpPath> ip_path() const;
  bool plan_ip_closing();
  void plan_ip_opening();
  [[nodiscard]] PathIngress ip_transmit_entry() const;
  [[nodiscard]] PathIngress ip_receive_entry() const;
  void opened_ip(const ConfigTask& task, bool& open);
  void ip_down(const char* why);
  [[nodiscard]] IpLinkState ip_state() const;
  void show_ip();
  [[nodiscard]] bool ip_closed() const noexcept;

  // port_resume.cc: going on for another daemon
  [[nodiscard]] bool can_resume(const PathStatus& kept) const;
  void resume(Instant now, const PathStatus& kept);
  void checked(const PathEntryCheck& check, bool last);

  // port_work.cc: accesses to the router
  void plan();
  void add(Work work, std::unique_ptr<ConfigTask> task);
  void finished(Instant now, Job job);
  void sweep();
  void swept(const PathSweep& sweep);
  void opened_receive(Instant now, const ConfigTask& task);
  void opened_transmit(Instant now, const ConfigTask& task);
  void closed_entry(const ConfigTask& task, const char* which);
  [[nodiscard]] wire::tb::PathOffer my_offer() const;
  [[nodiscard]] PathTarget receive_target() const;
  [[nodiscard]] PathIngress receive_entry() const;
  [[nodiscard]] PathIngress transmit_entry() const;
  [[nodiscard]] uint16_t ring() const {
    return static_cast<uint16_t>(config_.first_ring + status_.port);
  }
  [[nodiscard]] std::vector<uint32_t> property_block() const;

  const ManagerConfig& config_;
  const RouterStatus& router_;
  const PortShape shape_;
  PortStatus status_;
  XDomainPeer xdomain_;
  PathNegotiator negotiator_;
  FlowNegotiator flow_;
  uint32_t generation_ = 0;  // of our epoch
  bool link_up_ = false;
  bool relink_ = false;    // the link is to be looked at (again)
  bool probed_ = false;    // since the link is up
  bool reported_ = false;  // of the negotiator's last trouble
  bool broken_ = false;    // the router does not take our entries; until the link changes
  bool closing_ = false;
  LaneReading lanes_;
  bool bonding_ = false;  // has been tried since the link is up
  uint32_t looks_ = 0;    // at a link that is to have two lanes
  uint32_t widen_ = 0;    // more attempts to make it so
  Instant look_ = Instant::never();
  bool receive_open_ = false, transmit_open_ = false;
  uint32_t flow_session_ = 0;   // that is being tried, or was
  bool flow_due_told_ = false;  // the test was asked for
  std::optional<ThunderboltIpPeer> ip_;
  std::optional<IpMac> ip_mac_;       // our end's; the rings run
  bool ip_asked_ = false;             // for the rings
  bool ip_follows_ = false;           // the peer may be logged in to a predecessor of ours
  bool ip_broken_ = false;            // as broken_
  uint16_t ip_hop_id_ = 0;            // by which our frames leave
  std::optional<IpPath> ip_entries_;  // that are being opened, open, or being closed
  bool ip_receive_open_ = false, ip_transmit_open_ = false;
  bool ip_up_ = false;   // and said so
  bool untold_ = false;  // the path is one that was kept, and of which nothing was said yet
  std::deque<Job> jobs_;
  uint32_t ticket_ = 0;  // of the access that is outstanding; 0: none
  std::deque<ManagerEvent> events_;
};

// The first HopID that is ours to use up to both limits; 0 if there is none.
uint16_t first_hop_id(uint16_t limit, uint16_t peer_limit) noexcept;

}  // namespace tbt::fabric
