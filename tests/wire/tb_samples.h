// What the tests of the Thunderbolt codecs share: packets written as hexadecimal text, checksums
// made right again after a change, generated packets.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "samples.h"
#include "wire/tb/control_packet.h"

namespace tbt::wire::tb::testing {

using wire::testing::ExactBytes;

// "00 1f a0": two digits a byte, blanks between them do not matter.
inline std::vector<std::byte> hex(std::string_view text) {
  std::vector<std::byte> bytes;
  int digits = 0, value = 0;
  for (const char c : text) {
    if (c == ' ') continue;
    value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    if (++digits % 2 == 0) {
      bytes.push_back(static_cast<std::byte>(value));
      value = 0;
    }
  }
  return bytes;
}

inline std::vector<std::byte> encoded(const ControlPacket& packet, Pdf* pdf = nullptr) {
  ControlFrame frame;
  encode_control_packet(packet, frame);
  if (pdf != nullptr) *pdf = frame.pdf;
  return {frame.span().begin(), frame.span().end()};
}

inline PacketError decode(Pdf pdf, std::span<const std::byte> bytes, ControlPacket& out) {
  const ExactBytes exact(bytes);
  return decode_control_packet(static_cast<uint8_t>(pdf), exact.span(), out);
}

// The words of a packet without its checksum, and the packet that they make.
inline std::vector<uint32_t> words_of(const ControlPacket& packet) {
  const auto bytes = encoded(packet);
  std::vector<uint32_t> words;
  for (size_t at = 0; at + 4 < bytes.size(); at += 4) {
    words.push_back(base::load_be<uint32_t>(bytes.data() + at));
  }
  return words;
}
inline std::vector<std::byte> sealed(const std::vector<uint32_t>& words) {
  std::vector<std::byte> bytes(words.size() * 4 + 4);
  for (size_t i = 0; i < words.size(); ++i) base::store_be(bytes.data() + 4 * i, words[i]);
  base::store_be(bytes.data() + 4 * words.size(), crc32c(std::span(bytes).first(4 * words.size())));
  return bytes;
}
inline PacketError decode_words(Pdf pdf, const std::vector<uint32_t>& words) {
  ControlPacket out;
  return decode(pdf, sealed(words), out);
}

inline Route arbitrary_route() {
  Route route;
  const auto hops = *rc::gen::inRange<unsigned>(0, kRouteHopsMax + 1);
  for (unsigned i = 0; i < hops; ++i) {
    route = route_append(route, *rc::gen::inRange<uint8_t>(1, kAdapterMax + 1));
  }
  return route;
}

inline Uuid arbitrary_uuid() {
  Uuid uuid;
  for (uint8_t& byte : uuid.bytes) byte = *rc::gen::arbitrary<uint8_t>();
  return uuid;
}

template <size_t kMax>
void push_arbitrary(DwordList<kMax>& list, size_t count) {
  for (size_t i = 0; i < count; ++i) list.push(*rc::gen::arbitrary<uint32_t>());
}

inline ConfigAddress arbitrary_address() {
  return {.offset = *rc::gen::inRange<uint16_t>(0, 1 << 13),
          .length = *rc::gen::inRange<uint8_t>(1, kConfigDataMax + 1),
          .adapter = *rc::gen::inRange<uint8_t>(0, kAdapterMax + 1),
          .space = static_cast<ConfigSpace>(*rc::gen::inRange(0, 4)),
          .sequence = *rc::gen::inRange<uint8_t>(0, 4)};
}

inline ControlPacket arbitrary_packet() {
  const Route route = arbitrary_route();
  const ConfigAddress address = arbitrary_address();
  ConfigData data;
  push_arbitrary(data, address.length);
  const auto adapter = *rc::gen::inRange<uint8_t>(0, kAdapterMax + 1);
  const bool flag = *rc::gen::arbitrary<bool>();
  switch (*rc::gen::inRange(0, 10)) {
    case 0:
      return ReadRequest{route, address};
    case 1:
      return ReadReply{route, address, data};
    case 2:
      return WriteRequest{route, address, data};
    case 3:
      return WriteReply{route, address};
    case 4: {
      const auto code = *rc::gen::distinctFrom(rc::gen::arbitrary<uint8_t>(), kHotPlugAckCode);
      return Notification{route, code, adapter};
    }
    case 5:
      return NotificationAck{route};
    case 6:
      return HotPlug{route, adapter, flag};
    case 7:
      return HotPlugAck{route, adapter, flag};
    case 8:
      return Reset{route, flag};
    default: {
      XDomainPacket p{.route = route,
                      .from_router = flag,
                      .response = *rc::gen::arbitrary<bool>(),
                      .sequence = *rc::gen::inRange<uint8_t>(0, 4),
                      .protocol = arbitrary_uuid(),
                      .body = {}};
      push_arbitrary(p.body, *rc::gen::inRange<size_t>(0, kXDomainBodyMax + 1));
      return p;
    }
  }
}

}  // namespace tbt::wire::tb::testing
