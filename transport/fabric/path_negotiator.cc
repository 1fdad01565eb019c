#include "fabric/path_negotiator.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace tbt::fabric {

using wire::tb::PathMessage;
using wire::tb::PathRefusal;
using wire::tb::PathRequest;
using wire::tb::PathResponse;
using wire::tb::PathWithdraw;
using wire::tb::PathWithdrawn;
using wire::tb::XDomainError;

namespace {

constexpr size_t kAnswersMax = 8;  // a peer has one request outstanding, unless it repeats itself

}  // namespace

void PathNegotiator::start(const wire::tb::Uuid& peer, const wire::tb::PathEpoch& mine,
                           uint16_t out_hop_id_max) {
  stop();
  peer_ = peer;
  epoch_ = mine;
  out_hop_id_max_ = out_hop_id_max;
  state_ = AgreementState::kPreparing;
  failure_.clear();
}

void PathNegotiator::resume(Instant now, const wire::tb::Uuid& peer,
                            const wire::tb::PathOffer& mine, const wire::tb::PathOffer& theirs,
                            uint16_t out_hop_id_max) {
  start(peer, mine.epoch, out_hop_id_max);
  mine_ = mine;
  agreed_ = theirs;
  peer_epoch_ = theirs.epoch;
  state_ = AgreementState::kConfirming;
  ask_at(now);
}

void PathNegotiator::stop() {
  state_ = AgreementState::kIdle;
  mine_.reset();
  agreed_.reset();
  peer_epoch_.reset();
  outstanding_ = false;
  attempts_ = 0;
  withdrawal_.reset();
  answers_.clear();
}

void PathNegotiator::offer(Instant now, const wire::tb::PathOffer& mine) {
  TBT_ASSERT(preparing());
  mine_ = mine;
  mine_->epoch = epoch_;
  state_ = AgreementState::kAsking;
  attempts_ = 0;
  ask_at(now);
}

void PathNegotiator::withdraw(Instant now) {
  // Told even before an offer: the peer need not wait for one then.
  const bool told = state_ != AgreementState::kIdle && state_ != AgreementState::kWithdrawn;
  stop();
  if (told) withdrawal_ = Withdrawal{peer_, epoch_, 0, now};
}

void PathNegotiator::ask_at(Instant time) {
  outstanding_ = false;
  due_ = time;
}

Duration PathNegotiator::patience() const noexcept {
  if (unanswered()) return kPathAskSeldom;
  const uint32_t doublings =
      std::min(attempts_ < kPathPromptTries ? 0 : attempts_ - kPathPromptTries, 16u);
  return std::min(kPathAskFirst * (int64_t{1} << doublings), kPathAskSlow);
}

// What was agreed, or may have been on the peer's side only, ends; our end has to be made anew.
void PathNegotiator::void_agreement(const char* why) {
  mine_.reset();
  agreed_.reset();
  outstanding_ = false;
  state_ = AgreementState::kPreparing;
  failure_ = why;
}

void PathNegotiator::refused(std::string why) {
  mine_.reset();
  agreed_.reset();
  outstanding_ = false;
  state_ = AgreementState::kRefused;
  failure_ = std::move(why);
}

void PathNegotiator::handle_packet(Instant now, const wire::tb::XDomainPacket& packet) {
  PathMessage message;
  const XDomainError error = decode_path_message(packet, message);
  if (error != XDomainError::kNone) {
    handle_unreadable(packet, error, message);
    return;
  }
  const bool idle = state_ == AgreementState::kIdle;
  if (message.destination != self_ || (!idle && message.source != peer_)) {
    ++stats_.foreign;
    if (std::holds_alternative<PathRequest>(message.content)) {
      reply(message.source, PathRefusal{wire::tb::kPathWrongHost}, packet.sequence);
    }
    return;
  }
  // Idle, we know no peer yet: whoever speaks is answered.
  const wire::tb::Uuid source = message.source;
  if (idle && std::holds_alternative<PathRequest>(message.content)) {
    ++stats_.requests;
    reply(source, PathRefusal{wire::tb::kPathNotReady}, packet.sequence);
  } else if (const auto* gone = std::get_if<PathWithdraw>(&message.content); idle && gone) {
    reply(source, PathWithdrawn{gone->epoch}, packet.sequence);
  } else {
    std::visit([&](const auto& content) { on(now, content, packet.sequence); }, message.content);
  }
}

void PathNegotiator::handle_unreadable(const wire::tb::XDomainPacket& packet, XDomainError error,
                                       const PathMessage& header) {
  ++stats_.malformed;
  if (error != XDomainError::kUnknownVersion) return;
  if (!packet.response) {
    reply(header.source, PathRefusal{wire::tb::kPathUnknownVersion}, packet.sequence);
  } else if (asking() && header.source == peer_) {
    refused("the peer speaks another version of path agreement");
  }
}

void PathNegotiator::on(Instant now, const PathRequest& request, uint8_t sequence) {
  ++stats_.requests;
  const wire::tb::PathOffer& theirs = request.offer;
  const bool fits = theirs.hop_id <= out_hop_id_max_;
  const bool anew = peer_epoch_ && *peer_epoch_ != theirs.epoch;
  const bool restarted = anew && peer_epoch_->incarnation != theirs.epoch.incarnation;
  peer_epoch_ = theirs.epoch;
  if (mine_ && (anew || (agreed_ && *agreed_ != theirs))) {
    void_agreement(restarted ? "the peer has restarted" : "the peer has begun anew");
  } else if (fits && (state_ == AgreementState::kWithdrawn || state_ == AgreementState::kRefused)) {
    state_ = AgreementState::kPreparing;
  }
  if (!fits) {
    reply(peer_, PathRefusal{wire::tb::kPathBadHopId}, sequence);
    return;
  }
  if (!mine_) {
    reply(peer_, PathRefusal{wire::tb::kPathNotReady}, sequence);
    return;
  }
  reply(peer_, PathResponse{theirs.epoch, *mine_}, sequence);
  if (state_ != AgreementState::kAsking) return;
  // It takes frames now, so whatever it said to our last request is out of date.
  attempts_ = 0;
  ask_at(now);
}

