// HostAgent: what a host's daemon knows and decides, without I/O: it says hello on each cable,
// watches the peers' heartbeats, spreads the news of dead processes, and writes all that down in a
// DirectoryData.
//
// Inputs:  handle_message, handle_link, handle_process_gone, handle_timeout, handle_shutdown. They
// never
//          call out. Messages come with the tag of their frame, whose check has been verified.
// Outputs: poll_transmit, poll_event, take_directory_change, poll_timeout; ask until empty after
// each input.
//
// A link is up when this host knows the peer's incarnation and has proof that the peer knows its
// own: a hello that names it, or any message under the session's tag. When none of our heartbeats
// was answered for kSilentAfter it is silent (also if the cable carries in one direction only):
// nobody connects over it, but the session's tag stands and what is connected goes on by its own
// timers, until the same peer answers a hello or kSilenceMost has passed and the link is down.
// A peer's incarnation that has said farewell, or was followed by another, is never listened to
// again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "base/time.h"
#include "fabric/directory.h"
#include "wire/control.h"

namespace tbt::fabric {

inline constexpr Duration kHeartbeatInterval = Duration::from_ms(250);
// Until the last one is answered: a cable that loses a third of the frames, or a ring that is full
// for a moment, is not silence.
inline constexpr Duration kHeartbeatAgain = Duration::from_ms(50);
inline constexpr Duration kSilentAfter = Duration::from_s(1);
inline constexpr uint32_t kHeartbeatMisses = 4;  // and so many: it may be us who stood still
// An answer to one further back than this proves nothing.
inline constexpr uint32_t kHeartbeatsRemembered = 20;
// So long a link may be silent before it is down and the connections over it end. Much longer than
// a daemon needs to come back, and than a process is usually stopped for: one that was stopped
// while it held a lock of the host's rings holds up the daemon's frames as well as everybody's.
inline constexpr Duration kSilenceMost = Duration::from_s(10);
// Hello is repeated fast at first (the peer's rings may come up a moment later), then with the
// heartbeats.
inline constexpr Duration kHelloInterval = Duration::from_ms(50);
inline constexpr uint32_t kFastHellos = 20;
inline constexpr uint32_t kHandshakeTag = 0;  // of hello and refusal: a session's tag is never 0
inline constexpr Duration kRefusedInterval = Duration::from_s(1);
// A ProcessGone is said seven times in all, because nothing acknowledges it and a dying process may
// leave the ring full; often enough that the peers know within 100 ms.
inline constexpr Duration kGoneInterval = Duration::from_ms(15);
inline constexpr uint32_t kGoneRepeats = 6;
// So many of the last departures of this host are said again to a peer that may have missed them:
// by a daemon that follows a killed one, and when a peer that was silent says hello.
inline constexpr uint64_t kGoneAgain = 16;

struct AgentCable {
  uint8_t number = 0;  // the fabric's number of it
  bool plugged = true;
  uint32_t speed_gbps = 0;
};

struct AgentConfig {
  std::string fabric_name;
  std::string host_name;
  uint32_t host_index = 0;
  uint64_t incarnation = 0;  // random, not 0
  uint16_t vendor_id = 0;
  uint16_t device_id = 0;
  std::vector<AgentCable> cables;
};

struct ControlOutput {
  uint32_t cable = 0;
  uint32_t tag = 0;
  std::vector<std::byte> message;
};

struct AgentEvent {
  bool warning = false;
  std::string text;
};

struct AgentStats {
  uint64_t messages = 0;
  uint64_t malformed = 0;
  uint64_t stale = 0;    // wrong tag or incarnation
  uint64_t refused = 0;  // hellos that we refused
  uint64_t heartbeats_missed = 0;
};

class HostAgent {
 public:
  HostAgent(const AgentConfig& config, Instant now);
  // Goes on for a daemon that was killed: `before` is its directory (recover_directory), and
  // config.incarnation is the one that stands there. The peers need not notice.
  HostAgent(const AgentConfig& config, const DirectoryData& before, Instant now);

