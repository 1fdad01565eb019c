// The copy that pollers of memory rely on.
#include "harness.h"

namespace tbt::engine {
namespace {

TEST(CopyInOrder, IsACopyForEveryLengthAndAlignment) {
  std::array<std::byte, 128> from{};
  for (size_t i = 0; i < from.size(); ++i) from[i] = std::byte(i + 1);
  for (size_t offset = 0; offset < 16; ++offset) {
    for (size_t length = 0; length <= 64; ++length) {
      alignas(16) std::array<std::byte, 128> to{};
      copy_in_order(to.data() + 16 + offset, from.data() + 3, length);
      for (size_t i = 0; i < to.size(); ++i) {
        const bool inside = i >= 16 + offset && i < 16 + offset + length;
        ASSERT_EQ(to[i], inside ? from[i - 16 - offset + 3] : std::byte{0})
            << offset << ' ' << length << ' ' << i;
      }
    }
  }
}

TEST(Gather, CrossesSgesWithinOnePacket) {
  Harness h;
  for (uint32_t i = 0; i < 100; ++i) h.memory[i] = std::byte(i);
  const Sge sges[3] = {
      {h.address(10), 3, h.key}, {h.address(50), 0, h.key}, {h.address(80), 5, h.key}};
  SendWr wr;
  wr.sg_list = sges;
  wr.num_sge = 3;
  ASSERT_TRUE(h.try_post(wr).ok());
  const Sent sent = h.expect_packet(wire::Opcode::kRcSendOnly);
  const std::vector<std::byte> expected = {std::byte{10}, std::byte{11}, std::byte{12},
                                           std::byte{80}, std::byte{81}, std::byte{82},
                                           std::byte{83}, std::byte{84}};
  EXPECT_EQ(sent.payload, expected);
}

}  // namespace
}  // namespace tbt::engine
