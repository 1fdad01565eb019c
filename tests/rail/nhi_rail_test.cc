// The rail over a cable, as its users see it.
#include "world.h"

namespace tbt::rail::test {
namespace {

TEST(NhiRail, AFrameArrivesWithItsBytesAndPdfs) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 2);
  EXPECT_FALSE(b->rx_pending());
  ASSERT_TRUE(send(*a, 2, 77, 300));
  EXPECT_TRUE(b->rx_pending());
  std::array<RxPacket, 4> packets;
  ASSERT_EQ(b->rx_burst(packets), 1u);
  EXPECT_EQ(packets[0].head.length, 300u);
  EXPECT_EQ(packets[0].head.sof, 1);
  EXPECT_EQ(packets[0].head.eof, 1);
  EXPECT_EQ(number_of(packets[0].head), 77u);
  EXPECT_EQ(packets[0].head.data[299], std::byte{77});
  EXPECT_EQ(packets[0].payload.data, nullptr);
  b->rx_release(std::span(packets).first(1));
  EXPECT_FALSE(b->rx_pending());
  EXPECT_EQ(world.fabric->counters(0).misuse, 0u) << world.fabric->counters(0).last_misuse;
  EXPECT_EQ(world.fabric->counters(1).misuse, 0u) << world.fabric->counters(1).last_misuse;
}

TEST(NhiRail, AFullFrameIs4096Bytes) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 2);
  ASSERT_TRUE(send(*a, 2, 5, 4096));
  std::array<RxPacket, 1> packets;
  ASSERT_EQ(b->rx_burst(packets), 1u);
  EXPECT_EQ(packets[0].head.length, 4096u);
  EXPECT_EQ(packets[0].head.data[4095], std::byte{5});
}

TEST(NhiRail, OrderIsKeptOverManyRounds) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 2);
  uint32_t sent = 0, got = 0;
  while (got < 5000) {
    while (sent < 5000 && send(*a, 2, sent, 40 + sent % 100)) ++sent;
    const auto numbers = receive(*b);
    ASSERT_FALSE(numbers.empty()) << "after " << got << " of " << sent;
    for (const uint32_t n : numbers) ASSERT_EQ(n, got++);
  }
  EXPECT_EQ(a->stats().tx_frames, 5000u);
  EXPECT_EQ(b->stats().rx_frames, 5000u);
  EXPECT_GT(a->stats().tx_full, 0u);
  EXPECT_EQ(world.fabric->counters(0).misuse + world.fabric->counters(1).misuse, 0u);
}

}  // namespace
}  // namespace tbt::rail::test
