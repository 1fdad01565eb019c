// Packets as a peer's network stack makes them, and the internet checksum in another way than the
// responder's.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <vector>

#include "ip/responder.h"

namespace tbt::ip::test {

using Packet = std::vector<std::byte>;

inline Identity peer_identity() {
  std::array<uint8_t, 16> router{};
  router[0] = 0x55;
  Identity peer = identity_of(router, 0, 1);
  peer.ipv4 = {169, 254, 84, 200};
  return peer;
}
inline Identity own_identity() { return identity_of(std::array<uint8_t, 16>{}, 0, 0); }

inline void put(Packet& p, std::initializer_list<unsigned> bytes) {
  for (const unsigned byte : bytes) p.push_back(static_cast<std::byte>(byte));
}
template <size_t N>
void put(Packet& p, const std::array<uint8_t, N>& bytes) {
  for (const uint8_t byte : bytes) p.push_back(std::byte{byte});
}
inline void put16(Packet& p, size_t value) {
  put(p, {static_cast<unsigned>(value >> 8 & 0xff), static_cast<unsigned>(value & 0xff)});
}
inline unsigned get16(const Packet& p, size_t at) {
  return std::to_integer<unsigned>(p[at]) << 8 | std::to_integer<unsigned>(p[at + 1]);
}
inline void set16(Packet& p, size_t at, unsigned value) {
  p[at] = static_cast<std::byte>(value >> 8 & 0xff);
  p[at + 1] = static_cast<std::byte>(value & 0xff);
}

inline Packet ethernet(const Mac& to, unsigned type) {
  Packet p;
  put(p, to);
  put(p, peer_identity().mac);
  put16(p, type);
  return p;
}

// With end-around carry after each word.
inline unsigned sum_of(const Packet& p, size_t from, size_t to, unsigned sum = 0) {
  for (size_t i = from; i < to; i += 2) {
    const unsigned low = i + 1 < to ? std::to_integer<unsigned>(p[i + 1]) : 0;
    sum += std::to_integer<unsigned>(p[i]) << 8 | low;
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

template <size_t N>
bool stands_at(const Packet& p, size_t at, const std::array<uint8_t, N>& bytes) {
  return p.size() >= at + N && std::memcmp(p.data() + at, bytes.data(), N) == 0;
}

inline Packet answer_of(Responder& responder, const Packet& packet) {
  // Exactly as long as it is, so that a sanitizer sees a read of one byte too many.
  const auto answer = responder.handle(packet);
  return {answer.begin(), answer.end()};
}

}  // namespace tbt::ip::test
