// What the connection manager knows of its router, its ports, the peers and the paths: the values
// that it reports, for the daemon and for `tbt devices` and `tbt topo`. Plain data.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wire/tb/flow_agreement.h"
#include "wire/tb/service.h"
#include "wire/tb/uuid.h"

namespace tbt::fabric {

enum class RouterState : uint8_t {
  kStopped,
  kStarting,
  kReady,
  kRefused,  // RouterStatus::refusal says why
  kClosing,  // paths are being withdrawn and cleared
  kClosed,
};

enum class PortState : uint8_t {
  kUnknown,
  kUnplugged,
  kTraining,  // something is plugged, the lane is not up yet
  kUp,
  kDisabled,
  kForeign,  // a router (a dock, a disk) is at the other end, not a host
  kFailed,   // PortStatus::trouble says why
};

// A host at the other end of a cable.
struct PeerStatus {
  wire::tb::Uuid uuid;
  std::string vendor_name;
  std::string host_name;
  uint16_t max_hop_id = 15;
  std::vector<wire::tb::ServiceInfo> services;
  wire::tb::ServiceError tbt_error = wire::tb::ServiceError::kAbsent;
  wire::tb::TbtService tbt;      // valid if runs_tbt()
  bool thunderbolt_net = false;  // it offers ThunderboltIP

  [[nodiscard]] bool runs_tbt() const noexcept {
    return tbt_error == wire::tb::ServiceError::kNone;
  }
};

// Why a path has the flow control that it has.
enum class FlowReason : uint8_t {
  kOffered,      // the ends have no other in common
  kTested,       // the hardware's credits were tried, and work
  kFailedHere,   // and do not: what was to wait was lost, or never came, at this end
  kFailedThere,  // at the peer's
};

// Frames may be sent by transmit ring `tx_ring`, and come to receive ring `rx_ring`.
struct PathStatus {
  uint32_t port = 0;  // the rail
  uint16_t tx_ring = 0, rx_ring = 0;
  uint16_t in_hop_id = 0, out_hop_id = 0;  // on the cable
  wire::tb::Uuid peer;
  uint64_t peer_incarnation = 0;
  uint8_t peer_rail = 0;           // its number of this cable
  uint16_t peer_ring_entries = 0;  // of its receive ring
  uint32_t peer_max_frame = 0;     // bytes
  uint32_t peer_settings = 0;      // wire::tb::TbtServiceSettings
  uint32_t features = 0;           // wire::tb::PathFeature that both ends have
  // The rest of the agreement, for a daemon that goes on with it.
  uint32_t generation = 0, peer_generation = 0;  // of the ends' epochs
  uint32_t peer_features = 0;
  wire::tb::PathFlow flow = wire::tb::PathFlow::kNone;
  FlowReason flow_reason = FlowReason::kOffered;
  uint32_t session = 0;  // of its credit frames; 0 unless `flow` is kCredits
};

using IpMac = std::array<uint8_t, 6>;

// How far ThunderboltIP is with a peer that runs nothing else.
enum class IpLinkState : uint8_t {
  kNotOffered,  // there are no rings for it
  kStarting,    // its rings are being started
  kLoggingIn,   // the peer's interface may be down
  kOpening,     // both have logged in
  kConnected,   // frames pass
  kResting,     // the peer has logged out, or has not answered for long; its login begins anew
  kLoggedOut,   // by us
  kFailed,      // PortStatus::trouble says why
};

struct IpLinkStatus {
  IpLinkState state = IpLinkState::kNotOffered;
  uint16_t ring = 0;                       // the pair; 0: none
  uint16_t in_hop_id = 0, out_hop_id = 0;  // on the cable, while connected
  IpMac mac{}, peer_mac{};                 // zeros: not known
};

struct PortStatus {
  uint32_t port = 0;          // k: the rail
  uint8_t adapter = 0;        // of lane 0
  uint8_t lane1_adapter = 0;  // 0: none
  PortState state = PortState::kUnknown;
  uint32_t speed_gbps = 0;  // of one lane; 0 while the link is down
  uint32_t lanes = 0;       // that carry frames; 0 while the link is down
  bool usable = false;      // there are rings and HopIDs for it
  uint16_t max_in_hop_id = 0, max_out_hop_id = 0;
  uint32_t receive_credits = 0;
  std::string trouble;  // why it is not usable, or what failed last
  std::optional<PeerStatus> peer;
  std::optional<PathStatus> path;  // while it is up
  uint16_t ip_ring = 0;            // for ThunderboltIP; 0: it is not offered
  std::optional<IpLinkStatus> ip;  // of a peer with which there is nothing else
};

struct RouterStatus {
  RouterState state = RouterState::kStopped;
  std::string refusal;
  uint16_t vendor_id = 0, device_id = 0;
  uint32_t usb4_version = 0;  // 1 or 2
  uint8_t upstream_adapter = 0, max_adapter = 0;
  uint8_t nhi_adapter = 0;
  uint16_t nhi_hop_id_max = 0;  // the highest ring by the NHI adapter
  wire::tb::Uuid uuid;
  std::optional<uint32_t> max_hi_credits;  // what the router grants to a host interface's path
  std::vector<PortStatus> ports;
};

const char* router_state_name(RouterState state) noexcept;
const char* port_state_name(PortState state) noexcept;
const char* ip_link_state_name(IpLinkState state) noexcept;
const char* flow_reason_text(FlowReason reason) noexcept;

}  // namespace tbt::fabric
