// The UUIDs of hosts, protocols and directories. In memory they stand in the order in which they
// are printed. On the control channel each of their four dwords is reversed: Linux and macOS copy
// the bytes into packets as little endian dwords, and the channel then turns every dword to big
// endian.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>

namespace tbt::wire::tb {

struct Uuid {
  std::array<uint8_t, 16> bytes{};

  // In the order of memcmp: of two hosts, the one with the lower UUID drives lane bonding.
  friend constexpr auto operator<=>(const Uuid&, const Uuid&) = default;
};

// The value of dword `index` (0..3) of a UUID on the channel, before it is turned to big endian.
constexpr uint32_t uuid_dword(const Uuid& uuid, unsigned index) noexcept {
  uint32_t value = 0;
  for (unsigned i = 4; i-- > 0;) value = value << 8 | uuid.bytes[index * 4 + i];
  return value;
}

constexpr Uuid uuid_from_dwords(const uint32_t (&dwords)[4]) noexcept {
  Uuid uuid;
  for (unsigned i = 0; i < 16; ++i) {
    uuid.bytes[i] = static_cast<uint8_t>(dwords[i / 4] >> (8 * (i % 4)));
  }
  return uuid;
}

namespace detail {

consteval uint8_t hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<uint8_t>(c - 'a' + 10);
  throw "not a hexadecimal digit";
}

}  // namespace detail

// A UUID written as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx; anything else does not compile.
consteval Uuid uuid(const char (&text)[37]) {
  Uuid out;
  unsigned at = 0;
  for (uint8_t& byte : out.bytes) {
    if (at == 8 || at == 13 || at == 18 || at == 23) {
      if (text[at++] != '-') throw "a UUID has dashes after 8, 12, 16 and 20 digits";
    }
    byte = static_cast<uint8_t>(detail::hex_digit(text[at]) << 4 | detail::hex_digit(text[at + 1]));
    at += 2;
  }
  return out;
}

// As it is written.
inline std::string uuid_text(const Uuid& uuid) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < uuid.bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += kDigits[uuid.bytes[i] >> 4];
    out += kDigits[uuid.bytes[i] & 0xf];
  }
  return out;
}

// Who handles a packet of the XDomain types.
inline constexpr Uuid kDiscoveryProtocol = uuid("b638d70e-42ff-40bb-97c2-90e2c0b2ff07");
inline constexpr Uuid kThunderboltIpProtocol = uuid("798f589e-3616-8a47-97c6-5664a920c8dd");

}  // namespace tbt::wire::tb
