// ThunderboltIpPeer: one cable's end of the login by which two hosts bring up a network interface
// over a cable (Linux: thunderbolt-net), without I/O. A host without our software then sees a peer
// that speaks its protocol. Only the login: frames are the owner's affair, who opens the path that
// path() names and moves them by a ring pair of its own.
//
// Inputs:  start, stop, log_out, handle_packet, handle_timeout. They never call out.
// Outputs: poll_transmit, poll_timeout, path(); ask after each input.
//
//   kClearing -- logout answered, or not -.      (only if we follow somebody)
//                                         v
//            our login answered -.
//   kLoggingIn ----------------- both --> kConnected -- logout of the peer --> kResting
//            peer's login came --'            ^--------- login of the peer -------'
//
// Each host names the HopID by which its frames will come. So the peer's login tells us by which
// HopID to receive, and there is a path only when both logins have been sent and answered.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>

#include "base/time.h"
#include "wire/tb/thunderbolt_ip.h"

namespace tbt::fabric {

inline constexpr Duration kIpLoginTimeout = Duration::from_ms(500);   // for the answer
inline constexpr Duration kIpLoginDelay = Duration::from_ms(4500);    // after that, until the next
inline constexpr uint32_t kIpLogins = 60;                             // in a row, without answer
inline constexpr Duration kIpLogoutTimeout = Duration::from_ms(200);  // so that we end soon
inline constexpr uint32_t kIpLogouts = 3;
// After a logout with which we have begun: Linux takes its end down behind its answer, and would
// forget a login that came meanwhile.
inline constexpr Duration kIpSettle = Duration::from_ms(1000);

enum class IpPeerState : uint8_t {
  kDown,
  kClearing,  // the peer may believe in a connection to a predecessor of ours: it is logged out
  kLoggingIn,
  kConnected,
  kResting,  // the peer has logged out, or does not answer; its login begins anew
  kLoggingOut,
};
const char* ip_peer_state_name(IpPeerState state) noexcept;

// Frames leave by `out_hop_id` and come by `in_hop_id`, both on the cable.
struct IpPath {
  uint16_t out_hop_id = 0, in_hop_id = 0;
  friend bool operator==(const IpPath&, const IpPath&) = default;
};

struct IpPeerConfig {
  wire::tb::Uuid self;
  uint16_t transmit_path = 0;  // the HopID by which our frames will come; 1..wire::tb::kHopIdMax
  std::array<uint8_t, 6> mac{};
};

struct IpPeerStats {
  uint64_t logins_sent = 0;
  uint64_t logins_answered = 0;  // of the peer, by us
  uint64_t timeouts = 0;
  uint64_t malformed = 0;
  uint64_t foreign = 0;    // from or for another host, or while we are down
  uint64_t unasked = 0;    // answers to no question
  uint64_t overflows = 0;  // not answered, because too many answers were waiting
};

class ThunderboltIpPeer {
 public:
  explicit ThunderboltIpPeer(IpPeerConfig config);

  // `peer` offers the service. Again for the same peer is nothing. `follows`: we go on for somebody
  // who was killed, so the peer is logged out first.
  void start(Instant now, const wire::tb::Uuid& peer, bool follows = false);
  // The cable or the peer is gone: nothing is said any more.
  void stop();
  // Tells the peer; in bounded time the state is kDown.
  void log_out(Instant now);

  // Of the protocol kThunderboltIpProtocol.
  void handle_packet(Instant now, const wire::tb::XDomainPacket& packet);
  void handle_timeout(Instant now);

  // The route is the sender's to set.
  bool poll_transmit(Instant now, wire::tb::XDomainPacket& out);
  [[nodiscard]] Instant poll_timeout() const noexcept;

  [[nodiscard]] IpPeerState state() const noexcept { return state_; }
  // What is to be open now. Another one: first close, then open.
  [[nodiscard]] std::optional<IpPath> path() const noexcept;
  [[nodiscard]] const std::array<uint8_t, 6>& peer_mac() const noexcept { return peer_mac_; }
  [[nodiscard]] const IpPeerStats& stats() const noexcept { return stats_; }

 private:
  enum class Question : uint8_t { kNone, kLogin, kLogout };

  void on(Instant now, const wire::tb::IpLogin& login);
  void on(Instant now, const wire::tb::IpLoginResponse& response);
  void on(Instant now, const wire::tb::IpLogout& logout);
  void on(Instant now, const wire::tb::IpStatus& status);
  void cleared(Instant now);
  void log_in(Instant now);
  void log_in_later(Instant now);
  void consider_connected();
  void rest();
  void answer(decltype(wire::tb::IpMessage::content) content, uint8_t sequence);
  [[nodiscard]] wire::tb::XDomainPacket packet_of(decltype(wire::tb::IpMessage::content) content,
                                                  uint8_t sequence);

  IpPeerConfig config_;
  IpPeerState state_ = IpPeerState::kDown;
  wire::tb::Uuid peer_;
  bool login_answered_ = false;      // ours, by the peer
  uint16_t peer_transmit_path_ = 0;  // from its login; 0: none has come
  std::array<uint8_t, 6> peer_mac_{};
  uint32_t tries_ = 0;  // of the question in this row
  Question outstanding_ = Question::kNone;
  Instant deadline_ = Instant::never();  // for the answer
  Question next_ = Question::kNone;      // to be asked at `due_`
  Instant due_ = Instant::never();
  Instant last_login_ = Instant::never();
  uint32_t command_id_ = 0;
  uint8_t request_sequence_ = 0;  // of the packet being answered
  std::deque<wire::tb::XDomainPacket> answers_;
  IpPeerStats stats_;
};

}  // namespace tbt::fabric
