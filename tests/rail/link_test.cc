// What a cable and the two rings at its ends do to frames: faults, flow control, masks, addresses,
// plugging.
#include "base/rng.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using emulated::CableParams;

WorldConfig with_params(const CableParams& params, bool e2e = true) {
  WorldConfig c;
  c.fabric.e2e = e2e;
  c.fabric.params = {params};
  c.fabric.cables = {{0, 1, 0, 0}};
  c.host = {.cables = 1, .ring_entries = 64, .rx_buffers = 256};
  return c;
}

// Sends `count` frames and takes what arrives within `horizon_ns` of emulated time.
std::vector<uint32_t> exchange(World& world, uint32_t count, int64_t horizon_ns = 100'000'000) {
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  std::vector<uint32_t> got;
  const int64_t later = sys::monotonic_now().ns + horizon_ns;
  const auto take = [&] {
    b->advance(later);
    for (auto n = receive(*b); !n.empty(); n = receive(*b))
      got.insert(got.end(), n.begin(), n.end());
  };
  for (uint32_t i = 0; i < count; ++i) {
    while (!send(*a, 1, i)) take();
    take();
  }
  take();
  return got;
}

TEST(Link, ADroppingCableLosesFramesAndKeepsTheOrder) {
  CableParams p;
  p.drop_ppm = 200000;
  World world(with_params(p));
  const auto got = exchange(world, 2000);
  EXPECT_GT(got.size(), 1450u);
  EXPECT_LT(got.size(), 1750u);
  for (size_t i = 1; i < got.size(); ++i) ASSERT_LT(got[i - 1], got[i]);
}

TEST(Link, ADuplicatingCableRepeatsFramesInPlace) {
  CableParams p;
  p.duplicate_ppm = 300000;
  World world(with_params(p));
  const auto got = exchange(world, 1000);
  EXPECT_GT(got.size(), 1200u);
  std::vector<uint32_t> once = got;
  once.erase(std::unique(once.begin(), once.end()), once.end());
  EXPECT_EQ(once.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
}

TEST(Link, DamagedFramesAreCountedAndNotDelivered) {
  CableParams p;
  p.corrupt_ppm = 200000;
  World world(with_params(p));
  const auto got = exchange(world, 2000);
  const uint64_t damaged = world.open(1, 1)->stats().rx_crc_errors;
  EXPECT_GT(damaged, 250u);
  EXPECT_EQ(got.size() + damaged, 2000u);
}

TEST(Link, ACableWithLatencyDeliversWhenItIsTime) {
  CableParams p;
  p.latency_ns = 3'600'000'000'000;  // an hour, so that the test's own speed does not matter
  World world(with_params(p));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  const int64_t before = sys::monotonic_now().ns;
  ASSERT_TRUE(send(*a, 1, 7));
  const int64_t after = sys::monotonic_now().ns;
  const int64_t due = b->advance(before);
  EXPECT_GE(due, before + p.latency_ns);
  EXPECT_LE(due, after + p.latency_ns);
  b->advance(due - 1);
  EXPECT_FALSE(b->rx_pending());
  b->advance(due);
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{7});
  EXPECT_EQ(b->advance(due), INT64_MAX);
}

TEST(Link, TheSenderIsHeldUpWhileTheCableIsFull) {
  CableParams p;
  p.latency_ns = 3'600'000'000'000;
  World world(with_params(p));
  auto a = world.open(0, 1);
  uint32_t sent = 0;
  while (sent < 10000 && send(*a, 1, sent)) ++sent;
  EXPECT_GT(sent, 100u);
  EXPECT_LT(sent, 300u) << "cable and ring hold no more";
  auto b = world.open(1, 1);
  uint32_t expected = 0;
  const int64_t later = sys::monotonic_now().ns + 3 * p.latency_ns;
  for (int i = 0; i < 20; ++i) {
    b->advance(later + i * p.latency_ns);
    for (const uint32_t n : receive(*b)) ASSERT_EQ(n, expected++);
  }
  EXPECT_EQ(expected, sent) << "nothing was lost";
}

