// The part of the responder that speaks IPv6: so that `ping ff02::1%thunderbolt0` finds us on a
// peer where nobody has configured anything.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "ip/packet_layout.h"
#include "ip/responder.h"

namespace tbt::ip {

using base::load_be;
using base::store_be;

namespace {

constexpr Ipv6 kUnspecified{};
constexpr Ipv6 kAllNodes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01};

Ipv6 ipv6_at(const std::byte* at) noexcept {
  Ipv6 address;
  std::memcpy(address.data(), at, address.size());
  return address;
}

// ff02::1:ff00:0 and the last three bytes of the address that is asked for.
Ipv6 solicited_node(const Ipv6& address) noexcept {
  Ipv6 group{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff};
  std::copy(address.end() - 3, address.end(), group.end() - 3);
  return group;
}

// Of addresses, length and protocol (RFC 8200, section 8.1), and of what follows the header.
uint16_t checksum_of(std::span<const std::byte> packet, size_t length) noexcept {
  const uint32_t pseudo = static_cast<uint32_t>(length) + kNextIcmpv6;
  const uint32_t addresses = checksum_add(pseudo, packet.subspan(kIp6Source, 2 * kIp6Bytes));
  return checksum_fold(checksum_add(addresses, packet.subspan(kIp6End, length)));
}

}  // namespace

Responder::Verdict Responder::ipv6(std::span<const std::byte> packet) {
  if (packet.size() < kIp6End) return Verdict::kMalformed;
  const std::byte* const p = packet.data();
  const size_t length = load_be<uint16_t>(p + kIp6Length);
  if (length > packet.size() - kIp6End) return Verdict::kMalformed;
  const Ipv6 source = ipv6_at(p + kIp6Source), target = ipv6_at(p + kIp6Target);
  const bool ours = target == me_.ipv6 || target == kAllNodes || target == solicited_node(me_.ipv6);
  if (std::to_integer<uint8_t>(p[kIp6]) >> 4 != 6 || p[kIp6Next] != std::byte{kNextIcmpv6} ||
      !ours || source == me_.ipv6 || source[0] == 0xff) {
    return Verdict::kIgnore;
  }
  if (length < kIcmp6Bytes || checksum_of(packet, length) != 0xffff) return Verdict::kMalformed;
  return icmpv6(packet, length);
}

Responder::Verdict Responder::icmpv6(std::span<const std::byte> packet, size_t length) {
  const std::byte* const p = packet.data();
  const Ipv6 source = ipv6_at(p + kIp6Source);
  if (p[kIp6End + 1] != std::byte{0}) return Verdict::kIgnore;
  if (p[kIp6End] == std::byte{kSolicitation}) return solicitation(packet, length);
  if (p[kIp6End] != std::byte{kEcho6Request} || source == kUnspecified) return Verdict::kIgnore;
  turn_round(packet, kIp6End + length);
  std::byte* const a = answer_.data();
  std::memcpy(a + kIp6Target, source.data(), kIp6Bytes);
  a[kIp6HopLimit] = std::byte{kTtl};
  a[kIp6End] = std::byte{kEcho6Reply};
  seal_icmpv6(length);
  return Verdict::kAnswer;
}

// Whoever looks whether his address is free has none yet, and then all are told.
Responder::Verdict Responder::solicitation(std::span<const std::byte> packet, size_t length) {
  const std::byte* const p = packet.data();
  if (length < kNdBytes || p[kIp6HopLimit] != std::byte{kNdHopLimit}) return Verdict::kMalformed;
  if (ipv6_at(p + kNdTarget) != me_.ipv6) return Verdict::kIgnore;
  const Ipv6 source = ipv6_at(p + kIp6Source);
  const bool asks = source != kUnspecified;
  turn_round(packet, kNdOptions);
  answer_.resize(kNdOptions + kNdOptionBytes);
  std::byte* const a = answer_.data();
  std::memcpy(a + kIp6Target, asks ? source.data() : kAllNodes.data(), kIp6Bytes);
  if (!asks) {
    constexpr uint8_t kAllNodesMac[kMacBytes] = {0x33, 0x33, 0, 0, 0, 0x01};
    std::memcpy(a, kAllNodesMac, kMacBytes);
  }
  store_be(a + kIp6Length, static_cast<uint16_t>(kNdBytes + kNdOptionBytes));
  a[kIp6End] = std::byte{kAdvertisement};
  store_be(a + kNdFlags, kNdOverride | (asks ? kNdSolicited : 0));
  a[kNdOptions] = std::byte{kNdOptionTargetMac};
  a[kNdOptions + 1] = std::byte{1};  // in units of eight bytes
  std::memcpy(a + kNdOptions + 2, me_.mac.data(), kMacBytes);
  seal_icmpv6(kNdBytes + kNdOptionBytes);
  return Verdict::kAnswer;
}

// The rest of what all answers have in common; all but our address and the checksum stands.
void Responder::seal_icmpv6(size_t length) {
  std::byte* const a = answer_.data();
  std::memcpy(a + kIp6Source, me_.ipv6.data(), kIp6Bytes);
  store_be(a + kIcmp6Checksum, uint16_t{0});
  store_be(a + kIcmp6Checksum, static_cast<uint16_t>(~checksum_of(answer_, length)));
}

}  // namespace tbt::ip
