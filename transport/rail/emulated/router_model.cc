#include "rail/emulated/router_model.h"

#include <algorithm>

#include "base/bytes.h"
#include "wire/crc32c.h"

namespace tbt::rail::emulated {

using namespace wire::tb;

namespace {

constexpr uint32_t kFromRouter = 1u << 31;
constexpr size_t kXDomainBytesMin = 4 * (2 + 1 + 4 + 1);  // route, length, protocol, checksum

// Its bytes are whole and unharmed.
bool sound(std::span<const std::byte> bytes) noexcept {
  if (bytes.size() < kXDomainBytesMin || bytes.size() > kControlPacketMax || bytes.size() % 4 != 0)
    return false;
  const auto covered = bytes.first(bytes.size() - 4);
  return base::load_be<uint32_t>(bytes.data() + covered.size()) == wire::crc32c(covered);
}

bool is_xdomain(uint8_t pdf) noexcept {
  return pdf == static_cast<uint8_t>(Pdf::kXDomainRequest) ||
         pdf == static_cast<uint8_t>(Pdf::kXDomainResponse);
}

void copy(uint8_t pdf, std::span<const std::byte> bytes, ControlFrame& to) noexcept {
  to.pdf = static_cast<Pdf>(pdf);
  to.bytes = bytes.size();
  std::ranges::copy(bytes, to.buffer.begin());
}

}  // namespace

ControlFrame& RouterOutput::add(uint32_t to) noexcept {
  TBT_ASSERT(count < kPacketsMax);
  Packet& packet = packets[count++];
  packet.to = to;
  return packet.frame;
}

// ---- from the host

void RouterModel::handle_host(uint8_t pdf, std::span<const std::byte> bytes, RouterOutput& out) {
  if (is_xdomain(pdf)) return forward(pdf, bytes, out);
  ControlPacket packet;
  if (decode_control_packet(pdf, bytes, packet) != PacketError::kNone) {
    ++s_.counters.malformed;
    return;
  }
  if (const auto* request = std::get_if<ReadRequest>(&packet)) {
    read(*request, out);
  } else if (const auto* change = std::get_if<WriteRequest>(&packet)) {
    write(*change, out);
  } else if (const auto* ack = std::get_if<HotPlugAck>(&packet)) {
    acknowledge(*ack);
  } else if (std::holds_alternative<NotificationAck>(packet)) {
    ++s_.counters.notifications_acknowledged;
  } else {
    ++s_.counters.ignored;  // what only routers say, and the reset packet of Thunderbolt 1
  }
}

void RouterModel::read(const ReadRequest& request, RouterOutput& out) {
  ++s_.counters.reads;
  if (refuse_beyond(request.route, out)) return;
  const ConfigAddress& address = request.address;
  if (const auto error = check(address)) return refuse(*error, address.adapter, out);
  ReadReply reply{.route = {}, .address = address, .data = {}};
  for (uint32_t i = 0; i < address.length; ++i) reply.data.push(load(address, address.offset + i));
  reply.address.adapter = static_cast<uint8_t>(nhi_adapter(ports()));
  encode_control_packet(reply, out.add(RouterOutput::kHost));
}

void RouterModel::write(const WriteRequest& request, RouterOutput& out) {
  ++s_.counters.writes;
  if (refuse_beyond(request.route, out)) return;
  const ConfigAddress& address = request.address;
  if (const auto error = check(address)) return refuse(*error, address.adapter, out);
  for (uint32_t i = 0; i < address.length; ++i) {
    store(address, address.offset + i, request.data.span()[i]);
  }
  WriteReply reply{.route = {}, .address = address};
  reply.address.adapter = static_cast<uint8_t>(nhi_adapter(ports()));
  encode_control_packet(reply, out.add(RouterOutput::kHost));
  written(address, out);
}

void RouterModel::refuse(uint8_t code, uint32_t adapter, RouterOutput& out) {
  ++s_.counters.refused;
  const Notification error{.route = {}, .code = code, .adapter = static_cast<uint8_t>(adapter)};
  encode_control_packet(error, out.add(RouterOutput::kHost));
}

// Behind every port is another host, whose router obeys its own manager only. It is enumerated from
// elsewhere, so the error is the one of a loop; Linux takes any error for the sign of another
// domain.
bool RouterModel::refuse_beyond(Route route, RouterOutput& out) {
  if (route_depth(route) == 0) return false;
  const uint32_t adapter = route_hop(route, 0);
  const uint32_t port = (adapter - 1) / 2;
  uint8_t code = kRouteLoop;
  if (port >= ports() || adapter != lane_adapter(port)) {
    code = kNoSuchAdapter;
  } else if (!s_.ports[port].link.up) {
    code = kNotConnected;
  } else if ((s_.ports[port].lane0[kAdapterCs4] & kAdapterLock) != 0) {
    code = kAdapterLocked;
  }
  refuse(code, adapter, out);
  return true;
}

void RouterModel::acknowledge(const HotPlugAck& ack) {
  const uint32_t port = (uint32_t{ack.adapter} - 1) / 2;
  if (route_depth(ack.route) != 0 || port >= ports() || ack.adapter != lane_adapter(port)) {
    ++s_.counters.ignored;
    return;
  }
  s_.ports[port].acknowledged = !ack.unplug;
  ++s_.counters.events_acknowledged;
}

void RouterModel::notify(uint8_t code, uint32_t port, RouterOutput& out) {
  const Notification news{
      .route = {}, .code = code, .adapter = static_cast<uint8_t>(lane_adapter(port))};
  encode_control_packet(news, out.add(RouterOutput::kHost));
  ++s_.counters.notifications;
}

// ---- between hosts

// To the other end of a port's cable, as it is. What is in it is for the receiving host to judge.
void RouterModel::forward(uint8_t pdf, std::span<const std::byte> bytes, RouterOutput& out) {
  if (!sound(bytes)) {
    ++s_.counters.malformed;
    return;
  }
  const uint32_t high = base::load_be<uint32_t>(bytes.data());
  const Route route = route_from_dwords(high, base::load_be<uint32_t>(bytes.data() + 4));
  if ((high & ~kRouteHighMask) != 0 || !route_is_legal(route)) {
    ++s_.counters.malformed;
    return;
  }
  const uint32_t adapter = route_hop(route, 0);
  const uint32_t port = (adapter - 1) / 2;
  if (route_depth(route) != 1 || port >= ports() || adapter != lane_adapter(port) ||
      !s_.ports[port].link.up || (s_.ports[port].lane0[kAdapterCs4] & kAdapterLock) != 0) {
    ++s_.counters.unreachable;
    return;
  }
  ++s_.counters.forwarded;
  copy(pdf, bytes, out.add(port));
}

// In its last router a message gets the route by which its receiver can answer.
void RouterModel::handle_cable(uint32_t port, uint8_t pdf, std::span<const std::byte> bytes,
                               RouterOutput& out) {
  TBT_ASSERT(port < ports());
  if (!is_xdomain(pdf) || !sound(bytes) ||
      (base::load_be<uint32_t>(bytes.data()) & ~kRouteHighMask) != 0) {
    ++s_.counters.malformed;
    return;
  }
  if (!s_.ports[port].link.up) {
    ++s_.counters.unreachable;
    return;
  }
  ++s_.counters.delivered;
  ControlFrame& frame = out.add(RouterOutput::kHost);
  copy(pdf, bytes, frame);
  const Route route = route_append({}, static_cast<uint8_t>(lane_adapter(port)));
  base::store_be(frame.buffer.data(), route_high(route) | kFromRouter);
  base::store_be(frame.buffer.data() + 4, route_low(route));
  const auto covered = frame.span().first(frame.bytes - 4);
  base::store_be(frame.buffer.data() + covered.size(), wire::crc32c(covered));
}

// ---- the router as a whole

void RouterModel::reset(RouterOutput& out) {
  power_cycle(s_);
  out.retrain |= (1u << ports()) - 1;
}

void RouterModel::recover() {
  for (uint32_t port = 0; port < ports(); ++port) {
    PortSilicon& p = s_.ports[port];
    p.announced = p.acknowledged;
    show_link(port);
  }
  paths_changed();
}

}  // namespace tbt::rail::emulated