  void handle_message(Instant now, uint32_t cable, uint32_t tag,
                      std::span<const std::byte> message);
  void handle_link(Instant now, uint32_t cable, bool plugged, uint32_t speed_gbps);
  void handle_process_gone(Instant now, const wire::ProcessGone& gone);
  // The controller is gone: so are all links, and nothing can be said any more.
  void handle_controller_lost(Instant now);
  // Gives a port of this host (an index of directory().ports) another GID, or takes it away; the
  // peers are told. ENODEV: no such port. EADDRINUSE: somebody has it. ENOSPC: the port has as many
  // as it can. ENOENT: it has no such GID beside its own two.
  Status change_gid(Instant now, uint32_t port, const wire::GidBytes& gid, bool present);
  void handle_timeout(Instant now);
  void handle_shutdown(Instant now);

  bool poll_transmit(ControlOutput& out);
  bool poll_event(AgentEvent& out);
  // True once after each change of directory().
  bool take_directory_change();
  [[nodiscard]] Instant poll_timeout() const;

  [[nodiscard]] const DirectoryData& directory() const { return directory_; }
  [[nodiscard]] const AgentStats& stats() const { return stats_; }

 private:
  struct Link {
    Instant next_send{};            // of a hello or a heartbeat
    uint32_t hellos = 0;            // since the link began to connect
    uint64_t peer_incarnation = 0;  // 0: never heard of one
    uint64_t sequence = 0;          // of the last heartbeat sent
    uint32_t unanswered = 0;        // of the last heartbeats
    Instant unanswered_since{};     // when the first of them was sent
    Instant silent_since{};
    bool refused = false;
    uint32_t identities = 0;  // so many more hellos that tell of our GIDs
  };
  struct GoneNews {
    wire::ProcessGone message;
    uint32_t left = 0;
    Instant next_send{};
  };

  void on(Instant now, uint32_t cable, uint32_t tag, const wire::Hello& hello);
  void on(Instant now, uint32_t cable, uint32_t tag, const wire::Refuse& refuse);
  void on(Instant now, uint32_t cable, uint32_t tag, const wire::Heartbeat& heartbeat);
  void on(Instant now, uint32_t cable, uint32_t tag, const wire::Bye& bye);
  void on(Instant now, uint32_t cable, uint32_t tag, const wire::ProcessGone& gone);

  uint16_t refusal_of(const wire::Hello& hello) const;
  uint8_t find_peer(uint64_t incarnation) const;
  uint8_t learn_peer(const wire::Hello& hello);
  void learn_ports(const wire::Hello& hello, PeerEntry& peer);
  void retire_peer(uint8_t peer);
  void join(uint32_t cable, uint8_t peer, const wire::Hello& hello);
  void resume_link(uint32_t cable, const CableEntry& before, Instant now);
  void watch_silence(Instant now, uint32_t cable);
  bool in_session(uint32_t cable, uint32_t tag);
  void confirm(Instant now, uint32_t cable);
  void set_state(uint32_t cable, LinkState state, const char* why);
  void repeat_departures(Instant now);
  void record_gone(const GoneEntry& entry);

  void send(uint32_t cable, uint32_t tag, const wire::ControlMessage& message);
  void send_hello(Instant now, uint32_t cable, bool reply);
  void send_heartbeat(Instant now, uint32_t cable);
  void send_identity(uint32_t cable);
  [[nodiscard]] bool is_taken(const wire::GidBytes& gid) const;
  void send_gone(const wire::ProcessGone& gone);
  void log(bool warning, std::string text);
  [[nodiscard]] std::string cable_text(uint32_t cable) const;

  uint64_t incarnation_;
  std::array<uint8_t, 16> uuid_;
  std::vector<Link> links_;
  std::vector<GoneNews> gone_news_;
  std::deque<ControlOutput> outputs_;
  std::deque<AgentEvent> events_;
  DirectoryData directory_{};
  AgentStats stats_{};
  bool changed_ = true;
  bool stopped_ = false;
};

}  // namespace tbt::fabric
