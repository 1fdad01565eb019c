// XDomain messages to packet bodies and back. The body begins with the type; each message has a
// `put` and a `get` for the words after it, and `legal` is asked in both directions.
#include "wire/tb/xdomain.h"

#include <type_traits>
#include <utility>

namespace tbt::wire::tb {
namespace {

enum Type : uint32_t {
  kTypeUuidRequestOld = 1,
  kTypeUuidResponse = 2,
  kTypePropertiesRequest = 3,
  kTypePropertiesResponse = 4,
  kTypePropertiesChangedRequest = 5,
  kTypePropertiesChangedResponse = 6,
  kTypeErrorResponse = 7,
  kTypeUuidRequest = 12,
  kTypeLinkStateStatusRequest = 15,
  kTypeLinkStateStatusResponse = 16,
  kTypeLinkStateChangeRequest = 17,
  kTypeLinkStateChangeResponse = 18,
};

using Body = DwordList<kXDomainBodyMax>;

template <typename T>
bool legal(const T& /*message*/) {
  return true;
}
bool legal(const UuidResponse& m) { return route_is_legal(m.source_route); }
bool legal(const PropertiesRequest& m) { return m.offset < kPropertyBlockMax; }
bool legal(const PropertiesResponse& m) {
  return m.total <= kPropertyBlockMax && !m.data.empty() && m.offset + m.data.size() <= m.total;
}

void put(Body& b, const UuidRequest& m) {
  b.push(m.old_type ? kTypeUuidRequestOld : kTypeUuidRequest);
}
void put(Body& b, const UuidResponse& m) {
  b.push(kTypeUuidResponse);
  b.push(m.source);
  b.push(route_high(m.source_route));
  b.push(route_low(m.source_route));
}
void put(Body& b, const PropertiesRequest& m) {
  b.push(kTypePropertiesRequest);
  b.push(m.source);
  b.push(m.destination);
  b.push(m.offset);
}
void put(Body& b, const PropertiesResponse& m) {
  b.push(kTypePropertiesResponse);
  b.push(m.source);
  b.push(m.destination);
  b.push(m.offset | uint32_t{m.total} << 16);
  b.push(m.generation);
  b.push(m.data.span());
}
void put(Body& b, const PropertiesChangedRequest& m) {
  b.push(kTypePropertiesChangedRequest);
  b.push(m.source);
}
void put(Body& b, const PropertiesChangedResponse& /*m*/) {
  b.push(kTypePropertiesChangedResponse);
}
void put(Body& b, const ErrorResponse& m) {
  b.push(kTypeErrorResponse);
  b.push(m.code);
}
void put(Body& b, const LinkStateStatusRequest& /*m*/) { b.push(kTypeLinkStateStatusRequest); }
void put(Body& b, const LinkStateStatusResponse& m) {
  b.push(kTypeLinkStateStatusResponse);
  b.push(m.status);
  b.push(m.supported_width | uint32_t{m.target_width} << 8 | uint32_t{m.supported_speed} << 16 |
         uint32_t{m.target_speed} << 24);
}
void put(Body& b, const LinkStateChangeRequest& m) {
  b.push(kTypeLinkStateChangeRequest);
  b.push(m.target_width | uint32_t{m.target_speed} << 8);
}
void put(Body& b, const LinkStateChangeResponse& m) {
  b.push(kTypeLinkStateChangeResponse);
  b.push(m.status);
}

// Reserved halves of words are ignored: what other systems put there has not been seen.
bool get(DwordReader& /*r*/, UuidRequest& /*m*/) { return true; }
bool get(DwordReader& r, UuidResponse& m) {
  m.source = r.take_uuid();
  const uint32_t high = r.take();
  m.source_route = route_from_dwords(high, r.take());
  return (high & ~kRouteHighMask) == 0;
}
bool get(DwordReader& r, PropertiesRequest& m) {
  m.source = r.take_uuid();
  m.destination = r.take_uuid();
  m.offset = static_cast<uint16_t>(r.take());
  return true;
}
bool get(DwordReader& r, PropertiesResponse& m) {
  m.source = r.take_uuid();
  m.destination = r.take_uuid();
  const uint32_t word = r.take();
  m.offset = static_cast<uint16_t>(word);
  m.total = static_cast<uint16_t>(word >> 16);
  m.generation = r.take();
  const size_t count = r.rest().size();
  if (count > kPropertyFragmentMax) return false;
  m.data.push(r.take(count));
  return true;
}
bool get(DwordReader& r, PropertiesChangedRequest& m) {
  m.source = r.take_uuid();
  return true;
}
// Linux 7.3 sends one word more, 0.
bool get(DwordReader& r, PropertiesChangedResponse& /*m*/) {
  if (!r.exhausted()) r.take();
  return true;
}
bool get(DwordReader& r, ErrorResponse& m) {
  m.code = r.take();
  return true;
}
bool get(DwordReader& /*r*/, LinkStateStatusRequest& /*m*/) { return true; }
bool get(DwordReader& r, LinkStateStatusResponse& m) {
  m.status = r.take();
  const uint32_t word = r.take();
  m.supported_width = static_cast<uint8_t>(word);
  m.target_width = static_cast<uint8_t>(word >> 8);
  m.supported_speed = static_cast<uint8_t>(word >> 16);
  m.target_speed = static_cast<uint8_t>(word >> 24);
  return true;
}
bool get(DwordReader& r, LinkStateChangeRequest& m) {
  const uint32_t word = r.take();
  m.target_width = static_cast<uint8_t>(word);
  m.target_speed = static_cast<uint8_t>(word >> 8);
  return true;
}
bool get(DwordReader& r, LinkStateChangeResponse& m) {
  m.status = r.take();
  return true;
}

template <typename T>
constexpr bool kIsResponse =
    std::is_same_v<T, UuidResponse> || std::is_same_v<T, PropertiesResponse> ||
    std::is_same_v<T, PropertiesChangedResponse> || std::is_same_v<T, ErrorResponse> ||
    std::is_same_v<T, LinkStateStatusResponse> || std::is_same_v<T, LinkStateChangeResponse>;

template <typename T>
XDomainError decode_as(DwordReader& r, bool response, T message, XDomainMessage& out) {
  if (response != kIsResponse<T>) return XDomainError::kWrongKind;
  const bool fields_ok = get(r, message);
  if (r.truncated()) return XDomainError::kBadLength;
  if (!fields_ok) return XDomainError::kBadField;
  if (!r.exhausted()) return XDomainError::kBadLength;
  if (!legal(message)) return XDomainError::kBadField;
  out = std::move(message);
  return XDomainError::kNone;
}

}  // namespace

bool is_response(const XDomainMessage& message) noexcept {
  return std::visit([](const auto& m) { return kIsResponse<std::decay_t<decltype(m)>>; }, message);
}

XDomainPacket encode_xdomain(const XDomainMessage& message, const XDomainAddress& address) {
  XDomainPacket packet{.route = address.route,
                       .from_router = address.from_router,
                       .response = is_response(message),
                       .sequence = address.sequence,
                       .protocol = kDiscoveryProtocol,
                       .body = {}};
  std::visit(
      [&packet](const auto& m) {
        TBT_ASSERT(legal(m));
        put(packet.body, m);
      },
      message);
  return packet;
}

XDomainError decode_xdomain(const XDomainPacket& packet, XDomainMessage& out) {
  if (packet.protocol != kDiscoveryProtocol) return XDomainError::kOtherProtocol;
  DwordReader r(packet.body.span());
  const uint32_t type = r.take();
  if (r.truncated()) return XDomainError::kBadLength;
  const bool response = packet.response;
  switch (type) {
    case kTypeUuidRequestOld:
      return decode_as(r, response, UuidRequest{.old_type = true}, out);
    case kTypeUuidRequest:
      return decode_as(r, response, UuidRequest{}, out);
    case kTypeUuidResponse:
      return decode_as(r, response, UuidResponse{}, out);
    case kTypePropertiesRequest:
      return decode_as(r, response, PropertiesRequest{}, out);
    case kTypePropertiesResponse:
      return decode_as(r, response, PropertiesResponse{}, out);
    case kTypePropertiesChangedRequest:
      return decode_as(r, response, PropertiesChangedRequest{}, out);
    case kTypePropertiesChangedResponse:
      return decode_as(r, response, PropertiesChangedResponse{}, out);
    case kTypeErrorResponse:
      return decode_as(r, response, ErrorResponse{}, out);
    case kTypeLinkStateStatusRequest:
      return decode_as(r, response, LinkStateStatusRequest{}, out);
    case kTypeLinkStateStatusResponse:
      return decode_as(r, response, LinkStateStatusResponse{}, out);
    case kTypeLinkStateChangeRequest:
      return decode_as(r, response, LinkStateChangeRequest{}, out);
    case kTypeLinkStateChangeResponse:
      return decode_as(r, response, LinkStateChangeResponse{}, out);
    default:
      return XDomainError::kUnknownType;
  }
}

const char* xdomain_error_name(XDomainError error) noexcept {
  switch (error) {
    case XDomainError::kNone:
      return "none";
    case XDomainError::kOtherProtocol:
      return "other protocol";
    case XDomainError::kUnknownType:
      return "unknown type";
    case XDomainError::kBadLength:
      return "bad length";
    case XDomainError::kBadField:
      return "bad field";
    case XDomainError::kWrongKind:
      return "wrong kind";
    case XDomainError::kUnknownVersion:
      return "unknown version";
  }
  return "?";
}

const char* xdomain_message_name(const XDomainMessage& message) noexcept {
  constexpr const char* kNames[] = {
      "uuid request",
      "uuid response",
      "properties request",
      "properties response",
      "properties changed request",
      "properties changed response",
      "error response",
      "link state status request",
      "link state status response",
      "link state change request",
      "link state change response",
  };
  static_assert(std::size(kNames) == std::variant_size_v<XDomainMessage>);
  return kNames[message.index()];
}

}  // namespace tbt::wire::tb
