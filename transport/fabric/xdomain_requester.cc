#include "fabric/xdomain_requester.h"

#include <algorithm>
#include <utility>

namespace tbt::fabric {

using wire::tb::PropertyAssembly;
using wire::tb::PropertyError;

void XDomainRequester::start(Instant now) {
  stop();
  state_ = DiscoveryState::kAskingUuid;
  want(kUuid, now);
}

void XDomainRequester::stop() {
  state_ = DiscoveryState::kDown;
  failure_ = DiscoveryFailure::kNone;
  tasks_ = {};
  outstanding_.reset();
  announce_again_ = false;
  hurried_ = false;
  peer_.reset();
  properties_.reset();
  assembly_.clear();
  events_.clear();
}

void XDomainRequester::announce(Instant now) {
  // A peer that is not known yet is told when it is.
  if (!peer_ || state_ == DiscoveryState::kFailed) return;
  if (answers(kAnnounce)) {
    // The answer on its way is to an earlier change; the peer may have read since.
    announce_again_ = true;
    return;
  }
  tasks_[kAnnounce].failures = 0;
  want(kAnnounce, now);
}

void XDomainRequester::ask_link_status(Instant now) {
  if (peer_) want(kAskLinkStatus, now);
}

void XDomainRequester::ask_link_change(Instant now,
                                       const wire::tb::LinkStateChangeRequest& change) {
  link_change_ = change;
  if (peer_) want(kAskLinkChange, now);
}

void XDomainRequester::handle_response(Instant now, const wire::tb::XDomainMessage& message) {
  if (const auto* uuid = std::get_if<wire::tb::UuidResponse>(&message); uuid && answers(kUuid)) {
    take_uuid(now, *uuid);
  } else if (const auto* fragment = std::get_if<wire::tb::PropertiesResponse>(&message);
             fragment && answers(kProperties)) {
    take_properties(now, *fragment);
  } else if (std::holds_alternative<wire::tb::PropertiesChangedResponse>(message) &&
             answers(kAnnounce)) {
    done(kAnnounce);
    if (std::exchange(announce_again_, false)) want(kAnnounce, now);
  } else if (const auto* link = std::get_if<wire::tb::LinkStateStatusResponse>(&message);
             link && answers(kAskLinkStatus)) {
    done(kAskLinkStatus);
    link_status_ = *link;
    if (link->status == 0) events_.push_back(DiscoveryEvent::kLinkStatus);
  } else if (const auto* change = std::get_if<wire::tb::LinkStateChangeResponse>(&message);
             change && answers(kAskLinkChange)) {
    done(kAskLinkChange);
    if (change->status == 0) events_.push_back(DiscoveryEvent::kLinkChange);
  } else if (const auto* error = std::get_if<wire::tb::ErrorResponse>(&message);
             error && outstanding_) {
    take_error(now, error->code);
  } else {
    ++stats_.ignored;
  }
}

void XDomainRequester::take_uuid(Instant now, const wire::tb::UuidResponse& response) {
  if (response.source == self_) {
    fail(DiscoveryFailure::kSelf);
    return;
  }
  done(kUuid);
  if (peer_ != response.source) {
    peer_ = response.source;
    properties_.reset();
    events_.push_back(DiscoveryEvent::kFound);
  }
  state_ = DiscoveryState::kReadingProperties;
  assembly_.clear();
  // It may have asked before we were ready to answer.
  want(kAnnounce, now);
  want(kProperties, now);
}

void XDomainRequester::take_properties(Instant now, const wire::tb::PropertiesResponse& response) {
  if (response.source != peer_ || response.destination != self_) {
    ++stats_.ignored;
    return;
  }
  switch (assembly_.add(response)) {
    case PropertyAssembly::Step::kMore:
      outstanding_.reset();
      want(kProperties, now);
      break;
    case PropertyAssembly::Step::kComplete:
      take_block(now);
      break;
    case PropertyAssembly::Step::kRestart:
      // Counted as a failure, or a peer whose generation never stands still would keep us busy.
      ++stats_.restarts;
      try_again(kProperties, now + kXDomainShortDelay, DiscoveryFailure::kMalformed);
      break;
    case PropertyAssembly::Step::kIgnored:
      ++stats_.ignored;
      break;
  }
}

void XDomainRequester::take_block(Instant now) {
  wire::tb::PropertyDirectory root;
  if (parse_property_block(assembly_.block(), root) != PropertyError::kNone) {
    fail(DiscoveryFailure::kMalformed);
    return;
  }
  done(kProperties);
  generation_ = assembly_.generation();
  read_ = now;
  assembly_.clear();
  state_ = DiscoveryState::kKnown;
  if (properties_ != root) {
    properties_ = std::move(root);
    events_.push_back(DiscoveryEvent::kProperties);
  }
}

void XDomainRequester::take_error(Instant now, uint32_t code) {
  ++stats_.errors;
  const Question question = *outstanding_;
  // Its block may have changed, and become shorter than where we read: begin again.
  if (question == kProperties) assembly_.clear();
  if (code == wire::tb::kNotSupported) {
    // Whoever does not care for our changes need not hear of them.
    if (optional(question)) {
      done(question);
    } else {
      fail(DiscoveryFailure::kRefused);
    }
    return;
  }
  try_again(question, now + kXDomainRetryDelay, DiscoveryFailure::kNoAnswer);
  if (code == wire::tb::kUnknownDomain && question == kProperties && peer_ &&
      state_ == DiscoveryState::kReadingProperties) {
    // It does not go by that UUID any more. The failures of kProperties are kept, so that a peer
    // cannot lead us in this circle for ever.
    tasks_[kProperties].wanted = false;
    state_ = DiscoveryState::kAskingUuid;
    want(kUuid, now + kXDomainRetryDelay);
  }
}

void XDomainRequester::handle_peer_changed(Instant now, const wire::tb::Uuid& source) {
  handle_sign_of_life(now);
  if (!peer_) return;
  const bool unreadable = failure_ == DiscoveryFailure::kMalformed;
  if (source != *peer_ || unreadable) {
    start(now);
    return;
  }
  if (state_ != DiscoveryState::kReadingProperties && state_ != DiscoveryState::kKnown) return;
  // Changes come in bursts; the first one's due time stays.
  const Task& task = tasks_[kProperties];
  if (task.wanted && !answers(kProperties) && assembly_.next_offset() == 0) return;
  if (answers(kProperties)) outstanding_.reset();
  assembly_.clear();
  state_ = DiscoveryState::kReadingProperties;
  // One change is read at once: it may be another daemon's, with which a path comes up just now.
  want(kProperties, properties_ ? std::max(now, read_ + kXDomainShortDelay) : now);
}

void XDomainRequester::handle_sign_of_life(Instant now) {
  if (state_ == DiscoveryState::kFailed && failure_ == DiscoveryFailure::kNoAnswer) start(now);
}

void XDomainRequester::handle_peer_begins(Instant now) {
  handle_sign_of_life(now);
  if (state_ != DiscoveryState::kAskingUuid) return;
  // Once: two hosts that begin at the same time see each other's questions before the answers.
  if (outstanding_ && std::exchange(hurried_, true)) return;
  outstanding_.reset();
  want(kUuid, now);
}

void XDomainRequester::handle_timeout(Instant now) {
  if (!outstanding_ || now < deadline_) return;
  ++stats_.timeouts;
  hurried_ = false;
  try_again(*outstanding_, now, DiscoveryFailure::kNoAnswer);
}

void XDomainRequester::want(Question question, Instant due) {
  tasks_[question].wanted = true;
  tasks_[question].due = due;
}

void XDomainRequester::done(Question question) {
  tasks_[question] = {};
  outstanding_.reset();
}

void XDomainRequester::try_again(Question question, Instant due, DiscoveryFailure otherwise) {
  outstanding_.reset();
  Task& task = tasks_[question];
  if (++task.failures <= kXDomainRetries) {
    want(question, due);
  } else if (optional(question)) {
    done(question);
    if (question == kAnnounce) ++stats_.announcements_lost;
  } else {
    fail(otherwise);
  }
}

void XDomainRequester::fail(DiscoveryFailure failure) {
  tasks_ = {};
  outstanding_.reset();
  assembly_.clear();
  state_ = DiscoveryState::kFailed;
  failure_ = failure;
  events_.push_back(DiscoveryEvent::kFailed);
}

wire::tb::XDomainMessage XDomainRequester::ask(Question question) const {
  switch (question) {
    case kUuid:
      return wire::tb::UuidRequest{};
    case kAnnounce:
      return wire::tb::PropertiesChangedRequest{self_};
    case kAskLinkStatus:
      return wire::tb::LinkStateStatusRequest{};
    case kAskLinkChange:
      return link_change_;
    case kProperties:
      break;
  }
  return wire::tb::PropertiesRequest{self_, *peer_, assembly_.next_offset()};
}

bool XDomainRequester::poll_transmit(Instant now, wire::tb::XDomainMessage& out,
                                     uint8_t& sequence) {
  if (outstanding_) return false;
  // The longest due first, so that an announcement without answer does not hold up the rest.
  std::optional<Question> next;
  for (const Question question : {kUuid, kAnnounce, kProperties, kAskLinkStatus, kAskLinkChange}) {
    const Task& task = tasks_[question];
    if (!task.wanted || now < task.due) continue;
    if (!next || task.due < tasks_[*next].due) next = question;
  }
  if (!next) return false;
  outstanding_ = next;
  deadline_ = now + xdomain_timeout(tasks_[*next].failures);
  out = ask(*next);
  sequence = static_cast<uint8_t>(tasks_[*next].failures % 4);
  return true;
}

std::optional<DiscoveryEvent> XDomainRequester::poll_event() {
  if (events_.empty()) return std::nullopt;
  const DiscoveryEvent event = events_.front();
  events_.pop_front();
  return event;
}

Instant XDomainRequester::poll_timeout() const {
  if (outstanding_) return deadline_;
  Instant next = Instant::never();
  for (const Task& task : tasks_) {
    if (task.wanted) next = std::min(next, task.due);
  }
  return next;
}

Duration xdomain_timeout(uint32_t failures) noexcept {
  const uint32_t doublings =
      failures < kXDomainPromptTries ? 0 : failures - kXDomainPromptTries + 1;
  return std::min(kXDomainFirstTimeout * (int64_t{1} << std::min(doublings, 16u)), kXDomainTimeout);
}

const char* discovery_state_name(DiscoveryState state) noexcept {
  switch (state) {
    case DiscoveryState::kDown:
      return "down";
    case DiscoveryState::kAskingUuid:
      return "asking uuid";
    case DiscoveryState::kReadingProperties:
      return "reading properties";
    case DiscoveryState::kKnown:
      return "known";
    case DiscoveryState::kFailed:
      return "failed";
  }
  return "?";
}

const char* discovery_failure_name(DiscoveryFailure failure) noexcept {
  switch (failure) {
    case DiscoveryFailure::kNone:
      return "none";
    case DiscoveryFailure::kNoAnswer:
      return "no answer";
    case DiscoveryFailure::kRefused:
      return "refused";
    case DiscoveryFailure::kSelf:
      return "cable leads back to this host";
    case DiscoveryFailure::kMalformed:
      return "malformed properties";
  }
  return "?";
}

}  // namespace tbt::fabric
