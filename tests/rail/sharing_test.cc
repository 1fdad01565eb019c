// Several slots on one rail: dispatching, order, heads and payloads, buffers running short,
// reclaiming.
#include "rail/buffer_pool.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

BufferPool pool_of(World& world, uint32_t host, uint32_t rail = 0) {
  RailState& state = RailMemory::rail(*world.memories[host], rail);
  return {reinterpret_cast<std::byte*>(&state), RailMemory::geometry(*world.memories[host]),
          state.rx};
}

TEST(Sharing, WhoeverPollsHandsFramesToTheirOwners) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), b2 = world.open(1, 2);
  for (uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(send(*a, static_cast<SlotId>(1 + i % 2), i));
  EXPECT_EQ(receive(*b1), (std::vector<uint32_t>{0, 2, 4, 6, 8}));
  EXPECT_TRUE(b2->rx_pending());
  EXPECT_EQ(receive(*b2), (std::vector<uint32_t>{1, 3, 5, 7, 9}));
}

TEST(Sharing, WhatStoodInTheInboxComesFirst) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), b2 = world.open(1, 2);
  ASSERT_TRUE(send(*a, 2, 1));
  ASSERT_TRUE(send(*a, 2, 2));
  EXPECT_TRUE(receive(*b1).empty());  // dispatches both to slot 2
  ASSERT_TRUE(send(*a, 2, 3));
  EXPECT_EQ(receive(*b2, 1), std::vector<uint32_t>{1});
  EXPECT_EQ(receive(*b2), (std::vector<uint32_t>{2, 3}));
}

TEST(Sharing, AFullBurstLeavesTheRestForLater) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(send(*a, 1, i));
  EXPECT_EQ(receive(*b, 2), (std::vector<uint32_t>{0, 1}));
  EXPECT_TRUE(b->rx_pending());
  EXPECT_EQ(receive(*b, 8), (std::vector<uint32_t>{2, 3, 4}));
}

TEST(Sharing, FramesForNobodyAreCounted) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(send(*a, 0xff, 1));  // the classifier knows no slot
  ASSERT_TRUE(send(*a, 9, 2));     // nobody attached there
  ASSERT_TRUE(send(*a, 200, 3));   // no such slot
  EXPECT_TRUE(receive(*b).empty());
  EXPECT_EQ(b->stats().rx_no_slot, 3u);
  EXPECT_EQ(pool_of(world, 1).count(kMarkFree) + pool_of(world, 1).count(kMarkPosted), 48u);
}

TEST(Sharing, TheDaemonNeedNotAttach) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  auto daemon = open_nhi_rail(*world.memories[1], 0, *world.devices[1], kDaemonSlot, classify);
  ASSERT_TRUE(send(*a, kDaemonSlot, 5));
  EXPECT_TRUE(receive(*b).empty());
  EXPECT_EQ(receive(*daemon), std::vector<uint32_t>{5});
}

TEST(Sharing, HeadAndPayloadArriveTogether) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), b2 = world.open(1, 2);
  const std::array<TxFrame, 2> pair{head(100), payload(4096)};
  ASSERT_TRUE(send(*a, 1, 10, pair));
  ASSERT_TRUE(send(*a, 2, 11, pair));
  for (Rail* rail : {b1.get(), b2.get()}) {
    std::array<RxPacket, 4> packets;
    ASSERT_EQ(rail->rx_burst(packets), 1u);
    EXPECT_EQ(packets[0].head.length, 100u);
    EXPECT_EQ(packets[0].payload.length, 4096u);
    EXPECT_EQ(packets[0].payload.eof, kEofPayload);
    EXPECT_EQ(number_of(packets[0].head), number_of(packets[0].payload));
    rail->rx_release(std::span(packets).first(1));
  }
}

TEST(Sharing, AHeadWaitsForAPayloadThatIsNotThereYet) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), b2 = world.open(1, 2);
  const std::array<TxFrame, 1> first{head(100)}, second{payload(200)};
  ASSERT_TRUE(send(*a, 2, 1, first));
  EXPECT_TRUE(receive(*b1).empty());
  EXPECT_FALSE(b2->rx_pending());
  ASSERT_TRUE(send(*a, 2, 1, second));
  EXPECT_EQ(receive(*b2), std::vector<uint32_t>{1});  // kept by one process, delivered by another
}

