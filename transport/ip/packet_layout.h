// Where things stand in the packets that the responder reads and writes. Offsets of IP headers are
// from the beginning of the Ethernet packet. All numbers are big endian.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tbt::ip {

inline constexpr size_t kMacBytes = 6;
inline constexpr size_t kEthSource = 6, kEthType = 12, kEthBytes = 14;
inline constexpr uint16_t kTypeIpv4 = 0x0800, kTypeArp = 0x0806, kTypeIpv6 = 0x86dd;

// ARP (RFC 826), for Ethernet and IPv4.
inline constexpr size_t kArp = kEthBytes, kArpOperation = kArp + 6, kArpSenderMac = kArp + 8,
                        kArpSender = kArp + 14, kArpTargetMac = kArp + 18, kArpTarget = kArp + 24,
                        kArpEnd = kArp + 28;
inline constexpr uint64_t kArpEthernetIpv4 = 0x0001'0800'0604;  // its first six bytes
inline constexpr uint16_t kArpRequest = 1, kArpReply = 2;

// IPv4 (RFC 791) without options.
inline constexpr size_t kIp = kEthBytes, kIpLength = kIp + 2, kIpId = kIp + 4,
                        kIpFragment = kIp + 6, kIpTtl = kIp + 8, kIpProtocol = kIp + 9,
                        kIpChecksum = kIp + 10, kIpSource = kIp + 12, kIpTarget = kIp + 16,
                        kIpEnd = kIp + 20;
inline constexpr uint8_t kIpNoOptions = 0x45, kTtl = 64, kProtocolIcmp = 1;
inline constexpr uint16_t kMoreFragments = 0x2000, kFragmentOffset = 0x1fff;

// ICMP echo (RFC 792).
inline constexpr size_t kIcmpChecksum = kIpEnd + 2, kIcmpBytes = 8;
inline constexpr uint8_t kEchoRequest = 8, kEchoReply = 0;

// IPv6 (RFC 8200) without extension headers.
inline constexpr size_t kIp6 = kEthBytes, kIp6Length = kIp6 + 4, kIp6Next = kIp6 + 6,
                        kIp6HopLimit = kIp6 + 7, kIp6Source = kIp6 + 8, kIp6Target = kIp6 + 24,
                        kIp6End = kIp6 + 40, kIp6Bytes = 16;
inline constexpr uint8_t kNextIcmpv6 = 58;

// ICMPv6 (RFC 4443), and neighbour discovery (RFC 4861).
inline constexpr size_t kIcmp6Checksum = kIp6End + 2, kIcmp6Bytes = 8, kNdFlags = kIp6End + 4,
                        kNdTarget = kIp6End + 8, kNdOptions = kIp6End + 24, kNdBytes = 24,
                        kNdOptionBytes = 8;
inline constexpr uint8_t kEcho6Request = 128, kEcho6Reply = 129, kSolicitation = 135,
                         kAdvertisement = 136, kNdHopLimit = 255, kNdOptionTargetMac = 2;
inline constexpr uint32_t kNdSolicited = 1u << 30, kNdOverride = 1u << 29;

}  // namespace tbt::ip
