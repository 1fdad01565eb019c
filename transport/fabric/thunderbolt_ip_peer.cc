#include "fabric/thunderbolt_ip_peer.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace tbt::fabric {

using namespace wire::tb;

namespace {

constexpr size_t kAnswersMax = 8;

}  // namespace

const char* ip_peer_state_name(IpPeerState state) noexcept {
  switch (state) {
    case IpPeerState::kDown:
      return "down";
    case IpPeerState::kClearing:
      return "clearing";
    case IpPeerState::kLoggingIn:
      return "logging in";
    case IpPeerState::kConnected:
      return "connected";
    case IpPeerState::kResting:
      return "resting";
    case IpPeerState::kLoggingOut:
      return "logging out";
  }
  return "?";
}

ThunderboltIpPeer::ThunderboltIpPeer(IpPeerConfig config) : config_(config) {
  TBT_ASSERT(config_.transmit_path >= 1 && config_.transmit_path <= kHopIdMax);
}

void ThunderboltIpPeer::start(Instant now, const Uuid& peer, bool follows) {
  const bool out = state_ == IpPeerState::kDown || state_ == IpPeerState::kLoggingOut;
  if (!out && peer == peer_) return;
  stop();
  peer_ = peer;
  state_ = follows ? IpPeerState::kClearing : IpPeerState::kLoggingIn;
  next_ = follows ? Question::kLogout : Question::kLogin;
  due_ = now;
}

// The peer has nothing to believe in any more, or does not answer.
void ThunderboltIpPeer::cleared(Instant now) {
  rest();
  state_ = IpPeerState::kLoggingIn;
  next_ = Question::kLogin;
  due_ = now + kIpSettle;
}

void ThunderboltIpPeer::stop() {
  rest();
  state_ = IpPeerState::kDown;
  answers_.clear();
}

// Nothing is known of a connection any more, and nothing asked.
void ThunderboltIpPeer::rest() {
  state_ = IpPeerState::kResting;
  login_answered_ = false;
  peer_transmit_path_ = 0;
  peer_mac_ = {};
  tries_ = 0;
  outstanding_ = next_ = Question::kNone;
  deadline_ = due_ = Instant::never();
}

void ThunderboltIpPeer::log_out(Instant now) {
  if (state_ == IpPeerState::kDown || state_ == IpPeerState::kLoggingOut) return;
  // A peer that has heard nothing of us has nothing to forget.
  const bool known = state_ == IpPeerState::kClearing || login_answered_ ||
                     peer_transmit_path_ != 0 || outstanding_ == Question::kLogin || tries_ > 0;
  rest();
  state_ = known ? IpPeerState::kLoggingOut : IpPeerState::kDown;
  if (!known) return;
  next_ = Question::kLogout;
  due_ = now;
}

void ThunderboltIpPeer::log_in(Instant now) {
  next_ = Question::kLogin;
  due_ = now;
}

std::optional<IpPath> ThunderboltIpPeer::path() const noexcept {
  if (state_ != IpPeerState::kConnected) return std::nullopt;
  return IpPath{.out_hop_id = config_.transmit_path, .in_hop_id = peer_transmit_path_};
}

void ThunderboltIpPeer::handle_packet(Instant now, const XDomainPacket& packet) {
  IpMessage message;
  if (decode_thunderbolt_ip(packet, message) != XDomainError::kNone) {
    ++stats_.malformed;
    return;
  }
  if (state_ == IpPeerState::kDown || message.initiator != peer_ ||
      message.target != config_.self) {
    ++stats_.foreign;
    return;
  }
  request_sequence_ = packet.sequence;
  std::visit([&](const auto& content) { on(now, content); }, message.content);
}

// The answer comes first: it is what the peer waits for.
void ThunderboltIpPeer::on(Instant now, const IpLogin& login) {
  if (login.version != kThunderboltIpVersion) {
    ++stats_.malformed;
    return;
  }
  // It will hear our logout.
  if (state_ == IpPeerState::kLoggingOut || state_ == IpPeerState::kClearing) return;
  answer(IpLoginResponse{.status = 0, .has_mac = true, .mac = config_.mac}, request_sequence_);
  ++stats_.logins_answered;
  peer_transmit_path_ = login.transmit_path;
  if (state_ == IpPeerState::kResting) {
    state_ = IpPeerState::kLoggingIn;
    tries_ = 0;
  }
  consider_connected();
  // It may wait for our login: because it has just come, or because it has begun anew. Two hosts
  // must not keep each other going, so a login that was answered is not repeated soon.
  const bool repeat = last_login_.is_never() || now - last_login_ >= kIpLoginDelay;
  if (outstanding_ == Question::kNone && (!login_answered_ || repeat)) log_in(now);
}