TEST(Sharing, PartedFramesAreDroppedAndCounted) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  const std::array<TxFrame, 1> lone_head{head(100)}, lone_payload{payload(200)};
  ASSERT_TRUE(send(*a, 1, 1, lone_payload));
  ASSERT_TRUE(send(*a, 1, 2, lone_head));
  ASSERT_TRUE(send(*a, 1, 3, lone_head));
  ASSERT_TRUE(send(*a, 1, 4));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{4});
  EXPECT_EQ(b->stats().rx_orphan_payload, 3u);
  EXPECT_EQ(pool_of(world, 1).count(kMarkKept), 0u);
}

TEST(Sharing, BuffersHeldByACallerComeBackToTheRing) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  std::vector<RxPacket> held(64);
  size_t n = 0;
  for (uint32_t i = 0; i < 200; ++i) {
    send(*a, 1, i);
    n += b->rx_burst(std::span(held).subspan(n));
  }
  EXPECT_EQ(n, 48u) << "every buffer is with the caller now";
  EXPECT_FALSE(b->arm()) << "without a buffer no interrupt can come";
  b->rx_release(std::span(held).first(n));
  EXPECT_FALSE(receive(*b).empty()) << "the sender goes on without being asked";
}

TEST(Sharing, AStoppedProcessLosesItsFramesAndDoesNotHoldUpTheOthers) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), stopped = world.open(1, 2);
  uint32_t got = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (uint32_t i = 0; i < 2000; ++i) {
    while (!send(*a, i % 2 == 0 ? 2 : 1, i)) {
      got += static_cast<uint32_t>(receive(*b1).size());
      ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60))
          << "held up for ever";
    }
  }
  while (got < 1000) {
    got += static_cast<uint32_t>(receive(*b1).size());
    ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << got;
  }
  EXPECT_EQ(got, 1000u) << "all of slot 1's";
  EXPECT_GT(b1->stats().rx_inbox_full, 900u);
  EXPECT_LE(receive(*stopped, 1000).size(), 48u);
}

TEST(Sharing, ASlowProcessLosesNothing) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), slow = world.open(1, 2);
  uint32_t sent = 0, fast_got = 0, slow_got = 0;
  for (int round = 0; slow_got < 500; ++round) {
    while (sent < 1000 && send(*a, sent % 2 == 0 ? 2 : 1, sent)) ++sent;
    fast_got += static_cast<uint32_t>(receive(*b1).size());
    if (round % 10 == 0) slow_got += static_cast<uint32_t>(receive(*slow, 3).size());
    ASSERT_LT(round, 100000);
  }
  EXPECT_EQ(fast_got, 500u);
  EXPECT_EQ(b1->stats().rx_inbox_full, 0u);
}

TEST(Sharing, ReclaimingFreesWhatADeadSlotHeldAndHadWaiting) {
  World world;
  auto a = world.open(0, 1);
  auto b1 = world.open(1, 1), dead = world.open(1, 2);
  auto daemon = world.open(1, kDaemonSlot);
  for (uint32_t i = 0; i < 6; ++i) ASSERT_TRUE(send(*a, 2, i));
  std::array<RxPacket, 2> held;
  ASSERT_EQ(dead->rx_burst(held), 2u);
  receive(*b1);  // the other four go to its inbox
  EXPECT_EQ(pool_of(world, 1).count(mark_held(2)), 2u);
  EXPECT_EQ(pool_of(world, 1).count(mark_inbox(2)), 4u);
  world.memories[1]->slot(2).state = SlotState::kDead;
  daemon->reclaim(2);
  const BufferPool pool = pool_of(world, 1);
  EXPECT_EQ(pool.count(kMarkFree) + pool.count(kMarkPosted), pool.size());
  auto next_life = world.open(1, 2);
  EXPECT_FALSE(next_life->rx_pending());
  ASSERT_TRUE(send(*a, 2, 99));
  EXPECT_EQ(receive(*next_life), std::vector<uint32_t>{99});
}

TEST(Sharing, ADeadPollerDoesNotKeepTheInterruptOff) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1), dead = world.open(1, 2);
  auto daemon = world.open(1, kDaemonSlot);
  dead->disarm();
  ASSERT_TRUE(b->arm());
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_EQ(world.fabric->counters(1).interrupts, 0u) << "slot 2 says that it polls";
  EXPECT_EQ(receive(*b).size(), 1u);
  ASSERT_TRUE(b->arm());
  daemon->reclaim(2);
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(world.fabric->counters(1).interrupts, 1u);
}

