// XDomainRequester: finds out who is at the other end of a cable and what it offers. First its
// UUID, then its block of properties in fragments, then again whenever it says that they have
// changed; and it tells the peer when ours have. States as in the kernel's xdomain.c. Lane bonding
// is not a state: whoever wants it has the two questions about it asked beside the others.
//
// Inputs:  start, stop, announce, handle_response, handle_peer_changed, handle_sign_of_life,
//          handle_timeout. They never call out.
// Outputs: poll_transmit, poll_event, poll_timeout; ask until empty after each input.
//
// Answers carry nothing that names their question, so one request is outstanding at a time. Every
// request is repeated kXDomainRetries times at most; then the requester says so and rests until the
// cable is plugged again or the peer shows that it is alive.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>

#include "base/time.h"
#include "wire/tb/property_block.h"
#include "wire/tb/property_transfer.h"
#include "wire/tb/xdomain.h"

namespace tbt::fabric {

// For an answer: short at first, because a host that has just come up loses what was sent before,
// and a cable may lose much; after so many repetitions doubled each time.
inline constexpr Duration kXDomainFirstTimeout = Duration::from_ms(50);
inline constexpr uint32_t kXDomainPromptTries = 6;
inline constexpr Duration kXDomainTimeout = Duration::from_s(1);        // the longest
inline constexpr Duration kXDomainRetryDelay = Duration::from_s(1);     // after an error answer
inline constexpr Duration kXDomainShortDelay = Duration::from_ms(100);  // between two readings
inline constexpr uint32_t kXDomainRetries = 15;

enum class DiscoveryState : uint8_t { kDown, kAskingUuid, kReadingProperties, kKnown, kFailed };
enum class DiscoveryFailure : uint8_t {
  kNone,
  kNoAnswer,   // of the last request and all its repetitions
  kRefused,    // the peer does not support the protocol
  kSelf,       // the cable leads back to this host
  kMalformed,  // the peer's properties cannot be read
};

enum class DiscoveryEvent : uint8_t {
  kFound,       // peer() is known
  kProperties,  // properties() are new, or others than before
  kFailed,      // failure() says why
  kLinkStatus,  // link_status() is the answer to ask_link_status()
  kLinkChange,  // the peer has granted what ask_link_change() asked for
};

struct RequesterStats {
  uint64_t timeouts = 0;
  uint64_t errors = 0;    // error answers
  uint64_t ignored = 0;   // answers to no outstanding question
  uint64_t restarts = 0;  // blocks that changed while they were read
  uint64_t announcements_lost = 0;
};

class XDomainRequester {
 public:
  explicit XDomainRequester(const wire::tb::Uuid& self) : self_(self) {}

  void start(Instant now);
  void stop();
  // Our properties have changed; the peer is told as soon as it is known.
  void announce(Instant now);
  // What the peer's lanes can do, and that they change. Not answered or not granted is no failure,
  // and no event. Only once the peer is known.
  void ask_link_status(Instant now);
  void ask_link_change(Instant now, const wire::tb::LinkStateChangeRequest& change);

  void handle_response(Instant now, const wire::tb::XDomainMessage& message);
  // The host `source` says that its properties have changed.
  void handle_peer_changed(Instant now, const wire::tb::Uuid& source);
  // The peer asks us something: after a failure that is a reason to try again.
  void handle_sign_of_life(Instant now);
  // The peer asks who we are, so it has just begun: what we asked it before may not have reached
  // it.
  void handle_peer_begins(Instant now);
  void handle_timeout(Instant now);

  bool poll_transmit(Instant now, wire::tb::XDomainMessage& out, uint8_t& sequence);
  std::optional<DiscoveryEvent> poll_event();
  [[nodiscard]] Instant poll_timeout() const;

  [[nodiscard]] DiscoveryState state() const noexcept { return state_; }
  [[nodiscard]] DiscoveryFailure failure() const noexcept { return failure_; }
  // Kept until stop(), a new start or another host at the other end.
  [[nodiscard]] const std::optional<wire::tb::Uuid>& peer() const noexcept { return peer_; }
  [[nodiscard]] const std::optional<wire::tb::PropertyDirectory>& properties() const noexcept {
    return properties_;
  }
  [[nodiscard]] const wire::tb::LinkStateStatusResponse& link_status() const noexcept {
    return link_status_;
  }
  [[nodiscard]] uint32_t generation() const noexcept { return generation_; }
  [[nodiscard]] const RequesterStats& stats() const noexcept { return stats_; }

 private:
  enum Question : uint8_t { kUuid, kAnnounce, kProperties, kAskLinkStatus, kAskLinkChange };
  struct Task {
    bool wanted = false;
    uint32_t failures = 0;
    Instant due;
  };

  void want(Question question, Instant due);
  void done(Question question);
  void try_again(Question question, Instant due, DiscoveryFailure otherwise);
  void fail(DiscoveryFailure failure);
  // Failing at it is no failure of the discovery.
  [[nodiscard]] static bool optional(Question question) {
    return question != kUuid && question != kProperties;
  }
  [[nodiscard]] bool answers(Question question) const { return outstanding_ == question; }
  void take_uuid(Instant now, const wire::tb::UuidResponse& response);
  void take_properties(Instant now, const wire::tb::PropertiesResponse& response);
  void take_block(Instant now);
  void take_error(Instant now, uint32_t code);
  [[nodiscard]] wire::tb::XDomainMessage ask(Question question) const;

  wire::tb::Uuid self_;
  DiscoveryState state_ = DiscoveryState::kDown;
  DiscoveryFailure failure_ = DiscoveryFailure::kNone;
  std::array<Task, 5> tasks_;
  std::optional<Question> outstanding_;
  Instant deadline_ = Instant::never();
  bool announce_again_ = false;
  bool hurried_ = false;  // the outstanding question was asked again before its time
  std::optional<wire::tb::Uuid> peer_;
  std::optional<wire::tb::PropertyDirectory> properties_;
  uint32_t generation_ = 0;
  Instant read_;  // when properties() were
  wire::tb::LinkStateStatusResponse link_status_;
  wire::tb::LinkStateChangeRequest link_change_;
  wire::tb::PropertyAssembly assembly_;
  std::deque<DiscoveryEvent> events_;
  RequesterStats stats_;
};

// How long the answer to a question is waited for that has failed so often.
Duration xdomain_timeout(uint32_t failures) noexcept;

const char* discovery_state_name(DiscoveryState state) noexcept;
const char* discovery_failure_name(DiscoveryFailure failure) noexcept;

}  // namespace tbt::fabric
