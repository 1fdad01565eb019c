#include "fabric/control_channel.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace tbt::fabric {

using wire::tb::ConfigAddress;
using wire::tb::ConfigData;
using wire::tb::ConfigSpace;
using wire::tb::ControlPacket;
using wire::tb::Notification;

namespace {

constexpr size_t kAcknowledgementsMax = 64;

// What a router says by itself, not as the answer to a request.
bool is_news(uint8_t code) {
  return code == wire::tb::kLinkError || code == wire::tb::kHecError ||
         code == wire::tb::kFlowControlError || code >= wire::tb::kDpBandwidth;
}

ConfigAddress address_of(const ConfigAccess& access, uint8_t sequence) {
  return {.offset = access.offset,
          .length = access.length,
          .adapter = access.adapter,
          .space = access.space,
          .sequence = sequence};
}

}  // namespace

ConfigAccess config_read(ConfigSpace space, uint8_t adapter, uint16_t offset, uint8_t length) {
  return {.route = {},
          .space = space,
          .adapter = adapter,
          .offset = offset,
          .length = length,
          .write = false,
          .data = {}};
}

ConfigAccess config_write(ConfigSpace space, uint8_t adapter, uint16_t offset,
                          std::span<const uint32_t> data) {
  ConfigAccess access = config_read(space, adapter, offset, static_cast<uint8_t>(data.size()));
  access.write = true;
  access.data.push(data);
  return access;
}

uint32_t ControlChannel::post(const ConfigAccess& access) {
  TBT_ASSERT(access.length >= 1 && access.length <= wire::tb::kConfigDataMax);
  if (++last_ticket_ == 0) ++last_ticket_;
  Request request;
  request.ticket = last_ticket_;
  request.access = access;
  requests_.push_back(std::move(request));
  return last_ticket_;
}

void ControlChannel::cancel(uint32_t ticket) {
  std::erase_if(requests_, [&](const Request& request) { return request.ticket == ticket; });
}

void ControlChannel::send(const wire::tb::XDomainPacket& packet) { messages_.push_back(packet); }

void ControlChannel::handle_packet(Instant now, uint8_t pdf, std::span<const std::byte> bytes) {
  ControlPacket packet;
  const wire::tb::PacketError error = decode_control_packet(pdf, bytes, packet);
  if (error == wire::tb::PacketError::kFirmware) {
    ++stats_.firmware;
    // Once is enough to know, and firmware may be talkative.
    if (stats_.firmware == 1) events_.emplace_back(FirmwareSeen{});
    return;
  }
  if (error != wire::tb::PacketError::kNone) {
    ++stats_.malformed[static_cast<size_t>(error)];
    return;
  }
  std::visit([&](const auto& content) { on(now, content); }, packet);
}

void ControlChannel::on(Instant /*now*/, const wire::tb::ReadReply& reply) {
  take_reply(reply.route, reply.address, false, reply.data);
}

void ControlChannel::on(Instant /*now*/, const wire::tb::WriteReply& reply) {
  take_reply(reply.route, reply.address, true, {});
}

void ControlChannel::take_reply(wire::tb::Route route, const ConfigAddress& address, bool write,
                                const ConfigData& data) {
  Request* request = outstanding_on(route);
  ConfigAddress wanted;
  if (request != nullptr) {
    wanted = address_of(request->access, request->sequence);
    wanted.adapter = address.adapter;
  }
  if (request == nullptr || request->access.write != write || wanted != address) {
    ++stats_.stray_replies;
    return;
  }
  ConfigResult result;
  result.data = data;
  finish(*request, std::move(result));
}

void ControlChannel::on(Instant /*now*/, const Notification& notification) {
  if (is_news(notification.code)) {
    ++stats_.notifications;
    acknowledge(wire::tb::NotificationAck{notification.route});
    events_.emplace_back(notification);
    return;
  }
  Request* request = outstanding_on(notification.route);
  if (request == nullptr) {
    ++stats_.stray_errors;
    return;
  }
  ++stats_.errors;
  ConfigResult result;
  result.outcome = ConfigOutcome::kRefused;
  result.error = notification.code;
  finish(*request, std::move(result));
}

