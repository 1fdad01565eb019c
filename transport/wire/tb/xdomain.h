// The discovery protocol between two hosts (XDomain): who are you, what do you offer, something
// has changed, and the state of the link's lanes. Bodies of XDomainPacket under the UUID
// kDiscoveryProtocol; docs/wire.md, section 6.2, and the kernel's drivers/thunderbolt/xdomain.c.
//
// Answers are matched by route and protocol alone: keep one request outstanding per peer. macOS
// answers with other sequence numbers than it was asked with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>

#include "wire/tb/control_packet.h"
#include "wire/tb/dwords.h"
#include "wire/tb/route.h"
#include "wire/tb/uuid.h"

namespace tbt::wire::tb {

inline constexpr size_t kPropertyFragmentMax = 45;  // dwords of a property block in one packet
inline constexpr size_t kPropertyBlockMax = 500;    // dwords of a whole property block

struct UuidRequest {
  bool old_type = false;  // an older number of the same message, answered alike
  friend bool operator==(const UuidRequest&, const UuidRequest&) = default;
};
struct UuidResponse {
  Uuid source;
  Route source_route;  // the responder's own route to the requester
  friend bool operator==(const UuidResponse&, const UuidResponse&) = default;
};

struct PropertiesRequest {
  Uuid source, destination;
  uint16_t offset = 0;  // dwords
  friend bool operator==(const PropertiesRequest&, const PropertiesRequest&) = default;
};
// `data` is what stands at `offset` of a block of `total` dwords: never empty, never beyond it.
struct PropertiesResponse {
  Uuid source, destination;
  uint16_t offset = 0;
  uint16_t total = 0;
  uint32_t generation = 0;  // grows with each change of the block
  DwordList<kPropertyFragmentMax> data;
  friend bool operator==(const PropertiesResponse&, const PropertiesResponse&) = default;
};

struct PropertiesChangedRequest {
  Uuid source;
  friend bool operator==(const PropertiesChangedRequest&,
                         const PropertiesChangedRequest&) = default;
};
struct PropertiesChangedResponse {
  friend bool operator==(const PropertiesChangedResponse&,
                         const PropertiesChangedResponse&) = default;
};

// The answer to any request that is not granted. Other codes are let through.
enum XDomainErrorCode : uint32_t {
  kUnknownPacket = 1,
  kUnknownDomain = 2,
  kNotSupported = 3,
  kNotReady = 4,
};
struct ErrorResponse {
  uint32_t code = kNotSupported;
  friend bool operator==(const ErrorResponse&, const ErrorResponse&) = default;
};

// Widths and speeds are in the encoding of the lane adapter's configuration space.
struct LinkStateStatusRequest {
  friend bool operator==(const LinkStateStatusRequest&, const LinkStateStatusRequest&) = default;
};
struct LinkStateStatusResponse {
  uint32_t status = 0;  // 0 is success
  uint8_t supported_width = 0;
  uint8_t target_width = 0;
  uint8_t supported_speed = 0;
  uint8_t target_speed = 0;
  friend bool operator==(const LinkStateStatusResponse&, const LinkStateStatusResponse&) = default;
};
struct LinkStateChangeRequest {
  uint8_t target_width = 0;
  uint8_t target_speed = 0;
  friend bool operator==(const LinkStateChangeRequest&, const LinkStateChangeRequest&) = default;
};
struct LinkStateChangeResponse {
  uint32_t status = 0;
  friend bool operator==(const LinkStateChangeResponse&, const LinkStateChangeResponse&) = default;
};

using XDomainMessage =
    std::variant<UuidRequest, UuidResponse, PropertiesRequest, PropertiesResponse,
                 PropertiesChangedRequest, PropertiesChangedResponse, ErrorResponse,
                 LinkStateStatusRequest, LinkStateStatusResponse, LinkStateChangeRequest,
                 LinkStateChangeResponse>;

bool is_response(const XDomainMessage& message) noexcept;

// How a message is addressed; the same for this protocol and ThunderboltIP.
struct XDomainAddress {
  Route route;
  bool from_router = false;
  uint8_t sequence = 0;
};
inline XDomainAddress address_of(const XDomainPacket& packet) {
  return {packet.route, packet.from_router, packet.sequence};
}

enum class XDomainError : uint8_t {
  kNone,
  kOtherProtocol,  // somebody else's UUID
  kUnknownType,    // a request of this kind is to be answered with kNotSupported
  kBadLength,
  kBadField,
  kWrongKind,       // a response in the PDF of requests, or the other way round
  kUnknownVersion,  // of a protocol that names one; never to be guessed
};

// The fields must be in their ranges (asserted).
XDomainPacket encode_xdomain(const XDomainMessage& message, const XDomainAddress& address);

// `out` is only written on kNone.
XDomainError decode_xdomain(const XDomainPacket& packet, XDomainMessage& out);

const char* xdomain_error_name(XDomainError error) noexcept;
const char* xdomain_message_name(const XDomainMessage& message) noexcept;

}  // namespace tbt::wire::tb
