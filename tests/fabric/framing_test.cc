// Packets in frames: what is written over old bytes of a buffer, and what a reader makes of frames
// that somebody put together himself.
#include "fabric/framing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace tbt::fabric {
namespace {

constexpr uint32_t kTag = 0x1234567;

struct Written {
  std::array<std::vector<std::byte>, 2> buffers;
  std::array<rail::TxFrame, 2> frames{};
  size_t count = 0;

  [[nodiscard]] rail::RxPacket received() const {
    auto frame = [this](size_t i) {
      return rail::RxFrame{buffers[i].data(), frames[i].length, 0, frames[i].sof, frames[i].eof};
    };
    rail::RxPacket packet;
    packet.head = frame(0);
    if (count == 2) packet.payload = frame(1);
    return packet;
  }
};

// `old`: what whoever used the buffers before has left there.
Written write(uint32_t payload_bytes, std::byte old = std::byte{0xee}, uint32_t tag = kTag) {
  Written out;
  for (auto& buffer : out.buffers) buffer.assign(4096, old);
  wire::PacketHeaders headers;
  headers.opcode = static_cast<uint8_t>(wire::Opcode::kRcSendOnly);
  const std::vector<std::byte> payload(payload_bytes, std::byte{0x11});
  const std::span<const std::byte> piece(payload);
  std::byte* const raw[2] = {out.buffers[0].data(), out.buffers[1].data()};
  out.count = write_packet(headers, {&piece, 1}, payload_bytes, tag, raw, out.frames);
  return out;
}

bool read(const Written& written, FramingStats& stats, uint32_t tag = kTag) {
  wire::ParsedPacket packet;
  std::span<const std::byte> payload;
  return read_packet(written.received(), tag, stats, packet, payload);
}

// A frame's bytes are all its own: no byte of an earlier frame leaves with a later one (T6).
TEST(Framing, NothingOfTheBuffersOldContentLeaves) {
  for (uint32_t bytes : {0u, 1u, 2u, 3u, 4u, 255u, 256u, 4001u, 4093u, 4094u, 4095u, 4096u}) {
    const Written one = write(bytes, std::byte{0xee});
    const Written other = write(bytes, std::byte{0x77});
    FramingStats stats;
    ASSERT_TRUE(read(one, stats)) << bytes;
    for (size_t i = 0; i < one.count; ++i) {
      ASSERT_EQ(one.frames[i].length, other.frames[i].length);
      const auto end = one.buffers[i].begin() + one.frames[i].length;
      EXPECT_TRUE(std::equal(one.buffers[i].begin(), end, other.buffers[i].begin()))
          << bytes << " bytes, frame " << i;
    }
  }
}

// What the receiver gets is the same; the second buffer is left alone.
TEST(Framing, APayloadFrameLeavesFromWhereItLies) {
  alignas(64) static std::array<std::byte, 4096> memory;
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(i * 5);
  wire::PacketHeaders headers;
  headers.opcode = static_cast<uint8_t>(wire::Opcode::kRcSendOnly);
  struct Case {
    uint64_t iova;
    uint32_t bytes;
    bool direct;
  };
  for (const Case c : {Case{0x1000000040, 4096, true}, Case{0x1000000040, 4092, true},
                       Case{0, 4096, false}, Case{0x1000000020, 4096, false},
                       Case{0x1000000040, 4095, false}, Case{0x1000000040, 512, false}}) {
    Written out;
    for (auto& buffer : out.buffers) buffer.assign(4096, std::byte{0xee});
    const auto piece = std::span<const std::byte>(memory).first(c.bytes);
    std::byte* const raw[2] = {out.buffers[0].data(), out.buffers[1].data()};
    out.count = write_packet(headers, {&piece, 1}, c.bytes, kTag, raw, out.frames, c.iova);
    ASSERT_EQ(out.count, c.bytes > 4000 ? 2u : 1u);
    EXPECT_EQ(out.frames[0].direct.iova, 0u);
    EXPECT_EQ(out.frames[1].direct.iova, c.direct ? c.iova : 0) << c.bytes;
    if (c.direct) {
      EXPECT_EQ(out.frames[1].direct.data, memory.data());
      const auto& left = out.buffers[1];
      EXPECT_EQ(std::count(left.begin(), left.end(), std::byte{0xee}), 4096);
      std::copy(piece.begin(), piece.end(), out.buffers[1].begin());  // as the controller does
    }
    FramingStats stats;
    EXPECT_TRUE(read(out, stats)) << c.bytes << " at " << c.iova;
    if (!c.direct) continue;
    out.buffers[1][c.bytes - 1] ^= std::byte{1};  // it was changed before the controller came
    EXPECT_FALSE(read(out, stats));
  }
}

TEST(Framing, AFrameOfAnotherSessionIsDroppedAndCounted) {
  FramingStats stats;
  EXPECT_FALSE(read(write(8), stats, kTag + 1));
  EXPECT_EQ(stats.bad_frame[static_cast<size_t>(wire::FrameError::kStaleTag)], 1u);
}

// Two hosts may both have none, and be strangers all the same.
TEST(Framing, WithoutASessionNothingIsTaken) {
  FramingStats stats;
  EXPECT_FALSE(read(write(8, std::byte{0xee}, 0), stats, 0));
  EXPECT_EQ(stats.bad_frame[static_cast<size_t>(wire::FrameError::kStaleTag)], 1u);
}

// Every bit of a frame is under the check, so damage never reaches the engine.
TEST(Framing, AnyFlippedBitIsFound) {
  for (uint32_t bytes : {16u, 4096u}) {
    Written written = write(bytes);
    for (size_t i = 0; i < written.count; ++i) {
      for (uint32_t at = 0; at < written.frames[i].length; at += at < 80 ? 1 : 97) {
        for (int bit = 0; bit < 8; ++bit) {
          FramingStats stats;
          written.buffers[i][at] ^= std::byte(1 << bit);
          EXPECT_FALSE(read(written, stats)) << "frame " << i << " byte " << at << " bit " << bit;
          written.buffers[i][at] ^= std::byte(1 << bit);
        }
      }
    }
  }
}

TEST(Framing, FramesThatDoNotBelongTogetherAreRefused) {
  Written large = write(4096);
  Written small = write(8);
  FramingStats stats;
  Written headless = large;
  headless.count = 1;  // the payload frame is missing
  EXPECT_FALSE(read(headless, stats));
  Written whole_and_more = small;
  whole_and_more.count = 2;
  whole_and_more.buffers[1] = large.buffers[1];
  whole_and_more.frames[1] = large.frames[1];
  EXPECT_FALSE(read(whole_and_more, stats));
  Written cut = large;
  cut.frames[1].length = 100;
  EXPECT_FALSE(read(cut, stats));
  EXPECT_TRUE(read(large, stats));
}

}  // namespace
}  // namespace tbt::fabric
