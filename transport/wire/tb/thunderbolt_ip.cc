// ThunderboltIP messages to packet bodies and back, in the manner of xdomain.cc.
#include "wire/tb/thunderbolt_ip.h"

#include <utility>

namespace tbt::wire::tb {
namespace {

enum Type : uint32_t { kTypeLogin = 0, kTypeLoginResponse = 1, kTypeLogout = 2, kTypeStatus = 3 };
constexpr size_t kReservedWords = 4;  // at the end of both login messages; ignored

using Body = DwordList<kXDomainBodyMax>;

uint32_t type_of(const IpLogin& /*m*/) { return kTypeLogin; }
uint32_t type_of(const IpLoginResponse& /*m*/) { return kTypeLoginResponse; }
uint32_t type_of(const IpLogout& /*m*/) { return kTypeLogout; }
uint32_t type_of(const IpStatus& /*m*/) { return kTypeStatus; }

bool legal(const IpLogin& m) { return m.transmit_path >= 1 && m.transmit_path <= kHopIdMax; }
bool legal(const IpLoginResponse& m) { return m.has_mac || m.mac == std::array<uint8_t, 6>{}; }
bool legal(const IpLogout& /*m*/) { return true; }
bool legal(const IpStatus& /*m*/) { return true; }

void put_reserved(Body& b) {
  for (size_t i = 0; i < kReservedWords; ++i) b.push(0u);
}

void put(Body& b, const IpLogin& m) {
  b.push(m.version);
  b.push(m.transmit_path);
  put_reserved(b);
}
// The address is reversed in each word, like a UUID.
void put(Body& b, const IpLoginResponse& m) {
  b.push(m.status);
  b.push(m.mac[0] | uint32_t{m.mac[1]} << 8 | uint32_t{m.mac[2]} << 16 | uint32_t{m.mac[3]} << 24);
  b.push(m.mac[4] | uint32_t{m.mac[5]} << 8);
  b.push(m.has_mac ? static_cast<uint32_t>(m.mac.size()) : 0);
  put_reserved(b);
}
void put(Body& /*b*/, const IpLogout& /*m*/) {}
void put(Body& b, const IpStatus& m) { b.push(m.status); }

bool get(DwordReader& r, IpLogin& m) {
  m.version = r.take();
  const uint32_t path = r.take();
  m.transmit_path = static_cast<uint16_t>(path);
  r.take(kReservedWords);
  return path <= kHopIdMax;
}
bool get(DwordReader& r, IpLoginResponse& m) {
  m.status = r.take();
  const uint32_t words[2] = {r.take(), r.take()};
  const uint32_t length = r.take();
  r.take(kReservedWords);
  m.has_mac = length != 0;
  for (size_t i = 0; m.has_mac && i < m.mac.size(); ++i) {
    m.mac[i] = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
  }
  return length == 0 || length == m.mac.size();
}
bool get(DwordReader& /*r*/, IpLogout& /*m*/) { return true; }
bool get(DwordReader& r, IpStatus& m) {
  m.status = r.take();
  return true;
}

template <typename T>
XDomainError decode_as(DwordReader& r, IpMessage& message, T content, IpMessage& out) {
  const bool fields_ok = get(r, content);
  if (!r.exhausted()) return XDomainError::kBadLength;
  if (!fields_ok || !legal(content)) return XDomainError::kBadField;
  message.content = content;
  out = message;
  return XDomainError::kNone;
}

}  // namespace

XDomainPacket encode_thunderbolt_ip(const IpMessage& message, const XDomainAddress& address) {
  XDomainPacket packet{.route = address.route,
                       .from_router = address.from_router,
                       .response = true,
                       .sequence = address.sequence,
                       .protocol = kThunderboltIpProtocol,
                       .body = {}};
  packet.body.push(message.initiator);
  packet.body.push(message.target);
  std::visit(
      [&](const auto& content) {
        TBT_ASSERT(legal(content));
        packet.body.push(type_of(content));
        packet.body.push(message.command_id);
        put(packet.body, content);
      },
      message.content);
  return packet;
}

XDomainError decode_thunderbolt_ip(const XDomainPacket& packet, IpMessage& out) {
  if (packet.protocol != kThunderboltIpProtocol) return XDomainError::kOtherProtocol;
  DwordReader r(packet.body.span());
  IpMessage message;
  message.initiator = r.take_uuid();
  message.target = r.take_uuid();
  const uint32_t type = r.take();
  message.command_id = r.take();
  if (r.truncated()) return XDomainError::kBadLength;
  switch (type) {
    case kTypeLogin:
      return decode_as(r, message, IpLogin{}, out);
    case kTypeLoginResponse:
      return decode_as(r, message, IpLoginResponse{}, out);
    case kTypeLogout:
      return decode_as(r, message, IpLogout{}, out);
    case kTypeStatus:
      return decode_as(r, message, IpStatus{}, out);
    default:
      return XDomainError::kUnknownType;
  }
}

}  // namespace tbt::wire::tb