void ThunderboltIpPeer::on(Instant now, const IpLoginResponse& response) {
  if (outstanding_ != Question::kLogin) {
    ++stats_.unasked;
    return;
  }
  outstanding_ = Question::kNone;
  deadline_ = Instant::never();
  if (response.status != 0) {
    if (state_ != IpPeerState::kConnected) log_in_later(now);
    return;
  }
  login_answered_ = true;
  if (response.has_mac) peer_mac_ = response.mac;
  consider_connected();
  // It has forgotten to log in, or what it heard of us before: then another login reminds it.
  if (state_ == IpPeerState::kLoggingIn) log_in_later(now);
}

void ThunderboltIpPeer::on(Instant /*now*/, const IpLogout& /*logout*/) {
  answer(IpStatus{.status = 0}, request_sequence_);
  if (state_ != IpPeerState::kLoggingOut && state_ != IpPeerState::kClearing) rest();
}

void ThunderboltIpPeer::on(Instant now, const IpStatus& /*status*/) {
  if (outstanding_ != Question::kLogout) {
    ++stats_.unasked;
    return;
  }
  if (state_ == IpPeerState::kClearing) return cleared(now);
  // Whatever it thinks of it, we are gone. An answer that we still owe is sent.
  rest();
  state_ = IpPeerState::kDown;
}

void ThunderboltIpPeer::consider_connected() {
  if (!login_answered_ || peer_transmit_path_ == 0) return;
  state_ = IpPeerState::kConnected;
  tries_ = 0;
  next_ = Question::kNone;
  due_ = Instant::never();
}

void ThunderboltIpPeer::log_in_later(Instant now) {
  if (tries_ >= kIpLogins) {
    rest();
    return;
  }
  next_ = Question::kLogin;
  due_ = now + kIpLoginDelay;
}

void ThunderboltIpPeer::handle_timeout(Instant now) {
  if (outstanding_ == Question::kNone || now < deadline_) return;
  ++stats_.timeouts;
  deadline_ = Instant::never();
  if (std::exchange(outstanding_, Question::kNone) == Question::kLogin) {
    if (state_ != IpPeerState::kConnected) log_in_later(now);
  } else if (tries_ >= kIpLogouts) {
    state_ == IpPeerState::kClearing ? cleared(now) : stop();
  } else {
    next_ = Question::kLogout;
    due_ = now;
  }
}

void ThunderboltIpPeer::answer(decltype(IpMessage::content) content, uint8_t sequence) {
  if (answers_.size() >= kAnswersMax) {
    ++stats_.overflows;
    return;
  }
  answers_.push_back(packet_of(content, sequence));
}

XDomainPacket ThunderboltIpPeer::packet_of(decltype(IpMessage::content) content, uint8_t sequence) {
  const IpMessage message{
      .initiator = config_.self, .target = peer_, .command_id = command_id_, .content = content};
  return encode_thunderbolt_ip(message, {.route = {}, .from_router = false, .sequence = sequence});
}

bool ThunderboltIpPeer::poll_transmit(Instant now, XDomainPacket& out) {
  if (!answers_.empty()) {
    out = std::move(answers_.front());
    answers_.pop_front();
    return true;
  }
  if (next_ == Question::kNone || due_ > now) return false;
  outstanding_ = std::exchange(next_, Question::kNone);
  due_ = Instant::never();
  ++tries_;
  ++command_id_;
  const auto sequence = static_cast<uint8_t>(command_id_ % 4);
  if (outstanding_ == Question::kLogin) {
    ++stats_.logins_sent;
    last_login_ = now;
    deadline_ = now + kIpLoginTimeout;
    out = packet_of(IpLogin{.transmit_path = config_.transmit_path}, sequence);
  } else {
    deadline_ = now + kIpLogoutTimeout;
    out = packet_of(IpLogout{}, sequence);
  }
  return true;
}

Instant ThunderboltIpPeer::poll_timeout() const noexcept {
  if (!answers_.empty()) return Instant{};
  return std::min(deadline_, due_);
}

}  // namespace tbt::fabric