TEST(Sharing, WhoReceivesNeedsNoInterruptUntilItArmsOrCloses) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  auto daemon = world.open(1, kDaemonSlot);
  const auto interrupts = [&] { return world.fabric->counters(1).interrupts; };
  ASSERT_TRUE(daemon->arm());
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_EQ(interrupts(), 1u) << "nobody polls";
  EXPECT_EQ(receive(*b).size(), 1u);
  ASSERT_TRUE(daemon->arm());
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(interrupts(), 1u) << "slot 1 does";
  EXPECT_EQ(receive(*b).size(), 1u);
  b.reset();
  ASSERT_TRUE(send(*a, kDaemonSlot, 3));
  EXPECT_EQ(interrupts(), 2u);
}

TEST(Sharing, SixtyFourSlotsShareARing) {
  WorldConfig c;
  c.host = {.cables = 1, .ring_entries = 256, .rx_buffers = 768};
  World world(c);
  auto a = world.open(0, 1);
  std::vector<std::unique_ptr<Rail>> rails;
  for (SlotId s = 0; s < kSlotsMax; ++s) rails.push_back(world.open(1, s));
  for (uint32_t round = 0; round < 20; ++round) {
    for (SlotId s = 0; s < kSlotsMax; ++s) ASSERT_TRUE(send(*a, s, round * 100 + s));
    for (SlotId s = 0; s < kSlotsMax; ++s) {
      ASSERT_EQ(receive(*rails[s]), std::vector<uint32_t>{round * 100 + s});
    }
  }
}

TEST(Sharing, TwoCablesOfOneHostDoNotMix) {
  WorldConfig c;
  c.hosts = 3;
  c.host.cables = 2;
  c.fabric.cables = {{0, 1, 0, 0}, {0, 2, 1, 0}, {1, 2, 1, 1}};
  World world(c);
  auto a0 = world.open(0, 1, 0), a1 = world.open(0, 1, 1);
  auto b = world.open(1, 1, 0), d = world.open(2, 1, 0);
  ASSERT_TRUE(send(*a0, 1, 1));
  ASSERT_TRUE(send(*a1, 1, 2));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{1});
  EXPECT_EQ(receive(*d), std::vector<uint32_t>{2});
  EXPECT_FALSE(world.open(1, 1, 1)->rx_pending());
}

TEST(Sharing, UnusedReservationsCostNothing) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  std::array<std::byte*, 64> buffers{};
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(a->tx_begin(buffers), 15u);
    a->tx_commit({});
  }
  EXPECT_EQ(a->capabilities().tx_frames, 15u);
  ASSERT_TRUE(send(*a, 1, 1));
  EXPECT_EQ(receive(*b).size(), 1u);
}

// ---- the loopback

TEST(Loopback, DeliversToOthersAndToOneself) {
  World world;
  auto r1 = world.open_loopback(0, 1), r2 = world.open_loopback(0, 2);
  ASSERT_TRUE(send(*r1, 2, 10));
  ASSERT_TRUE(send(*r1, 1, 11));
  ASSERT_TRUE(send(*r2, 2, 12));
  EXPECT_EQ(receive(*r2), (std::vector<uint32_t>{10, 12}));
  EXPECT_EQ(receive(*r1), std::vector<uint32_t>{11});
  EXPECT_EQ(r1->stats().tx_frames, 3u);
  EXPECT_EQ(r1->stats().rx_frames, 3u);
  EXPECT_EQ(r1->advance(0), INT64_MAX);
}

TEST(Loopback, PairsStayTogetherAndPartedFramesAreCounted) {
  World world;
  auto r1 = world.open_loopback(0, 1);
  const std::array<TxFrame, 4> frames{head(50), payload(4096), payload(60), head(70)};
  ASSERT_TRUE(send(*r1, 1, 3, frames));
  std::array<RxPacket, 4> packets;
  ASSERT_EQ(r1->rx_burst(packets), 1u);
  EXPECT_EQ(packets[0].head.length, 50u);
  EXPECT_EQ(packets[0].payload.length, 4096u);
  EXPECT_EQ(r1->stats().rx_orphan_payload, 2u);
}

