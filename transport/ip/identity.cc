#include "ip/identity.h"

#include <algorithm>

namespace tbt::ip {
namespace {

// FNV-1a: far from a cryptographic hash, but two routers whose UUIDs differ in any bit come out
// different with all the probability that 46 bits can give.
uint64_t hash(std::span<const uint8_t, 16> router, uint32_t port) noexcept {
  uint64_t value = 0xcbf2'9ce4'8422'2325;
  const auto add = [&value](uint8_t byte) { value = (value ^ byte) * 0x100'0000'01b3; };
  for (const uint8_t byte : router) add(byte);
  add(static_cast<uint8_t>(port));
  return value ^ value >> 48;
}

}  // namespace

Identity identity_of(std::span<const uint8_t, 16> router, uint32_t port, uint32_t host) noexcept {
  Identity me;
  const uint64_t value = hash(router, port);
  for (size_t i = 0; i < me.mac.size(); ++i) me.mac[i] = static_cast<uint8_t>(value >> (8 * i));
  me.mac[0] = static_cast<uint8_t>((me.mac[0] & 0xfc) | 0x02);  // of one host, and locally given
  me.ipv4 = kIpv4Network;
  me.ipv4[3] = static_cast<uint8_t>(1 + std::min(host, 253u));
  me.ipv6[0] = 0xfe;
  me.ipv6[1] = 0x80;
  std::copy(me.mac.begin(), me.mac.begin() + 3, me.ipv6.begin() + 8);
  me.ipv6[8] ^= 0x02;
  me.ipv6[11] = 0xff;
  me.ipv6[12] = 0xfe;
  std::copy(me.mac.begin() + 3, me.mac.end(), me.ipv6.begin() + 13);
  return me;
}

std::string mac_text(const Mac& mac) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : mac) {
    if (!out.empty()) out += ':';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 0xf];
  }
  return out;
}

std::string ipv4_text(const Ipv4& address) {
  std::string out;
  for (const uint8_t byte : address) out += (out.empty() ? "" : ".") + std::to_string(byte);
  return out;
}

}  // namespace tbt::ip
