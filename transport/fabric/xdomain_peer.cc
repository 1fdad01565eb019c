#include "fabric/xdomain_peer.h"

#include <utility>

#include "base/assert.h"

namespace tbt::fabric {
namespace {

constexpr size_t kAnswersMax = 8;  // a peer has one request outstanding, unless it repeats itself

}  // namespace

void XDomainPeer::link_down() {
  requester_.stop();
  link_state_.reset();
  link_change_.reset();
  may_change_ = false;
  answers_.clear();
}

void XDomainPeer::set_properties(Instant now, std::vector<uint32_t> block) {
  TBT_ASSERT(!block.empty() && block.size() <= wire::tb::kPropertyBlockMax);
  if (block == block_) return;
  block_ = std::move(block);
  ++generation_;
  requester_.announce(now);
}

void XDomainPeer::handle_packet(Instant now, const wire::tb::XDomainPacket& packet) {
  if (requester_.state() == DiscoveryState::kDown) return;
  if (packet.route != route_ || packet.protocol != wire::tb::kDiscoveryProtocol) {
    ++stats_.foreign;
    return;
  }
  wire::tb::XDomainMessage message;
  const wire::tb::XDomainError error = decode_xdomain(packet, message);
  if (error == wire::tb::XDomainError::kUnknownType && !packet.response) {
    owe(wire::tb::ErrorResponse{wire::tb::kNotSupported}, packet.sequence);
  } else if (error != wire::tb::XDomainError::kNone) {
    ++stats_.malformed;
  } else if (packet.response) {
    requester_.handle_response(now, message);
  } else {
    handle_request(now, message, packet.sequence);
  }
}

void XDomainPeer::handle_request(Instant now, const wire::tb::XDomainMessage& request,
                                 uint8_t sequence) {
  owe(answer_to(request), sequence);
  if (const auto* change = std::get_if<wire::tb::LinkStateChangeRequest>(&request);
      change != nullptr && may_change_) {
    link_change_ = *change;
  }
  if (const auto* changed = std::get_if<wire::tb::PropertiesChangedRequest>(&request)) {
    requester_.handle_peer_changed(now, changed->source);
  } else if (std::holds_alternative<wire::tb::UuidRequest>(request)) {
    requester_.handle_peer_begins(now);
  } else {
    requester_.handle_sign_of_life(now);
  }
}

wire::tb::XDomainMessage XDomainPeer::answer_to(const wire::tb::XDomainMessage& request) const {
  if (std::holds_alternative<wire::tb::UuidRequest>(request)) {
    return wire::tb::UuidResponse{self_, route_};
  }
  if (std::holds_alternative<wire::tb::PropertiesChangedRequest>(request)) {
    return wire::tb::PropertiesChangedResponse{};
  }
  if (std::holds_alternative<wire::tb::LinkStateStatusRequest>(request) && link_state_) {
    return *link_state_;
  }
  if (std::holds_alternative<wire::tb::LinkStateChangeRequest>(request) && may_change_) {
    return wire::tb::LinkStateChangeResponse{};
  }
  if (const auto* properties = std::get_if<wire::tb::PropertiesRequest>(&request)) {
    if (properties->destination != self_) {
      return wire::tb::ErrorResponse{wire::tb::kUnknownDomain};
    }
    if (block_.empty()) return wire::tb::ErrorResponse{wire::tb::kNotReady};
    const auto fragment = wire::tb::property_fragment(block_, generation_, self_, *properties);
    // The block has become shorter since the peer began to read it: it is to begin again.
    if (!fragment) return wire::tb::ErrorResponse{wire::tb::kNotReady};
    return *fragment;
  }
  return wire::tb::ErrorResponse{wire::tb::kNotSupported};
}

void XDomainPeer::owe(const wire::tb::XDomainMessage& answer, uint8_t sequence) {
  if (answers_.size() == kAnswersMax) {
    ++stats_.overflows;
    return;
  }
  ++stats_.requests;
  answers_.push_back(
      encode_xdomain(answer, {.route = route_, .from_router = false, .sequence = sequence}));
}

bool XDomainPeer::poll_transmit(Instant now, wire::tb::XDomainPacket& out) {
  if (!answers_.empty()) {
    out = std::move(answers_.front());
    answers_.pop_front();
    return true;
  }
  wire::tb::XDomainMessage request;
  uint8_t sequence = 0;
  if (!requester_.poll_transmit(now, request, sequence)) return false;
  out = encode_xdomain(request, {.route = route_, .from_router = false, .sequence = sequence});
  return true;
}

}  // namespace tbt::fabric
