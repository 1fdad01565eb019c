// A ring pair of the daemon's own, in frame mode, beside the rail's: over the NHI model and paths
// that stand in the routers.
#include "rail/nhi/ip_ring.h"

#include "path_entries.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

constexpr uint16_t kHopId = 9;

WorldConfig without_paths() {
  WorldConfig c;
  c.fabric.fixed_paths = false;
  return c;
}

class IpRingTest : public ::testing::Test {
 protected:
  IpRingTest() {
    for (uint32_t h = 0; h < 2; ++h) {
      control_[h] = std::make_unique<ControlRing>(*world_.memories[h], *world_.devices[h]);
      EXPECT_TRUE(control_[h]->start());
      rings_[h] = make(h);
    }
  }

  std::unique_ptr<OwnedRing> make(uint32_t host) {
    const uint32_t hop = first_ip_ring(quirks_of(world_.devices[host]->identity()), 1);
    EXPECT_EQ(hop, 2u);
    return std::make_unique<OwnedRing>(*world_.memories[host], *world_.devices[host],
                                       ip_ring_shape(*world_.memories[host], hop, 0));
  }
  // From host 0 to host 1.
  void open_path() {
    write_entry(*control_[1], kLaneAdapter, kHopId, to_nhi(2));
    write_entry(*control_[0], kNhiAdapter, 2, to_lane(kHopId));
  }
  static std::vector<std::byte> frame_of(uint32_t number, size_t length) {
    std::vector<std::byte> frame(length, static_cast<std::byte>(number));
    std::memcpy(frame.data(), &number, sizeof number);
    return frame;
  }
  bool send(uint32_t number, size_t length = 64) {
    return rings_[0]->send(kIpFrameSof, kIpFrameEof, frame_of(number, length));
  }
  // The number of the next frame at host 1, whose contents must be whole.
  std::optional<uint32_t> next(size_t length = 64) {
    OwnedFrame frame;
    if (!rings_[1]->peek(frame)) return std::nullopt;
    EXPECT_EQ(frame.sof, kIpFrameSof);
    EXPECT_EQ(frame.eof, kIpFrameEof);
    uint32_t number = 0;
    std::memcpy(&number, frame.bytes.data(), sizeof number);
    EXPECT_TRUE(std::ranges::equal(frame.bytes, frame_of(number, length)));
    rings_[1]->consume();
    return number;
  }

  World world_{without_paths()};
  std::unique_ptr<ControlRing> control_[2];
  std::unique_ptr<OwnedRing> rings_[2];
  std::unique_ptr<OwnedRing> dead_;
};

TEST_F(IpRingTest, FramesOfEveryLengthCrossInOrder) {
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  for (uint32_t i = 0; i < 300; ++i) {
    const size_t length = i % 3 == 0 ? 4096 : 13 + i;
    ASSERT_TRUE(send(i, length));
    ASSERT_EQ(next(length), i);
  }
  EXPECT_FALSE(next());
  for (uint32_t h = 0; h < 2; ++h) EXPECT_EQ(world_.fabric->counters(h).misuse, 0u);
}

TEST_F(IpRingTest, ABurstThatIsTooLongIsLostAndFlagged) {
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  EXPECT_EQ(rings_[0]->room(), kIpRingEntries - 1);
  for (uint32_t i = 0; i < kIpRingEntries + 6; ++i) ASSERT_TRUE(send(i)) << "sent without waiting";
  for (uint32_t i = 0; i < kIpRingEntries - 1; ++i) ASSERT_EQ(next(), i);
  EXPECT_FALSE(next());
  ASSERT_TRUE(send(99));
  EXPECT_EQ(next(), 99u);
  EXPECT_EQ(rings_[1]->overruns(), 1u);
}

TEST_F(IpRingTest, OtherFramesAreNotTaken) {
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  ASSERT_TRUE(rings_[0]->send(4, 4, frame_of(1, 64)));
  EXPECT_FALSE(next());
  EXPECT_EQ(world_.fabric->counters(1).pdf_drops, 1u);
}

TEST_F(IpRingTest, ADamagedFrameIsMarked) {
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  emulated::CableParams params;
  params.corrupt_ppm = 1'000'000;
  world_.fabric->set_params(0, params);
  ASSERT_TRUE(send(1));
  OwnedFrame frame;
  ASSERT_TRUE(rings_[1]->peek(frame));
  EXPECT_TRUE(frame.damaged);
}

// A sleeping process is not the one to look at it, so it is not woken, and the daemon is.
TEST_F(IpRingTest, ItsInterruptIsTheDaemons) {
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  HostMemory& memory = *world_.memories[1];
  memory.slot(5).state.store(SlotState::kAttached);
  const uint32_t seen = memory.prepare_sleep(5);
  ASSERT_TRUE(rings_[1]->arm());
  sys::drain_eventfd(world_.interrupts[1].get());
  ASSERT_TRUE(send(1));
  EXPECT_GT(sys::drain_eventfd(world_.interrupts[1].get()), 0u);
  EXPECT_EQ(memory.slot(5).wake.load(), seen);
  EXPECT_EQ(memory.slot(5).sleeping.load(), 1u);
  EXPECT_FALSE(rings_[1]->arm()) << "a frame is there";
  EXPECT_EQ(next(), 1u);
  EXPECT_TRUE(rings_[1]->arm());
}

TEST_F(IpRingTest, TheRailBesideItIsNotTouched) {
  auto a = world_.open(0, 1);
  auto b = world_.open(1, 1);
  write_entry(*control_[1], kLaneAdapter, 8, to_nhi(1));
  write_entry(*control_[0], kNhiAdapter, 1, to_lane(8));
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(test::send(*a, 1, i));
    ASSERT_TRUE(send(1000 + i));
    ASSERT_EQ(receive(*b), std::vector<uint32_t>{i});
    ASSERT_EQ(next(), 1000 + i);
  }
  for (auto& ring : rings_) ring->stop();
  ASSERT_TRUE(test::send(*a, 1, 77));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{77});
}

TEST_F(IpRingTest, ADeadOwnersRingIsTakenOver) {
  for (auto& ring : rings_) ASSERT_TRUE(ring->start());
  open_path();
  ASSERT_TRUE(send(1));  // lost with the ring
  std::unique_ptr<OwnedRing> next_owner = make(1);
  EXPECT_TRUE(next_owner->is_enabled());
  EXPECT_EQ(next_owner->start().code(), EBUSY);
  ASSERT_TRUE(next_owner->take_over());
  std::swap(rings_[1], next_owner);  // the dead one does nothing more
  dead_ = std::move(next_owner);
  EXPECT_FALSE(next());
  ASSERT_TRUE(send(2));
  EXPECT_EQ(next(), 2u);
}

TEST(IpRing, AControllerWithoutTheRingSaysSo) {
  WorldConfig config;
  config.fabric.hop_count = 3;
  World world(config);
  OwnedRing last(*world.memories[0], *world.devices[0], ip_ring_shape(*world.memories[0], 2, 0));
  EXPECT_TRUE(last.start());
  OwnedRing none(*world.memories[0], *world.devices[0], ip_ring_shape(*world.memories[0], 3, 0));
  EXPECT_EQ(none.start().code(), ENODEV);
  EXPECT_FALSE(none.is_enabled());
  EXPECT_TRUE(none.arm()) << "nothing will come";
}

}  // namespace
}  // namespace tbt::rail::test
