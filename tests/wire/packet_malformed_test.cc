// Packets that are cut short, lie about their length or bear a version we do not know are refused,
// and nothing outside the given bytes is read (the buffers are exact heap allocations).
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "samples.h"
#include "wire/packet.h"

namespace tbt::wire {
namespace {

using testing::build_packet;
using testing::ExactBytes;
using testing::sample_headers;

constexpr auto kWriteOnly = static_cast<uint8_t>(Opcode::kRcWriteOnly);

ParseError parse(std::span<const std::byte> bytes, size_t packet_bytes) {
  ParsedPacket parsed;
  return parse_packet(bytes, packet_bytes, parsed);
}

// What becomes of a good packet after `change`.
ParseError parse_changed(uint8_t opcode, bool grh, uint32_t payload,
                         const std::function<void(std::span<std::byte>)>& change) {
  ExactBytes bytes(build_packet(sample_headers(opcode, grh), payload));
  change(bytes.writable());
  return parse(bytes.span(), bytes.span().size());
}

TEST(PacketMalformed, CutAnywhereInTheHeadersOfAnyOpcodeIsTruncated) {
  for (uint8_t opcode : testing::known_opcodes()) {
    for (bool grh : {false, true}) {
      const auto whole = build_packet(sample_headers(opcode, grh), 0);
      for (size_t n = 0; n < whole.size(); ++n) {
        const ExactBytes cut{std::span(whole).first(n)};
        EXPECT_EQ(parse(cut.span(), whole.size()), ParseError::kTruncated)
            << opcode_info(opcode).name << " at " << n;
      }
    }
  }
}

TEST(PacketMalformed, CutWithAMatchingPacketSizeIsNeverAccepted) {
  for (uint8_t opcode : testing::known_opcodes()) {
    const auto whole = build_packet(sample_headers(opcode, true), 0);
    for (size_t n = 0; n < whole.size(); ++n) {
      const ExactBytes cut{std::span(whole).first(n)};
      EXPECT_NE(parse(cut.span(), n), ParseError::kNone) << opcode_info(opcode).name << " at " << n;
    }
  }
}

// The LRH agrees with the shortened packet, so that only the later checks can refuse it.
TEST(PacketMalformed, CutWithAMatchingLrhIsTruncated) {
  for (uint8_t opcode : testing::known_opcodes()) {
    const auto whole = build_packet(sample_headers(opcode, false), 0);
    for (size_t n = kLrhBytes; n < whole.size(); n += 4) {
      ExactBytes cut{std::span(whole).first(n)};
      base::store_be<uint16_t>(cut.writable().data() + 4, static_cast<uint16_t>((n + 4) / 4));
      EXPECT_EQ(parse(cut.span(), n), ParseError::kTruncated)
          << opcode_info(opcode).name << " at " << n;
    }
  }
}

TEST(PacketMalformed, ExtraBytesAreRefused) {
  auto bytes = build_packet(sample_headers(kWriteOnly, false), 8);
  bytes.resize(bytes.size() + 4);
  EXPECT_EQ(parse(bytes, bytes.size()), ParseError::kBadLength);
  EXPECT_EQ(parse(bytes, bytes.size() - 4), ParseError::kBadLength);
}

TEST(PacketMalformed, EveryWrongLrhLengthIsRefused) {
  const auto good = build_packet(sample_headers(kWriteOnly, false), 8);
  for (uint16_t words = 0; words < 0x800; ++words) {
    if (words == (good.size() + 4) / 4) continue;
    ExactBytes bytes{std::span<const std::byte>(good)};
    base::store_be<uint16_t>(bytes.writable().data() + 4, words);
    EXPECT_EQ(parse(bytes.span(), good.size()), ParseError::kBadLength) << words;
  }
}

TEST(PacketMalformed, AHeadThatCarriesPartOfThePayloadIsRefused) {
  const auto whole = build_packet(sample_headers(kWriteOnly, false), 64);
  const size_t headers = whole.size() - 64;
  for (size_t n = headers + 1; n < whole.size(); ++n) {
    EXPECT_EQ(parse(std::span(whole).first(n), whole.size()), ParseError::kBadLength) << n;
  }
}

TEST(PacketMalformed, PadBeyondThePayloadIsRefused) {
  for (int pad = 1; pad <= 3; ++pad) {
    const auto set_pad = [pad](std::span<std::byte> b) {
      b[9] = (b[9] & std::byte{0xcf}) | static_cast<std::byte>(pad << 4);
    };
    EXPECT_EQ(parse_changed(kWriteOnly, false, 0, set_pad), ParseError::kBadLength);
    EXPECT_EQ(parse_changed(kWriteOnly, false, 4, set_pad), ParseError::kNone);
  }
}

TEST(PacketMalformed, PayloadWhereNoneMayBeIsRefused) {
  for (uint8_t opcode : testing::known_opcodes()) {
    if (opcode_has(opcode, kOpPayload)) continue;
    auto bytes = build_packet(sample_headers(opcode, false), 0);
    bytes.resize(bytes.size() + 4);
    base::store_be<uint16_t>(bytes.data() + 4, static_cast<uint16_t>((bytes.size() + 4) / 4));
    EXPECT_EQ(parse(bytes, bytes.size()), ParseError::kBadLength) << opcode_info(opcode).name;
  }
}

TEST(PacketMalformed, UnknownVersionsAreRefused) {
  for (int v = 1; v < 16; ++v) {
    const auto lver = [v](std::span<std::byte> b) { b[0] |= static_cast<std::byte>(v); };
    const auto tver = [v](std::span<std::byte> b) { b[9] |= static_cast<std::byte>(v); };
    EXPECT_EQ(parse_changed(kWriteOnly, false, 8, lver), ParseError::kBadVersion);
    EXPECT_EQ(parse_changed(kWriteOnly, false, 8, tver), ParseError::kBadVersion);
  }
  for (int v = 0; v < 16; ++v) {
    if (v == 6) continue;
    const auto ip = [v](std::span<std::byte> b) {
      b[8] = (b[8] & std::byte{0x0f}) | static_cast<std::byte>(v << 4);
    };
    EXPECT_EQ(parse_changed(kWriteOnly, true, 8, ip), ParseError::kBadVersion);
  }
  const auto next_header = [](std::span<std::byte> b) { b[14] = std::byte{17}; };
  EXPECT_EQ(parse_changed(kWriteOnly, true, 8, next_header), ParseError::kBadVersion);
}

TEST(PacketMalformed, GrhLengthMustAgree) {
  const auto longer = [](std::span<std::byte> b) { b[13] ^= std::byte{4}; };
  EXPECT_EQ(parse_changed(kWriteOnly, true, 8, longer), ParseError::kBadLength);
}

TEST(PacketMalformed, RawPacketsAreRefused) {
  for (int lnh : {0, 1}) {
    const auto raw = [lnh](std::span<std::byte> b) {
      b[1] = (b[1] & std::byte{0xfc}) | static_cast<std::byte>(lnh);
    };
    EXPECT_EQ(parse_changed(kWriteOnly, false, 8, raw), ParseError::kBadLink);
  }
}

TEST(PacketMalformed, EveryUnknownOpcodeIsRefused) {
  for (int i = 0; i < 256; ++i) {
    const auto opcode = static_cast<uint8_t>(i);
    if (opcode_info(opcode).name != nullptr) continue;
    const auto change = [opcode](std::span<std::byte> b) { b[8] = std::byte{opcode}; };
    EXPECT_EQ(parse_changed(kWriteOnly, false, 8, change), ParseError::kUnknownOpcode) << i;
  }
}

TEST(PacketMalformed, EveryErrorHasAName) {
  for (uint8_t e = 0; e <= static_cast<uint8_t>(ParseError::kUnknownOpcode); ++e) {
    EXPECT_STRNE(parse_error_name(static_cast<ParseError>(e)), "?");
  }
}

}  // namespace
}  // namespace tbt::wire
