// Packets to frames and back, and every way in which a peer can get it wrong.
#include "ip/frame.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace tbt::ip {
namespace {

std::vector<std::byte> packet_of(size_t bytes, uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<std::byte> packet(bytes);
  for (std::byte& b : packet) b = static_cast<std::byte>(rng.below(256));
  return packet;
}

std::vector<std::vector<std::byte>> frames_of(std::span<const std::byte> packet, uint16_t id) {
  PacketFrames frames(packet, id);
  std::vector<std::vector<std::byte>> out;
  for (auto frame = frames.next(); !frame.empty(); frame = frames.next()) {
    out.emplace_back(frame.begin(), frame.end());
  }
  EXPECT_EQ(out.size(), frames.count());
  return out;
}

std::vector<std::byte> frame_with(const FrameHeader& header, size_t payload) {
  std::vector<std::byte> frame(kFrameHeaderBytes + payload);
  encode_frame_header(header, frame.data());
  return frame;
}

TEST(IpFrame, TheHeaderIsTwelveBytesLittleEndian) {
  const auto frame = frame_with({.size = 0x102, .index = 0x3, .id = 0x405, .count = 6}, 0x102);
  const std::vector<uint8_t> wanted = {0x02, 0x01, 0, 0, 0x03, 0, 0x05, 0x04, 6, 0, 0, 0};
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(frame[i], std::byte{wanted[i]}) << i;
  EXPECT_EQ(decode_frame_header(frame), (FrameHeader{0x102, 3, 0x405, 6}));
}

TEST(IpFrame, PacketsOfEveryKindOfLengthComeBack) {
  PacketAssembly assembly;
  uint16_t id = 65530;  // goes round
  for (const size_t bytes :
       {size_t{1}, size_t{60}, kFramePayloadMax - 1, kFramePayloadMax, kFramePayloadMax + 1,
        3 * kFramePayloadMax, size_t{20000}, kPacketBytesMax - 1, kPacketBytesMax}) {
    const auto packet = packet_of(bytes);
    const auto frames = frames_of(packet, id++);
    EXPECT_EQ(frames.size(), (bytes + 4083) / 4084);
    for (size_t i = 0; i < frames.size(); ++i) {
      ASSERT_LE(frames[i].size(), kFrameBytesMax);
      ASSERT_EQ(assembly.add(frames[i]), i + 1 == frames.size());
    }
    ASSERT_TRUE(std::ranges::equal(assembly.packet(), packet)) << bytes;
  }
  EXPECT_EQ(assembly.stats().malformed + assembly.stats().missed, 0u);
}

TEST(IpFrame, WhatStandsBehindThePayloadIsNotOfIt) {
  auto frame = frame_with({.size = 5, .index = 0, .id = 1, .count = 1}, 60);
  PacketAssembly assembly;
  ASSERT_TRUE(assembly.add(frame));
  EXPECT_EQ(assembly.packet().size(), 5u);
}

TEST(IpFrame, EveryTruncationIsRefused) {
  const auto whole = frame_with({.size = 30, .index = 0, .id = 1, .count = 1}, 30);
  EXPECT_TRUE(decode_frame_header(whole));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<long>(bytes));
    EXPECT_FALSE(decode_frame_header(cut)) << bytes;
  }
}

TEST(IpFrame, FieldsOutOfTheirRangesAreRefused) {
  for (const FrameHeader& bad :
       {FrameHeader{0, 0, 1, 1}, FrameHeader{31, 0, 1, 1}, FrameHeader{UINT32_MAX, 0, 1, 1},
        FrameHeader{30, 0, 1, 0}, FrameHeader{30, 0, 1, kFrameCountMax + 1},
        FrameHeader{30, 0, 1, UINT32_MAX}, FrameHeader{30, 1, 1, 1}}) {
    PacketAssembly assembly;
    EXPECT_FALSE(assembly.add(frame_with(bad, 30)));
    EXPECT_EQ(assembly.stats().malformed, 1u);
    EXPECT_TRUE(assembly.packet().empty());
  }
  EXPECT_FALSE(decode_frame_header(std::vector<std::byte>(kFrameBytesMax + 1)));
}

TEST(IpFrame, AFrameThatIsMissingTakesItsPacketAndNoOther) {
  const auto first = packet_of(20000, 1), second = packet_of(20000, 2);
  const auto one = frames_of(first, 7), two = frames_of(second, 8);
  for (size_t missing = 0; missing < one.size(); ++missing) {
    PacketAssembly assembly;
    for (size_t i = 0; i < one.size(); ++i) {
      if (i == missing) continue;
      ASSERT_FALSE(assembly.add(one[i])) << missing;
    }
    EXPECT_GE(assembly.stats().missed + (missing + 1 == one.size()), 1u);
    for (size_t i = 0; i < two.size(); ++i) {
      ASSERT_EQ(assembly.add(two[i]), i + 1 == two.size()) << missing;
    }
    EXPECT_TRUE(std::ranges::equal(assembly.packet(), second));
  }
}

TEST(IpFrame, FramesOfDifferentPacketsAreNotMixed) {
  const auto packet = packet_of(3 * kFramePayloadMax);
  const auto frames = frames_of(packet, 7);
  const size_t full = kFramePayloadMax;
  for (const FrameHeader& other :
       {FrameHeader{full, 1, 8, 3}, FrameHeader{full, 1, 7, 4}, FrameHeader{full, 2, 7, 3}}) {
    PacketAssembly assembly;
    ASSERT_FALSE(assembly.add(frames[0]));
    EXPECT_FALSE(assembly.add(frame_with(other, full)));
    EXPECT_FALSE(assembly.add(frames[1]));
    EXPECT_FALSE(assembly.add(frames[2]));
    EXPECT_EQ(assembly.stats().packets, 0u);
  }
}

TEST(IpFrame, ARepeatedFirstFrameBeginsAnew) {
  const auto packet = packet_of(5000);
  const auto frames = frames_of(packet, 7);
  PacketAssembly assembly;
  ASSERT_FALSE(assembly.add(frames[0]));
  ASSERT_FALSE(assembly.add(frames[0]));
  ASSERT_TRUE(assembly.add(frames[1]));
  EXPECT_TRUE(std::ranges::equal(assembly.packet(), packet));
}

TEST(IpFrame, APacketThatWouldBeTooLongIsRefused) {
  PacketAssembly assembly;
  const size_t full = kFramePayloadMax;
  uint16_t index = 0;
  for (; (index + 1u) * full <= kPacketBytesMax; ++index) {
    ASSERT_FALSE(assembly.add(frame_with({full, index, 1, kFrameCountMax}, full)));
  }
  EXPECT_FALSE(assembly.add(frame_with({full, index, 1, kFrameCountMax}, full)));
  EXPECT_EQ(assembly.stats().malformed, 1u);
  const auto packet = packet_of(100);
  EXPECT_TRUE(assembly.add(frames_of(packet, 2)[0])) << "and the next one is taken";
}

TEST(IpFrame, ResetForgetsWhatWasBegun) {
  const auto packet = packet_of(5000);
  const auto frames = frames_of(packet, 7);
  PacketAssembly assembly;
  ASSERT_FALSE(assembly.add(frames[0]));
  assembly.reset();
  EXPECT_FALSE(assembly.add(frames[1]));
  EXPECT_TRUE(assembly.packet().empty());
}

}  // namespace
}  // namespace tbt::ip
