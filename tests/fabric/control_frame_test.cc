// Control frames, and the classifier that sends frames to their slots.
#include "fabric/control_frame.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "fabric/attach.h"
#include "wire/control.h"
#include "wire/frame.h"
#include "wire/packet.h"

namespace tbt::fabric {
namespace {

struct Framed {
  std::array<std::byte, rail::kFrameBytes> bytes{};
  rail::TxFrame frame;
  [[nodiscard]] rail::RxPacket received() const {
    return {.head = {bytes.data(), frame.length, 0, frame.sof, frame.eof}, .payload = {}};
  }
};

Framed framed(uint32_t tag) {
  Framed f;
  f.frame =
      encode_control_frame(wire::encode_control(wire::Heartbeat{7, 8, false}), tag, f.bytes.data());
  return f;
}

TEST(ControlFrame, ComesBackAsItWas) {
  const Framed f = framed(0x12345678);
  ControlFrame out;
  ASSERT_TRUE(decode_control_frame(f.received(), out));
  EXPECT_EQ(out.tag, 0x12345678u);
  wire::ControlMessage message;
  EXPECT_EQ(wire::decode_control(out.message, message), wire::ControlError::kNone);
  EXPECT_TRUE(std::holds_alternative<wire::Heartbeat>(message));
}

TEST(ControlFrame, EveryFlippedBitIsFound) {
  Framed f = framed(1);
  for (uint32_t bit = 0; bit < f.frame.length * 8; bit++) {
    f.bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    ControlFrame out;
    EXPECT_FALSE(decode_control_frame(f.received(), out)) << "bit " << bit;
    f.bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

TEST(ControlFrame, EveryShortenedFrameIsFound) {
  Framed f = framed(1);
  for (const uint32_t whole = f.frame.length; f.frame.length > 1;) {
    f.frame.length--;
    ControlFrame out;
    EXPECT_FALSE(decode_control_frame(f.received(), out)) << f.frame.length << " of " << whole;
  }
}

TEST(ControlFrame, OtherFramesAreNone) {
  Framed f = framed(1);
  f.frame.sof = f.frame.eof = wire::kSofPacket;
  ControlFrame out;
  EXPECT_FALSE(decode_control_frame(f.received(), out));
}

std::vector<std::byte> packet_to(uint32_t qpn, bool with_grh) {
  wire::PacketHeaders h;
  h.opcode = static_cast<uint8_t>(wire::Opcode::kUdSendOnly);
  h.dest_qp = qpn;
  h.has_grh = with_grh;
  h.dlid = 64;
  std::vector<std::byte> bytes(wire::kFrameHeaderBytes + wire::kMaxHeaderBytes);
  const size_t n = wire::encode_headers(h, 0, std::span(bytes).subspan(wire::kFrameHeaderBytes));
  bytes.resize(wire::kFrameHeaderBytes + n);
  return bytes;
}

TEST(Classify, TheSlotIsInTheHighBitsOfTheQpn) {
  for (const bool with_grh : {false, true}) {
    for (const uint32_t slot : {0u, 1u, 31u, 63u}) {
      const auto bytes = packet_to(slot << 18 | 0x12345, with_grh);
      EXPECT_EQ(classify(bytes, wire::kSofPacket, wire::kEofWhole), slot);
      EXPECT_EQ(classify(bytes, wire::kSofPacket, wire::kEofHead), slot);
    }
  }
}

TEST(Classify, ControlFramesGoToTheDaemon) {
  const Framed f = framed(1);
  EXPECT_EQ(classify({f.bytes.data(), f.frame.length}, f.frame.sof, f.frame.eof),
            rail::kDaemonSlot);
}

TEST(Classify, WhatHasNoQpnIsForNobody) {
  for (const bool with_grh : {false, true}) {
    const auto bytes = packet_to(5u << 18, with_grh);
    const size_t bth_end = wire::kFrameHeaderBytes + wire::kLrhBytes +
                           (with_grh ? wire::kGrhBytes : 0) + wire::kBthBytes;
    for (size_t n = 0; n < bth_end; n++) {
      EXPECT_EQ(classify(std::span(bytes).first(n), wire::kSofPacket, wire::kEofWhole),
                rail::kNoSlot)
          << n;
    }
    EXPECT_EQ(classify(std::span(bytes).first(bth_end), wire::kSofPacket, wire::kEofWhole), 5);
  }
  auto raw = packet_to(5u << 18, false);
  raw[wire::kFrameHeaderBytes + 1] &= std::byte{0xfc};  // LNH: raw
  EXPECT_EQ(classify(raw, wire::kSofPacket, wire::kEofWhole), rail::kNoSlot);
  EXPECT_EQ(classify(raw, wire::kSofPayload, wire::kEofPayload), rail::kNoSlot);
}

}  // namespace
}  // namespace tbt::fabric
