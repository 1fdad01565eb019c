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

// ---- payload that the controller reads by itself

constexpr uint64_t kDma = 0x1000000000;

TxPacket next(Harness& h) {
  TxPacket packet;
  EXPECT_TRUE(h.endpoint->poll_transmit(h.now, 0, packet));
  return packet;
}

TEST(Direct, ARequestSaysWhereItsPayloadLies) {
  Harness h;
  h.endpoint->regions().set_dma(h.key, kDma);
  h.post(WrOpcode::kRdmaWrite, 1, 512, 2 * kMtu);
  EXPECT_EQ(next(h).dma, kDma + 512);
  EXPECT_EQ(next(h).dma, kDma + 512 + kMtu);
  h.post(WrOpcode::kSend, 2, 64, 100);
  EXPECT_EQ(next(h).dma, kDma + 64);
}

TEST(Direct, ARegionThatIsNotMappedIsCopied) {
  Harness h;
  h.post(WrOpcode::kRdmaWrite, 1, 0, kMtu);
  EXPECT_EQ(next(h).dma, 0u);
}

// So memory that never stands still arrives all the same: the copy is what the check is made of.
TEST(Direct, WhatIsSentAgainIsCopied) {
  Harness h;
  h.endpoint->regions().set_dma(h.key, kDma);
  h.post(WrOpcode::kRdmaWrite, 1, 0, 2 * kMtu);
  EXPECT_NE(next(h).dma, 0u);
  EXPECT_NE(next(h).dma, 0u);
  h.receive_ack(kSqPsn, 0x60);  // NAK: sequence error
  EXPECT_EQ(next(h).dma, 0u);
  EXPECT_EQ(next(h).dma, 0u);
  h.post(WrOpcode::kRdmaWrite, 2, 0, kMtu);
  EXPECT_NE(next(h).dma, 0u);
}

TEST(Direct, WhatCompletesBeforeItIsReadIsCopied) {
  Harness uc({.type = QpType::kUc, .uc_drop = true});
  uc.endpoint->regions().set_dma(uc.key, kDma);
  uc.post(WrOpcode::kRdmaWrite, 1, 0, kMtu);
  EXPECT_EQ(next(uc).dma, 0u);
}

TEST(Direct, InlineDataIsCopied) {
  Harness h;
  h.endpoint->regions().set_dma(h.key, kDma);
  h.post(WrOpcode::kSend, 1, 0, 32, kSendSignaled | kSendInline);
  EXPECT_EQ(next(h).dma, 0u);
}

TEST(Direct, PiecesAreCopied) {
  Harness h;
  h.endpoint->regions().set_dma(h.key, kDma);
  const Sge sges[3] = {{h.address(0), 64, h.key}, {h.address(0), 0, h.key},
                       {h.address(256), 2 * kMtu, h.key}};
  SendWr wr;
  wr.sg_list = sges;
  wr.num_sge = 3;
  ASSERT_TRUE(h.try_post(wr).ok());
  EXPECT_EQ(next(h).dma, 0u) << "64 bytes of one and the rest of another";
  EXPECT_EQ(next(h).dma, kDma + 256 + kMtu - 64);
}

// Its memory may change meanwhile, and the peer would ask for ever.
TEST(Direct, AnAnswerIsCopied) {
  Harness h;
  h.endpoint->regions().set_dma(h.key, kDma);
  wire::PacketHeaders read = h.from_peer(wire::Opcode::kRcReadRequest, kRqPsn);
  read.va = h.address(0);
  read.rkey = h.key;
  read.dma_length = kMtu;
  h.receive(read);
  const TxPacket answer = next(h);
  EXPECT_EQ(answer.payload_bytes, kMtu);
  EXPECT_EQ(answer.dma, 0u);
}

}  // namespace
}  // namespace tbt::engine
