// Control messages of ThunderboltIP (USB4NET), by which two hosts bring up the network interface
// that Linux calls thunderbolt0. We speak it so that a host without our software sees a peer;
// docs/wire.md, section 6.6, and the kernel's drivers/net/thunderbolt/main.c.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <variant>

#include "wire/tb/uuid.h"
#include "wire/tb/xdomain.h"

namespace tbt::wire::tb {

inline constexpr uint32_t kThunderboltIpVersion = 1;
// The service by which a host offers it: protocol id, version and revision are 1.
inline constexpr std::string_view kThunderboltIpServiceKey = "network";
inline constexpr Uuid kThunderboltIpServiceUuid = uuid("c66189ca-1cce-4195-bdb8-49592e5f5a4f");
inline constexpr uint32_t kThunderboltIpSettings = 1u << 1 | 1u << 2;  // fragment ids, 64K packets
inline constexpr uint16_t kHopIdMax = 0x7ff;                           // 11 bits in path entries

struct IpLogin {
  uint32_t version = kThunderboltIpVersion;
  uint16_t transmit_path = 0;  // the HopID by which the sender's frames will come, 1..kHopIdMax
  friend bool operator==(const IpLogin&, const IpLogin&) = default;
};
struct IpLoginResponse {
  uint32_t status = 0;  // 0 is success
  bool has_mac = true;
  std::array<uint8_t, 6> mac{};  // of the sender's interface; zeros if it has none
  friend bool operator==(const IpLoginResponse&, const IpLoginResponse&) = default;
};
struct IpLogout {
  friend bool operator==(const IpLogout&, const IpLogout&) = default;
};
// The answer to a logout.
struct IpStatus {
  uint32_t status = 0;
  friend bool operator==(const IpStatus&, const IpStatus&) = default;
};

struct IpMessage {
  Uuid initiator, target;   // of the hosts: sender and receiver, in answers too
  uint32_t command_id = 0;  // counts the sender's requests; an answer may bear any
  std::variant<IpLogin, IpLoginResponse, IpLogout, IpStatus> content;
  friend bool operator==(const IpMessage&, const IpMessage&) = default;
};

// Linux sends requests and answers alike as XDomain responses, and so do we; both are read.
XDomainPacket encode_thunderbolt_ip(const IpMessage& message, const XDomainAddress& address);

// `out` is only written on kNone.
XDomainError decode_thunderbolt_ip(const XDomainPacket& packet, IpMessage& out);

}  // namespace tbt::wire::tb