TEST(Link, AStrandedCompletionComesWithTheNextFrame) {
  CableParams p;
  p.stranded_ppm = 1000000;
  World world(with_params(p));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_FALSE(b->rx_pending());
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{1});
  const int64_t now = sys::monotonic_now().ns;
  EXPECT_LE(b->advance(now), now + emulated::kStrandedNs);
  b->advance(now + emulated::kStrandedNs);
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{2});
}

TEST(Link, ALostInterruptLeavesTheFrameToTheWatchdog) {
  CableParams p;
  p.lost_interrupt_ppm = 1000000;
  World world(with_params(p));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(b->arm());
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_EQ(world.fabric->counters(1).interrupts, 0u);
  EXPECT_TRUE(b->rx_pending());
  b->disarm();
  EXPECT_EQ(b->stats().stranded, 1u);
  EXPECT_EQ(receive(*b).size(), 1u);
}

TEST(Link, SettingAnIdealCableBackEmptiesItFirst) {
  CableParams slow;
  slow.latency_ns = 1'000'000'000;
  World world(with_params(slow));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(send(*a, 1, 1));
  world.fabric->set_params(0, {});
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_FALSE(b->rx_pending()) << "nothing overtakes";
  b->advance(sys::monotonic_now().ns + slow.latency_ns);
  EXPECT_EQ(receive(*b), (std::vector<uint32_t>{1, 2}));
  ASSERT_TRUE(send(*a, 1, 3));
  EXPECT_TRUE(b->rx_pending());
}

// ---- flow control

TEST(Link, WithEndToEndCreditsTheSenderStallsAndNothingIsLost) {
  World world;  // 16 descriptors, so 15 at the receiver and 15 at the sender
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  uint32_t sent = 0;
  while (send(*a, 1, sent)) ++sent;
  EXPECT_EQ(sent, 30u);
  EXPECT_GT(a->stats().tx_full, 0u);
  uint32_t expected = 0;
  while (expected < 200) {
    for (const uint32_t n : receive(*b)) ASSERT_EQ(n, expected++);
    while (sent < 200 && send(*a, 1, sent)) ++sent;
  }
  EXPECT_EQ(world.fabric->counters(1).overruns, 0u);
}

TEST(Link, WithoutThemFramesAreLostAndTheNextOneIsFlagged) {
  World world(with_params({}, false));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  for (uint32_t i = 0; i < 100; ++i) ASSERT_TRUE(send(*a, 1, i));
  EXPECT_EQ(world.fabric->counters(1).overruns, 100u - 63);
  EXPECT_EQ(receive(*b, 100).size(), 63u);
  ASSERT_TRUE(send(*a, 1, 200));
  EXPECT_TRUE(receive(*b).empty()) << "this one carries the flag and is not trusted";
  EXPECT_EQ(b->stats().rx_overruns, 1u);
  ASSERT_TRUE(send(*a, 1, 201));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{201});
}

TEST(Link, TheSenderWaitsForAPeerThatIsNotUpYet) {
  WorldConfig c;
  c.bring_up = false;
  World world(c);
  world.bring_up(0);
  auto a = world.open(0, 1);
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(send(*a, 1, i));
  world.bring_up(1);
  auto b = world.open(1, 1);
  EXPECT_EQ(receive(*b).size(), 5u);
}