void ControlChannel::on(Instant now, const wire::tb::HotPlug& event) {
  ++stats_.hot_plugs;
  acknowledge(wire::tb::HotPlugAck{event.route, event.adapter, event.unplug});
  std::erase_if(seen_, [&](const Seen& seen) { return seen.at + kHotPlugRepeat <= now; });
  // Only the last event of an adapter can be repeated: plug, unplug, plug is three.
  const auto last = std::ranges::find_if(seen_, [&](const Seen& seen) {
    return seen.event.route == event.route && seen.event.adapter == event.adapter;
  });
  if (last != seen_.end()) {
    if (last->event == event) {
      ++stats_.repeated_hot_plugs;
      return;
    }
    seen_.erase(last);
  }
  if (seen_.size() < kAcknowledgementsMax) seen_.push_back({event, now});
  events_.emplace_back(event);
}

void ControlChannel::on(Instant /*now*/, const wire::tb::XDomainPacket& packet) {
  if (packet.from_router) {
    events_.emplace_back(packet);
  } else {
    ++stats_.unexpected;
  }
}

template <typename T>
void ControlChannel::on(Instant /*now*/, const T& /*packet*/) {
  ++stats_.unexpected;
}

void ControlChannel::acknowledge(const ControlPacket& packet) {
  if (acknowledgements_.size() == kAcknowledgementsMax) {
    ++stats_.overflows;  // the router will say it again
    return;
  }
  acknowledgements_.push_back(packet);
}

ControlChannel::Request* ControlChannel::outstanding_on(wire::tb::Route route) {
  const auto at = std::ranges::find_if(requests_, [&](const Request& request) {
    return request.outstanding && request.access.route == route;
  });
  return at == requests_.end() ? nullptr : &*at;
}

void ControlChannel::finish(const Request& request, ConfigResult result) {
  result.ticket = request.ticket;
  cancel(request.ticket);
  events_.emplace_back(std::move(result));
}

void ControlChannel::handle_timeout(Instant now) {
  std::vector<uint32_t> given_up;
  for (Request& request : requests_) {
    if (!request.outstanding || now < request.deadline) continue;
    request.outstanding = false;  // keeps its place in the order
    if (request.attempts == kConfigAttempts) given_up.push_back(request.ticket);
  }
  for (const uint32_t ticket : given_up) {
    ++stats_.unanswered;
    const auto at = std::ranges::find(requests_, ticket, &Request::ticket);
    ConfigResult result;
    result.outcome = ConfigOutcome::kNoAnswer;
    finish(*at, std::move(result));
  }
}

ControlChannel::Request* ControlChannel::next_request() {
  std::vector<wire::tb::Route> busy;
  for (Request& request : requests_) {
    const bool taken = std::ranges::find(busy, request.access.route) != busy.end();
    if (!taken && !request.outstanding) return &request;
    if (!taken) busy.push_back(request.access.route);
  }
  return nullptr;
}

bool ControlChannel::poll_transmit(Instant now, wire::tb::ControlFrame& out) {
  if (!acknowledgements_.empty()) {
    encode_control_packet(acknowledgements_.front(), out);
    acknowledgements_.pop_front();
    return true;
  }
  if (Request* request = next_request(); request != nullptr) {
    request->sequence = sequence_++ % 4;
    request->outstanding = true;
    request->deadline = now + kConfigTimeout;
    if (request->attempts++ == 0) {
      ++stats_.requests;
    } else {
      ++stats_.retries;
    }
    const ConfigAccess& access = request->access;
    const ConfigAddress address = address_of(access, request->sequence);
    if (access.write) {
      encode_control_packet(wire::tb::WriteRequest{access.route, address, access.data}, out);
    } else {
      encode_control_packet(wire::tb::ReadRequest{access.route, address}, out);
    }
    return true;
  }
  if (messages_.empty()) return false;
  encode_control_packet(messages_.front(), out);
  messages_.pop_front();
  return true;
}

bool ControlChannel::poll_event(ChannelEvent& out) {
  if (events_.empty()) return false;
  out = std::move(events_.front());
  events_.pop_front();
  return true;
}

Instant ControlChannel::poll_timeout() const {
  Instant next = Instant::never();
  for (const Request& request : requests_) {
    if (request.outstanding) next = std::min(next, request.deadline);
  }
  return next;
}

}  // namespace tbt::fabric
