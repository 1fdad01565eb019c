// Frames that leave straight from memory of their own: what arrives, what becomes of the ring's
// buffers, and when the memory may go.
//
//   registered memory ----.
//   head in its buffer ----+--> TX ring of host 0 ==== cable ====> RX ring of host 1
#include <algorithm>

#include "world.h"

namespace tbt::rail::test {
namespace {

// The part of host 0's memory that no ring uses here is mapped and taken for an application's.
class Direct : public ::testing::Test {
 protected:
  Direct() : a_(world_.open(0, 1)), b_(world_.open(1, 2)) {
    HostMemory& memory = *world_.memories[0];
    const uint64_t offset = RailMemory::ip_ring_offset(memory, 0);
    auto iova = world_.devices[0]->dma_map(offset, kIpRingBytes);
    EXPECT_TRUE(iova) << iova.error().text();
    iova_ = *iova;
    data_ = memory.base() + offset;
    for (size_t i = 0; i < kIpRingBytes; ++i) data_[i] = byte_of(i);
  }

  static std::byte byte_of(size_t i) { return static_cast<std::byte>(i * 7 + i / 4096); }

  [[nodiscard]] TxFrame payload_at(size_t offset, uint32_t length) const {
    TxFrame frame = payload(length);
    frame.direct = {data_ + offset, iova_ + offset};
    return frame;
  }

  // A head with its number, and a payload frame from the memory.
  bool send_direct(uint32_t number, size_t offset, uint32_t length = 4096) {
    const std::array<TxFrame, 2> pair{head(64), payload_at(offset, length)};
    return send(*a_, 2, number, pair);
  }

  void expect_direct(const RxFrame& frame, size_t offset, uint32_t length) const {
    ASSERT_NE(frame.data, nullptr);
    ASSERT_EQ(frame.length, length);
    for (size_t i = 0; i < length; ++i) ASSERT_EQ(frame.data[i], byte_of(offset + i)) << i;
  }