TEST(Link, ARingCanBeStoppedAndStartedAgain) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  for (uint32_t i = 0; i < 7; ++i) ASSERT_TRUE(send(*a, 1, i));
  ASSERT_TRUE(shut_down_nhi_rail(*world.memories[1], 0, *world.devices[1]));
  EXPECT_EQ(shut_down_nhi_rail(*world.memories[1], 0, *world.devices[1]).code(), EINVAL);
  ASSERT_TRUE(send(*a, 1, 7));
  ASSERT_TRUE(bring_up_nhi_rail(*world.memories[1], 0, *world.devices[1]));
  auto again = world.open(1, 1);
  EXPECT_EQ(receive(*again), std::vector<uint32_t>{7});
  ASSERT_TRUE(shut_down_nhi_rail(*world.memories[0], 0, *world.devices[0]));
  EXPECT_FALSE(send(*a, 1, 8)) << "down";
  ASSERT_TRUE(bring_up_nhi_rail(*world.memories[0], 0, *world.devices[0]));
  for (uint32_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(send(*a, 1, i));
    ASSERT_EQ(receive(*again), std::vector<uint32_t>{i});
  }
  EXPECT_EQ(world.fabric->counters(0).misuse + world.fabric->counters(1).misuse, 0u);
}

// ---- masks and addresses

TEST(Link, FramesWithAPdfThatIsNotAllowedAreDroppedAndCounted) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  for (const TxFrame& f :
       {TxFrame{64, 2, 1}, TxFrame{64, 1, 6}, TxFrame{64, 0, 0}, TxFrame{64, 4, 4}}) {
    ASSERT_TRUE(send(*a, 1, 1, std::span(&f, 1)));
  }
  EXPECT_EQ(world.fabric->counters(1).pdf_drops, 3u);
  EXPECT_EQ(receive(*b).size(), 1u) << "the control frame";
}

TEST(Link, AddressesThatAreNotMappedAreRefused) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  RailState& state = RailMemory::rail(*world.memories[1], 0);
  const auto& geometry = RailMemory::geometry(*world.memories[1]);
  auto* descriptors = reinterpret_cast<nhi::Descriptor*>(reinterpret_cast<std::byte*>(&state) +
                                                         geometry.rx_descriptors);
  const uint64_t good = descriptors[0].address;
  for (const uint64_t bad :
       {uint64_t{0}, uint64_t{4096}, ~uint64_t{0} - 10, good - (uint64_t{1} << 32)}) {
    descriptors[0].address = bad;
    ASSERT_TRUE(send(*a, 1, 1));
  }
  EXPECT_EQ(world.fabric->counters(1).dma_faults, 4u);
  EXPECT_FALSE(b->rx_pending());
  descriptors[0].address = good;
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{2});
}

TEST(Link, ARingThatIsNoLongerMappedIsNotTouched) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(send(*a, 1, 1));
  const uint64_t iova = RailMemory::rail(*world.memories[1], 0).shared.iova;
  const uint64_t bytes = RailMemory::dma_bytes(*world.memories[1]);
  ASSERT_TRUE(world.devices[1]->dma_unmap(iova, bytes));
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_GT(world.fabric->counters(1).dma_faults, 0u);
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{1});
  ASSERT_TRUE(world.devices[1]->dma_map(RailMemory::dma_offset(*world.memories[1], 0), bytes));
  ASSERT_TRUE(send(*a, 1, 3));
  EXPECT_EQ(receive(*b), (std::vector<uint32_t>{2, 3})) << "it waited at the sender";
}

TEST(Link, AnUnmappedSendBufferIsNotSent) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  RailState& state = RailMemory::rail(*world.memories[0], 0);
  const uint64_t iova = state.shared.iova;
  state.shared.iova = 0x10;
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_EQ(world.fabric->counters(0).dma_faults, 1u);
  state.shared.iova = iova;
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{2});
}

TEST(Link, ADescriptorWithoutItsPostedFlagIsMisuse) {
  World world;
  auto a = world.open(0, 1);
  RailState& state = RailMemory::rail(*world.memories[1], 0);
  auto* descriptors =
      reinterpret_cast<nhi::Descriptor*>(reinterpret_cast<std::byte*>(&state) +
                                         RailMemory::geometry(*world.memories[1]).rx_descriptors);
  descriptors[0].word = 0;
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_STREQ(world.fabric->counters(1).last_misuse, "descriptor without its posted flag");
}

