// Properties over generated inputs: encode and parse are inverse to each other from both sides, and
// whatever comes in is answered without reading outside it.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "samples.h"
#include "wire/control.h"
#include "wire/packet.h"

namespace tbt::wire {
namespace {

using testing::ExactBytes;

std::span<const std::byte> as_span(const std::vector<uint8_t>& v) {
  return std::as_bytes(std::span(v));
}

PacketHeaders arbitrary_headers() {
  const auto opcodes = testing::known_opcodes();
  PacketHeaders h =
      testing::sample_headers(*rc::gen::elementOf(opcodes), *rc::gen::arbitrary<bool>());
  h.sl = *rc::gen::inRange<uint8_t>(0, 16);
  h.dlid = *rc::gen::arbitrary<uint16_t>();
  h.slid = *rc::gen::arbitrary<uint16_t>();
  h.pkey = *rc::gen::arbitrary<uint16_t>();
  h.solicited = *rc::gen::arbitrary<bool>();
  h.migreq = *rc::gen::arbitrary<bool>();
  h.ack_req = *rc::gen::arbitrary<bool>();
  h.dest_qp = *rc::gen::inRange<uint32_t>(0, 1u << 24);
  h.psn = *rc::gen::inRange<uint32_t>(0, 1u << 24);
  h.va = *rc::gen::arbitrary<uint64_t>();
  h.rkey = *rc::gen::arbitrary<uint32_t>();
  h.syndrome = *rc::gen::arbitrary<uint8_t>();
  return h;
}

TEST(PacketProperty, EncodingWhatWasParsedGivesTheSameBytes) {
  EXPECT_TRUE(rc::check("encode . parse . encode = encode", [] {
    const PacketHeaders h = arbitrary_headers();
    const uint32_t payload = h.is(kOpPayload) ? *rc::gen::inRange<uint32_t>(0, 4097) : 0;
    const ExactBytes bytes(testing::build_packet(h, payload));
    ParsedPacket parsed;
    RC_ASSERT(parse_packet(bytes.span(), bytes.span().size(), parsed) == ParseError::kNone);
    RC_ASSERT(parsed.payload_bytes == payload);
    std::array<std::byte, kMaxHeaderBytes> again{};
    const size_t n = encode_headers(parsed.headers, parsed.payload_bytes, again);
    RC_ASSERT(n == parsed.header_bytes);
    RC_ASSERT(
        std::equal(again.begin(), again.begin() + static_cast<long>(n), bytes.span().begin()));
  }));
}

TEST(PacketProperty, AnyBytesAreAnsweredAndAcceptedSizesAddUp) {
  EXPECT_TRUE(rc::check("parse is total", [](const std::vector<uint8_t>& bytes, uint16_t claimed) {
    const ExactBytes exact(as_span(bytes));
    ParsedPacket parsed;
    if (parse_packet(exact.span(), claimed, parsed) == ParseError::kNone) {
      RC_ASSERT(parsed.header_bytes + parsed.payload_bytes + parsed.headers.pad == claimed);
      RC_ASSERT(parsed.header_bytes <= exact.span().size());
    }
  }));
}

// Random bytes seldom pass the first checks; a good packet with a few changed bytes gets much
// further.
TEST(PacketProperty, ChangedPacketsAreAnsweredAndAcceptedSizesAddUp) {
  EXPECT_TRUE(rc::check("parse is total near good packets", [] {
    const PacketHeaders h = arbitrary_headers();
    auto bytes =
        testing::build_packet(h, h.is(kOpPayload) ? *rc::gen::inRange<uint32_t>(0, 16) : 0);
    const auto changes = *rc::gen::inRange(1, 5);
    for (int i = 0; i < changes; ++i) {
      bytes[*rc::gen::inRange<size_t>(0, bytes.size())] = std::byte{*rc::gen::arbitrary<uint8_t>()};
    }
    const ExactBytes exact(bytes);
    ParsedPacket parsed;
    if (parse_packet(exact.span(), bytes.size(), parsed) == ParseError::kNone) {
      RC_ASSERT(parsed.header_bytes + parsed.payload_bytes + parsed.headers.pad == bytes.size());
    }
  }));
}

TEST(ControlProperty, WhatIsAcceptedIsCanonical) {
  EXPECT_TRUE(rc::check("encode . decode = id on accepted bytes", [] {
    auto bytes = encode_control(testing::sample_hello());
    const auto changes = *rc::gen::inRange(0, 4);
    for (int i = 0; i < changes; ++i) {
      bytes[*rc::gen::inRange<size_t>(0, bytes.size())] = std::byte{*rc::gen::arbitrary<uint8_t>()};
    }
    bytes.resize(*rc::gen::inRange<size_t>(bytes.size() - 2, bytes.size() + 1));
    const ExactBytes exact(bytes);
    ControlMessage message;
    if (decode_control(exact.span(), message) == ControlError::kNone) {
      RC_ASSERT(encode_control(message) == bytes);
    }
  }));
}

TEST(ControlProperty, AnyBytesAreAnswered) {
  EXPECT_TRUE(rc::check("decode is total", [](const std::vector<uint8_t>& bytes) {
    const ExactBytes exact(as_span(bytes));
    ControlMessage message;
    if (decode_control(exact.span(), message) == ControlError::kNone) {
      RC_ASSERT(std::ranges::equal(encode_control(message), exact.span()));
    }
  }));
}

}  // namespace
}  // namespace tbt::wire