// Whatever else it says of its end now, it is another end than the one that our frames go to.
void PathNegotiator::confirm(const wire::tb::PathOffer& theirs) {
  peer_epoch_ = theirs.epoch;
  if (*agreed_ != theirs) {
    // Its end may stand, if it is our memory that is wrong: then it has to be made anew as well.
    if (agreed_->epoch == theirs.epoch) ++epoch_.generation;
    return void_agreement("the peer has begun anew");
  }
  outstanding_ = false;
  attempts_ = 0;
  state_ = AgreementState::kAgreed;
}

void PathNegotiator::on(Instant /*now*/, const PathResponse& response, uint8_t /*sequence*/) {
  if (!asking() || response.answered != mine_->epoch) {
    ++stats_.ignored;
    return;
  }
  if (state_ == AgreementState::kConfirming) return confirm(response.offer);
  if (response.offer.hop_id > out_hop_id_max_) {
    refused("the peer takes frames by HopID " + std::to_string(response.offer.hop_id) +
            ", beyond this port's " + std::to_string(out_hop_id_max_));
    return;
  }
  peer_epoch_ = response.offer.epoch;
  agreed_ = response.offer;
  outstanding_ = false;
  attempts_ = 0;
  state_ = AgreementState::kAgreed;
}

void PathNegotiator::on(Instant now, const PathRefusal& refusal, uint8_t /*sequence*/) {
  if (!asking() || !outstanding_) {
    ++stats_.ignored;
    return;
  }
  ++stats_.refusals;
  if (state_ == AgreementState::kConfirming) {
    // It has no end any more that our frames could go to, or is another host.
    return void_agreement("the peer has begun anew");
  }
  // A wrong host finds out who is there by its own discovery.
  if (refusal.code == wire::tb::kPathNotReady || refusal.code == wire::tb::kPathWrongHost) {
    ask_at(now + patience());
  } else {
    refused(std::string("the peer refuses: ") + wire::tb::path_refusal_name(refusal.code));
  }
}

void PathNegotiator::on(Instant /*now*/, const PathWithdraw& withdraw, uint8_t sequence) {
  reply(peer_, PathWithdrawn{withdraw.epoch}, sequence);
  // Late ones of an earlier epoch change nothing.
  if (peer_epoch_ && *peer_epoch_ != withdraw.epoch) return;
  if (state_ == AgreementState::kWithdrawn) return;
  void_agreement("the peer has withdrawn");
  state_ = AgreementState::kWithdrawn;
}

void PathNegotiator::on(Instant /*now*/, const PathWithdrawn& withdrawn, uint8_t /*sequence*/) {
  if (withdrawal_ && withdrawal_->epoch == withdrawn.answered) {
    withdrawal_.reset();
  } else {
    ++stats_.ignored;
  }
}

template <typename T>
void PathNegotiator::reply(const wire::tb::Uuid& to, const T& content, uint8_t sequence) {
  if (answers_.size() == kAnswersMax) return;  // the peer will ask again
  answers_.push_back(
      wire::tb::encode_path_message({self_, to, content}, {.route = route_, .sequence = sequence}));
}

void PathNegotiator::handle_timeout(Instant now) {
  if (!asking() || !outstanding_ || now < due_) return;
  ++stats_.timeouts;
  ask_at(now);
}

bool PathNegotiator::poll_transmit(Instant now, wire::tb::XDomainPacket& out) {
  if (!answers_.empty()) {
    out = std::move(answers_.front());
    answers_.pop_front();
    return true;
  }
  if (withdrawal_ && now >= withdrawal_->due) {
    if (withdrawal_->attempts == kWithdrawAttempts) {
      withdrawal_.reset();
      return false;
    }
    withdrawal_->due = now + kWithdrawTimeout;
    const auto sequence = static_cast<uint8_t>(withdrawal_->attempts++ % 4);
    out =
        wire::tb::encode_path_message({self_, withdrawal_->peer, PathWithdraw{withdrawal_->epoch}},
                                      {.route = route_, .sequence = sequence});
    return true;
  }
  if (!asking() || outstanding_ || now < due_) return false;
  const auto sequence = static_cast<uint8_t>(attempts_++ % 4);
  outstanding_ = true;
  due_ = now + patience();
  out = wire::tb::encode_path_message({self_, peer_, PathRequest{*mine_}},
                                      {.route = route_, .sequence = sequence});
  return true;
}

Instant PathNegotiator::poll_timeout() const {
  Instant next = asking() ? due_ : Instant::never();
  if (withdrawal_) next = std::min(next, withdrawal_->due);
  return next;
}

const char* agreement_state_name(AgreementState state) noexcept {
  switch (state) {
    case AgreementState::kIdle:
      return "idle";
    case AgreementState::kPreparing:
      return "preparing";
    case AgreementState::kAsking:
      return "asking";
    case AgreementState::kAgreed:
      return "agreed";
    case AgreementState::kConfirming:
      return "confirming";
    case AgreementState::kWithdrawn:
      return "withdrawn";
    case AgreementState::kRefused:
      return "refused";
  }
  return "?";
}

}  // namespace tbt::fabric