TEST(Link, LengthAndPdfsOfAReceiveDescriptorAreStaleUntilItCompletes) {
  World world;
  auto a = world.open(0, 1);
  RailState& state = RailMemory::rail(*world.memories[1], 0);
  auto* descriptors =
      reinterpret_cast<nhi::Descriptor*>(reinterpret_cast<std::byte*>(&state) +
                                         RailMemory::geometry(*world.memories[1]).rx_descriptors);
  EXPECT_EQ(descriptors[0].word & nhi::kCompleted, 0u);
  EXPECT_NE(descriptors[0].word & nhi::kPosted, 0u);
  ASSERT_TRUE(send(*a, 1, 1, 4096));
  const uint32_t word = descriptors[0].word;
  EXPECT_NE(word & nhi::kCompleted, 0u);
  EXPECT_EQ(word & nhi::kBufferOverrun, 0u) << "the bit of posted means overrun now";
  EXPECT_EQ(word & 0xfff, 0u) << "4096 is written as 0";
  EXPECT_EQ(nhi::word_length(word), 4096u);
}

// ---- plugging

TEST(Link, APulledCableSwallowsFramesAndAReplugBringsItBack) {
  CableParams slow;
  slow.latency_ns = 1'000'000'000;
  World world(with_params(slow));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(send(*a, 1, 1));
  sys::drain_eventfd(world.interrupts[0].get());
  sys::drain_eventfd(world.interrupts[1].get());
  CableParams pulled;
  pulled.plugged = false;
  world.fabric->set_params(0, pulled);
  EXPECT_GT(sys::drain_eventfd(world.interrupts[0].get()), 0u);
  EXPECT_GT(sys::drain_eventfd(world.interrupts[1].get()), 0u);
  for (uint32_t i = 0; i < 500; ++i) ASSERT_TRUE(send(*a, 1, i)) << "the ring never fills";
  b->advance(sys::monotonic_now().ns + 2 * slow.latency_ns);
  EXPECT_FALSE(b->rx_pending());
  EXPECT_EQ(world.fabric->counters(0).unreachable, 501u);
  EXPECT_FALSE(world.fabric->params(0).plugged);
  world.fabric->set_params(0, {});
  EXPECT_GT(sys::drain_eventfd(world.interrupts[1].get()), 0u);
  ASSERT_TRUE(send(*a, 1, 77));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{77});
}

TEST(Link, PullingTheCableFreesAStalledSender) {
  World world;
  auto a = world.open(0, 1);
  while (send(*a, 1, 0)) {
  }
  CableParams pulled;
  pulled.plugged = false;
  world.fabric->set_params(0, pulled);
  EXPECT_TRUE(send(*a, 1, 1));
}

TEST(Link, RandomChangesOfParametersNeverReorderOrInvent) {
  World world(with_params({}));
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  Rng rng(3);
  uint32_t sent = 0, last = 0;
  int64_t now = sys::monotonic_now().ns;
  for (int round = 0; round < 3000; ++round) {
    if (rng.below(20) == 0) {
      CableParams p;
      p.drop_ppm = rng.below(2) * 100000;
      p.duplicate_ppm = rng.below(2) * 100000;
      p.corrupt_ppm = rng.below(2) * 100000;
      p.stranded_ppm = rng.below(2) * 100000;
      p.latency_ns = rng.below(3) * 1000;
      p.plugged = rng.below(5) != 0;
      world.fabric->set_params(0, p);
    }
    if (send(*a, 1, sent + 1)) ++sent;
    now += 100000;
    b->advance(now);
    for (const uint32_t n : receive(*b)) {
      ASSERT_LE(last, n);
      ASSERT_LE(n, sent);
      last = n;
    }
  }
  EXPECT_GT(last, 2000u);
}

}  // namespace
}  // namespace tbt::rail::test