TEST(Loopback, AFullInboxHoldsTheSenderUpUntilItsOwnerIsStuck) {
  World world;
  auto r1 = world.open_loopback(0, 1), r2 = world.open_loopback(0, 2),
       r3 = world.open_loopback(0, 3);
  uint32_t sent = 0;
  while (send(*r1, 2, sent)) ++sent;
  EXPECT_LE(sent, 24u);
  EXPECT_EQ(r1->stats().rx_inbox_full, 0u);
  uint32_t expected = 0;
  for (const uint32_t n : receive(*r2)) ASSERT_EQ(n, expected++);
  EXPECT_EQ(expected, sent);
  ASSERT_TRUE(send(*r1, 2, sent));
  while (send(*r1, 2, 0)) {
  }
  const auto begin = std::chrono::steady_clock::now();
  while (!send(*r1, 3, 5)) {
    ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60))
        << "held up for ever";
  }
  EXPECT_EQ(receive(*r3), std::vector<uint32_t>{5}) << "a stuck slot does not stop the others";
  ASSERT_TRUE(send(*r1, 2, 6));
  EXPECT_EQ(r1->stats().rx_inbox_full, 1u) << "its own frames are dropped";
}

TEST(Loopback, ReclaimingFreesReservedHeldAndWaitingBuffers) {
  World world;
  auto r1 = world.open_loopback(0, 1), dead = world.open_loopback(0, 2);
  auto daemon = world.open_loopback(0, kDaemonSlot);
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(send(*r1, 2, i));
  std::array<RxPacket, 2> held;
  ASSERT_EQ(dead->rx_burst(held), 2u);
  world.memories[0]->slot(2).state = SlotState::kDead;
  daemon->reclaim(2);
  EXPECT_EQ(pool_of(world, 0, 1).count(kMarkFree), 48u);
}

// ---- capture

TEST(Capture, CopiesWhatIsSentAndReceived) {
  World world;
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  CapturedFrame frame;
  std::byte buffer[kFrameBytes];
  ASSERT_TRUE(send(*a, 1, 1));
  receive(*b);
  EXPECT_FALSE(read_capture(*world.memories[0], 0, frame, buffer)) << "off by default";
  enable_capture(*world.memories[0], 0, true);
  enable_capture(*world.memories[1], 0, true);
  const std::array<TxFrame, 2> pair{head(100), payload(4096)};
  ASSERT_TRUE(send(*a, 1, 7, pair));
  receive(*b);
  for (uint32_t host = 0; host < 2; ++host) {
    for (const TxFrame& f : pair) {
      ASSERT_TRUE(read_capture(*world.memories[host], 0, frame, buffer));
      EXPECT_EQ(frame.sent, host == 0);
      EXPECT_EQ(frame.length, f.length);
      EXPECT_EQ(frame.sof, f.sof);
      EXPECT_EQ(frame.eof, f.eof);
      EXPECT_GT(frame.time_ns, 1'600'000'000'000'000'000);
      EXPECT_EQ(buffer[f.length - 1], std::byte{7});
    }
    EXPECT_FALSE(read_capture(*world.memories[host], 0, frame, buffer));
  }
  enable_capture(*world.memories[0], 0, false);
  ASSERT_TRUE(send(*a, 1, 8));
  EXPECT_FALSE(read_capture(*world.memories[0], 0, frame, buffer));
}

TEST(Capture, AFullRingLosesCapturesAndNoTraffic) {
  World world;
  auto r = world.open_loopback(0, 1);
  enable_capture(*world.memories[0], 1, true);
  for (uint32_t i = 0; i < kCaptureEntries + 50; ++i) {
    ASSERT_TRUE(send(*r, 1, i));
    ASSERT_EQ(receive(*r), std::vector<uint32_t>{i});
  }
  EXPECT_EQ(capture_lost(*world.memories[0], 1), 50u);
  CapturedFrame frame;
  std::byte buffer[kFrameBytes];
  uint32_t count = 0;
  while (read_capture(*world.memories[0], 1, frame, buffer)) {
    uint32_t number = 0;
    std::memcpy(&number, buffer + 4, 4);
    ASSERT_EQ(number, count++);
  }
  EXPECT_EQ(count, kCaptureEntries);
}

TEST(Capture, AnEntryOfAKilledWriterIsGivenUp) {
  World world;
  auto r = world.open_loopback(0, 1);
  enable_capture(*world.memories[0], 1, true);
  RailMemory::rail(*world.memories[0], 1)
      .shared.capture_put.fetch_add(1);  // claimed, never published
  ASSERT_TRUE(send(*r, 1, 42));
  CapturedFrame frame;
  std::byte buffer[kFrameBytes];
  const auto begin = std::chrono::steady_clock::now();
  while (!read_capture(*world.memories[0], 1, frame, buffer)) {
    ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
  }
  EXPECT_EQ(frame.length, 64u);
  EXPECT_EQ(capture_lost(*world.memories[0], 1), 1u);
}

}  // namespace
}  // namespace tbt::rail::test
