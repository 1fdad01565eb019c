// PathNegotiator: one end of path agreement (wire/tb/path_agreement.h) on one cable. It says by
// which HopID frames are taken here and learns the same of the peer. The port gives it the peer,
// prepares to receive when preparing() says so, and then makes its offer.
//
//   idle --start--> preparing --offer--> asking --answer--> agreed
//                       ^                  |                   |
//                       '------ peer has begun anew -----------+---- withdrawn
//                                                              |
//   idle --resume--> confirming -- the same answer -------------'
//
// Who has made an offer asks; who has none yet answers "not ready" and will ask himself. So the
// peer's receive path is always open before we send into it. A peer that comes with another epoch
// has lost its end: what was agreed is void, and both ends are made anew. We keep our own epoch
// then, or each would follow the other for ever.
//
// Who goes on for a daemon that was killed resumes what that one had agreed on. It stands at once,
// and the peer, to whom our request is one that it has answered before, is asked whether it still
// does.
//
// Inputs:  start, resume, stop, offer, withdraw, handle_packet, handle_timeout. They never call
// out. Outputs: poll_transmit, poll_timeout, and the getters; ask until empty after each input.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "base/time.h"
#include "wire/tb/path_agreement.h"

namespace tbt::fabric {

inline constexpr uint32_t kPathPromptTries = 6;                   // before the time is doubled
inline constexpr Duration kPathAskFirst = Duration::from_ms(50);  // doubled each time, up to
inline constexpr Duration kPathAskSlow = Duration::from_s(1);
inline constexpr uint32_t kPathAskMax = 14;  // then no answer is reported, and we ask on, seldom
inline constexpr Duration kPathAskSeldom = Duration::from_s(5);
inline constexpr Duration kWithdrawTimeout = Duration::from_ms(50);
inline constexpr uint32_t kWithdrawAttempts = 4;

enum class AgreementState : uint8_t {
  kIdle,       // no peer
  kPreparing,  // there is a peer; an offer is to be made
  kAsking,
  kAgreed,
  kConfirming,  // agreed by a predecessor of ours; whether it still stands is being asked
  kWithdrawn,   // by the peer: nothing until it asks
  kRefused,     // for good, or until it asks; failure() says why
};

struct NegotiatorStats {
  uint64_t requests = 0;  // of the peer
  uint64_t timeouts = 0;
  uint64_t refusals = 0;  // of ours, by the peer
  uint64_t malformed = 0;
  uint64_t foreign = 0;  // of or for other hosts
  uint64_t ignored = 0;  // answers to no question
};

class PathNegotiator {
 public:
  PathNegotiator(const wire::tb::Uuid& self, wire::tb::Route route) : self_(self), route_(route) {}

  // The peer has our service; frames can leave by HopIDs up to `out_hop_id_max`. `mine` is new.
  void start(const wire::tb::Uuid& peer, const wire::tb::PathEpoch& mine, uint16_t out_hop_id_max);
  // Frames are taken and sent, as it was agreed on with `peer`: `mine` is what we had offered, with
  // its epoch, `theirs` what the peer had.
  void resume(Instant now, const wire::tb::Uuid& peer, const wire::tb::PathOffer& mine,
              const wire::tb::PathOffer& theirs, uint16_t out_hop_id_max);
  // The cable is out, or the peer has no service (any more).
  void stop();
  // Frames are taken now. Only while preparing() is true. The epoch in it is not looked at.
  void offer(Instant now, const wire::tb::PathOffer& mine);
  // Frames are not taken any more by our own will: tells the peer, then is idle.
  void withdraw(Instant now);

  void handle_packet(Instant now, const wire::tb::XDomainPacket& packet);
  void handle_timeout(Instant now);

  bool poll_transmit(Instant now, wire::tb::XDomainPacket& out);
  [[nodiscard]] Instant poll_timeout() const;

  [[nodiscard]] AgreementState state() const noexcept { return state_; }
  [[nodiscard]] bool preparing() const noexcept { return state_ == AgreementState::kPreparing; }
  [[nodiscard]] bool withdrawing() const noexcept { return withdrawal_.has_value(); }
  // Whether our end may stay open: an offer stands.
  [[nodiscard]] bool offering() const noexcept { return mine_.has_value(); }
  // Ours, since start() or resume().
  [[nodiscard]] const wire::tb::PathEpoch& epoch() const noexcept { return epoch_; }
  // The peer's, while agreed.
  [[nodiscard]] const std::optional<wire::tb::PathOffer>& agreed() const noexcept {
    return agreed_;
  }
  // Why the last agreement, or attempt at one, ended.
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
  // Requests have long had no answer.
  [[nodiscard]] bool unanswered() const noexcept { return attempts_ >= kPathAskMax; }
  [[nodiscard]] const NegotiatorStats& stats() const noexcept { return stats_; }

 private:
  struct Withdrawal {
    wire::tb::Uuid peer;
    wire::tb::PathEpoch epoch;
    uint32_t attempts = 0;
    Instant due;
  };

  void on(Instant now, const wire::tb::PathRequest& request, uint8_t sequence);
  void on(Instant now, const wire::tb::PathResponse& response, uint8_t sequence);
  void on(Instant now, const wire::tb::PathRefusal& refusal, uint8_t sequence);
  void on(Instant now, const wire::tb::PathWithdraw& withdraw, uint8_t sequence);
  void on(Instant now, const wire::tb::PathWithdrawn& withdrawn, uint8_t sequence);
  void handle_unreadable(const wire::tb::XDomainPacket& packet, wire::tb::XDomainError error,
                         const wire::tb::PathMessage& header);

  template <typename T>
  void reply(const wire::tb::Uuid& to, const T& content, uint8_t sequence);
  void void_agreement(const char* why);
  void refused(std::string why);
  void confirm(const wire::tb::PathOffer& theirs);
  void ask_at(Instant time);
  [[nodiscard]] bool asking() const noexcept {
    return state_ == AgreementState::kAsking || state_ == AgreementState::kConfirming;
  }
  [[nodiscard]] Duration patience() const noexcept;

  wire::tb::Uuid self_;
  wire::tb::Route route_;
  AgreementState state_ = AgreementState::kIdle;
  wire::tb::Uuid peer_;
  wire::tb::PathEpoch epoch_;
  uint16_t out_hop_id_max_ = 0;
  std::optional<wire::tb::PathOffer> mine_;
  std::optional<wire::tb::PathOffer> agreed_;
  std::optional<wire::tb::PathEpoch> peer_epoch_;  // as last heard
  uint32_t attempts_ = 0;
  bool outstanding_ = false;
  Instant due_ = Instant::never();  // of the next request, or the end of waiting for its answer
  std::optional<Withdrawal> withdrawal_;
  std::deque<wire::tb::XDomainPacket> answers_;
  std::string failure_;
  NegotiatorStats stats_;
};

const char* agreement_state_name(AgreementState state) noexcept;

}  // namespace tbt::fabric
