// Control messages: the bytes of docs/wire.md, the way there and back, and the session tag.
#include "wire/control.h"

#include <gtest/gtest.h>

#include <string>

#include "samples.h"

namespace tbt::wire {
namespace {

using testing::sample_hello;

template <typename T>
T decoded(const ControlMessage& message) {
  const testing::ExactBytes bytes(encode_control(message));
  ControlMessage out;
  EXPECT_EQ(decode_control(bytes.span(), out), ControlError::kNone);
  EXPECT_TRUE(std::holds_alternative<T>(out));
  return std::get<T>(out);
}

void expect_bytes(const ControlMessage& message, const std::vector<int>& expected) {
  std::vector<int> bytes;
  for (std::byte b : encode_control(message)) bytes.push_back(static_cast<int>(b));
  EXPECT_EQ(bytes, expected);
}

TEST(Control, HelloComesBackAsItWent) {
  Hello m = sample_hello();
  m.reply = true;
  const Hello back = decoded<Hello>(m);
  EXPECT_EQ(back.version, kProtocolVersion);
  EXPECT_TRUE(back.reply);
  EXPECT_EQ(back.features, m.features);
  EXPECT_EQ(back.incarnation, m.incarnation);
  EXPECT_EQ(back.peer_incarnation, m.peer_incarnation);
  EXPECT_EQ(back.uuid, m.uuid);
  EXPECT_EQ(back.cable, m.cable);
  EXPECT_EQ(back.host_name, m.host_name);
  ASSERT_EQ(back.ports.size(), m.ports.size());
  for (size_t i = 0; i < m.ports.size(); ++i) {
    EXPECT_EQ(back.ports[i].lid, m.ports[i].lid);
    EXPECT_EQ(back.ports[i].cable, m.ports[i].cable);
    EXPECT_EQ(back.ports[i].gids, m.ports[i].gids);
  }
}

TEST(Control, TheLongestHelloFits) {
  Hello m = sample_hello();
  m.host_name.assign(kHostNameMax, 'h');
  m.ports.clear();
  for (uint8_t i = 0; i < kPortsMax; ++i) {
    const auto cable = static_cast<uint8_t>(i == 0 ? 0xff : i - 1);
    m.ports.push_back({.lid = static_cast<uint16_t>(64 + i),
                       .cable = cable,
                       .gids = std::vector<GidBytes>(kGidsPerPortMax)});
  }
  EXPECT_LE(encode_control(m).size(), kControlMessageMax);
  EXPECT_LE(encode_control(m).size(), kFrameBytesMax - kFrameHeaderBytes - kCheckBytes);
  EXPECT_EQ(decoded<Hello>(m).ports.size(), kPortsMax);
}

TEST(Control, SmallMessagesHaveTheirBytes) {
  expect_bytes(Refuse{.version = 1, .reason = kRefuseSelf}, {2, 0, 0, 1, 0, 2, 0, 0});
  expect_bytes(Heartbeat{.incarnation = 0x0102, .sequence = 3, .reply = true},
               {3, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3});
  expect_bytes(Bye{.incarnation = 0x0a0b}, {4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x0a, 0x0b});
  expect_bytes(ProcessGone{.slot = 63, .first = 0x3ffff, .count = 0x40000, .lid = 0x0140},
               {5, 0, 0, 1, 63, 0, 1, 0x40, 0, 3, 0xff, 0xff, 0, 4, 0, 0});
}

TEST(Control, SmallMessagesComeBackAsTheyWent) {
  const auto heartbeat =
      decoded<Heartbeat>(Heartbeat{.incarnation = 7, .sequence = ~0ull, .reply = false});
  EXPECT_EQ(heartbeat.incarnation, 7u);
  EXPECT_EQ(heartbeat.sequence, ~0ull);
  EXPECT_FALSE(heartbeat.reply);
  EXPECT_EQ(decoded<Bye>(Bye{.incarnation = 9}).incarnation, 9u);
  const auto gone = decoded<ProcessGone>(ProcessGone{.slot = 5, .first = 6, .count = 7, .lid = 8});
  EXPECT_EQ(gone.slot, 5);
  EXPECT_EQ(gone.first, 6u);
  EXPECT_EQ(gone.count, 7u);
  EXPECT_EQ(gone.lid, 8);
  EXPECT_EQ(decoded<Refuse>(Refuse{.version = 1, .reason = 3}).reason, 3);
}

TEST(Control, ARefusalIsReadInAnyVersion) {
  const auto refuse = decoded<Refuse>(Refuse{.version = 77, .reason = kRefuseVersion});
  EXPECT_EQ(refuse.version, 77);
}

TEST(Control, AHelloOfAnotherVersionGivesThatVersionOnly) {
  auto bytes = encode_control(sample_hello());
  bytes[3] = std::byte{2};
  ControlMessage out;
  EXPECT_EQ(decode_control(bytes, out), ControlError::kUnknownVersion);
  ASSERT_TRUE(std::holds_alternative<Hello>(out));
  EXPECT_EQ(std::get<Hello>(out).version, 2);
  EXPECT_EQ(std::get<Hello>(out).incarnation, 0u);
  // Whatever follows the first four bytes may be anything in that version.
  bytes.resize(4);
  EXPECT_EQ(decode_control(bytes, out), ControlError::kUnknownVersion);
}

TEST(SessionTag, IsTheSameFromBothEndsAndNeverZero) {
  EXPECT_EQ(session_tag(1, 2), session_tag(2, 1));
  EXPECT_NE(session_tag(1, 2), session_tag(1, 3));
  EXPECT_NE(session_tag(0, 0), 0u);
  EXPECT_NE(session_tag(5, 5), 0u);
}

TEST(SessionTag, EveryBitOfEitherIncarnationMatters) {
  const uint64_t a = 0x0123456789abcdef, b = 0xfedcba9876543210;
  const uint32_t tag = session_tag(a, b);
  for (int bit = 0; bit < 64; ++bit) {
    EXPECT_NE(session_tag(a ^ (1ull << bit), b), tag) << bit;
    EXPECT_NE(session_tag(a, b ^ (1ull << bit)), tag) << bit;
  }
}

}  // namespace
}  // namespace tbt::wire