  World world_;
  std::unique_ptr<Rail> a_, b_;
  uint64_t iova_ = 0;
  std::byte* data_ = nullptr;
};

TEST_F(Direct, APayloadFrameLeavesStraightFromMemory) {
  EXPECT_TRUE(a_->capabilities().sends_direct);
  for (const size_t offset : {size_t{0}, size_t{4096}, size_t{64}, size_t{12345 / 64 * 64}}) {
    ASSERT_TRUE(send_direct(1, offset));
    std::array<RxPacket, 1> packets;
    ASSERT_EQ(b_->rx_burst(packets), 1u);
    EXPECT_EQ(number_of(packets[0].head), 1u);
    expect_direct(packets[0].payload, offset, 4096);
    b_->rx_release(packets);
  }
  EXPECT_EQ(a_->stats().tx_frames, 8u);
  EXPECT_EQ(a_->stats().tx_direct, 4u);
  EXPECT_EQ(world_.fabric->counters(0).misuse, 0u) << world_.fabric->counters(0).last_misuse;
}

// Each descriptor has named foreign memory once; the next ordinary frame in it is its own again.
TEST_F(Direct, ADescriptorGoesBackToItsOwnBuffer) {
  for (uint32_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(send_direct(i, i * 64));
    ASSERT_EQ(receive(*b_), std::vector<uint32_t>{i});
  }
  for (uint32_t i = 0; i < 40; ++i) {
    const std::array<TxFrame, 2> pair{head(64), payload(4096)};
    ASSERT_TRUE(send(*a_, 2, 1000 + i, pair));
    std::array<RxPacket, 1> packets;
    ASSERT_EQ(b_->rx_burst(packets), 1u);
    ASSERT_EQ(number_of(packets[0].payload), 1000 + i);
    b_->rx_release(packets);
  }
  EXPECT_EQ(a_->stats().tx_direct, 40u);
}

TEST_F(Direct, NothingIsReadAnyMoreOnceTheRingHasPassed) {
  EXPECT_TRUE(a_->tx_read(a_->tx_posted()));
  ASSERT_TRUE(send_direct(1, 0));
  EXPECT_TRUE(a_->tx_read(a_->tx_posted())) << "the receiver had room, so it has left";
  EXPECT_EQ(a_->tx_posted(), 2u);
}

// End-to-end flow control: the receiver takes nothing, so the ring stands still with the frame.
TEST_F(Direct, WhileTheRingStandsStillTheMemoryIsInUse) {
  uint32_t sent = 0;
  while (send_direct(sent, sent * 64)) ++sent;
  ASSERT_GT(sent, 8u);
  const uint32_t posted = a_->tx_posted();
  EXPECT_FALSE(a_->tx_read(posted));
  EXPECT_TRUE(a_->tx_read(2)) << "the first ones have long left";
  auto other = world_.open(0, 3);
  EXPECT_FALSE(other->tx_read(posted)) << "any process of the host can tell";
  uint32_t got = 0;
  for (int i = 0; i < 1000 && !a_->tx_read(posted); ++i) {
    std::array<RxPacket, 4> packets;
    const size_t n = b_->rx_burst(packets);
    for (size_t k = 0; k < n; ++k) expect_direct(packets[k].payload, got++ * 64, 4096);
    b_->rx_release(std::span(packets).first(n));
  }
  EXPECT_TRUE(a_->tx_read(posted));
  got += static_cast<uint32_t>(receive(*b_).size());
  EXPECT_EQ(got, sent);
}

TEST_F(Direct, AStoppedRingReadsNothing) {
  while (send_direct(1, 0)) continue;
  ASSERT_FALSE(a_->tx_read(a_->tx_posted()));
  ASSERT_TRUE(shut_down_nhi_rail(*world_.memories[0], 0, *world_.devices[0]));
  EXPECT_TRUE(a_->tx_read(a_->tx_posted()));
}

// The indices of the ring begin anew, and what was asked about belongs to the ring before.
TEST_F(Direct, AndANewOneKnowsNothingOfIt) {
  while (send_direct(1, 0)) continue;
  const uint32_t posted = a_->tx_posted();
  ASSERT_TRUE(shut_down_nhi_rail(*world_.memories[0], 0, *world_.devices[0]));
  ASSERT_TRUE(bring_up_nhi_rail(*world_.memories[0], 0, *world_.devices[0]));
  EXPECT_TRUE(a_->tx_read(posted));
  ASSERT_TRUE(send_direct(2, 0));
  EXPECT_GT(a_->tx_posted(), posted);
}

TEST_F(Direct, APulledCableLetsGoOfTheMemory) {
  while (send_direct(1, 0)) continue;
  ASSERT_FALSE(a_->tx_read(a_->tx_posted()));
  emulated::CableParams pulled;
  pulled.plugged = false;
  world_.fabric->set_params(0, pulled);
  EXPECT_TRUE(a_->tx_read(a_->tx_posted()));
}

// The controller is refused what is not mapped any more, and the ring goes on.
TEST_F(Direct, MemoryThatIsGoneIsNotSent) {
  ASSERT_TRUE(world_.devices[0]->dma_unmap(iova_, kIpRingBytes));
  ASSERT_TRUE(send_direct(1, 0));
  EXPECT_EQ(world_.fabric->counters(0).dma_faults, 1u);
  ASSERT_TRUE(send(*a_, 2, 2));
  EXPECT_EQ(receive(*b_), std::vector<uint32_t>{2});
}

TEST_F(Direct, ACaptureHasTheBytesThatLeft) {
  enable_capture(*world_.memories[0], 0, true);
  ASSERT_TRUE(send_direct(1, 128));
  CapturedFrame frame;
  std::byte bytes[kFrameBytes];
  ASSERT_TRUE(read_capture(*world_.memories[0], 0, frame, bytes));
  EXPECT_EQ(frame.eof, kEofHead);
  ASSERT_TRUE(read_capture(*world_.memories[0], 0, frame, bytes));
  EXPECT_EQ(frame.eof, kEofPayload);
  ASSERT_EQ(frame.length, 4096u);
  EXPECT_TRUE(std::equal(std::begin(bytes), std::end(bytes), data_ + 128));
}

TEST_F(Direct, TheLoopbackTakesNone) {
  auto loopback = world_.open_loopback(0, 1);
  EXPECT_FALSE(loopback->capabilities().sends_direct);
  EXPECT_TRUE(loopback->tx_read(loopback->tx_posted()));
}

}  // namespace
}  // namespace tbt::rail::test
