// Ring 0 over the NHI model with its routers: packets to the own router and to the other host, and
// that the path entries written through it are what lets frames through.
#include "rail/nhi/control_ring.h"

#include "rail/emulated/router_silicon.h"
#include "wire/tb/control_packet.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using nhi::ControlPacketView;
using nhi::ControlRing;
using namespace wire::tb;

WorldConfig without_paths() {
  WorldConfig c;
  c.fabric.fixed_paths = false;
  return c;
}

// One port per host, so the lane adapter is 1 and the NHI's adapter 3.
constexpr uint8_t kLane = 1, kNhi = 3;

class ControlRingTest : public ::testing::Test {
 protected:
  ControlRingTest() {
    for (uint32_t h = 0; h < 2; ++h) {
      rings_[h] = std::make_unique<ControlRing>(*world_.memories[h], *world_.devices[h]);
      EXPECT_TRUE(rings_[h]->start());
    }
  }

  bool send(uint32_t host, const ControlPacket& packet) {
    ControlFrame frame;
    encode_control_packet(packet, frame);
    return rings_[host]->send(static_cast<uint8_t>(frame.pdf), frame.span());
  }
  std::optional<ControlPacket> next(uint32_t host) {
    ControlPacketView view;
    if (!rings_[host]->peek(view)) return std::nullopt;
    ControlPacket packet;
    EXPECT_EQ(decode_control_packet(view.pdf, view.bytes, packet), PacketError::kNone);
    rings_[host]->consume();
    return packet;
  }
  void write(uint32_t host, ConfigSpace space, uint8_t adapter, uint16_t offset,
             std::initializer_list<uint32_t> words) {
    WriteRequest request;
    request.address = {offset, static_cast<uint8_t>(words.size()), adapter, space, 0};
    for (const uint32_t word : words) request.data.push(word);
    ASSERT_TRUE(send(host, request));
    const auto reply = next(host);
    ASSERT_TRUE(reply && std::holds_alternative<WriteReply>(*reply));
  }
  // What a connection manager does for a path, credits and flow control apart.
  void open_path(uint32_t host, uint8_t adapter, uint32_t hop, uint32_t egress, uint32_t next_hop) {
    write(host, ConfigSpace::kPath, adapter, static_cast<uint16_t>(2 * hop),
          {next_hop | egress << 11 | 14u << 17 | 1u << 31, 1u});
  }
  static ReadRequest read_ids() {
    ReadRequest request;
    request.address = {0, 1, 0, ConfigSpace::kRouter, 1};
    return request;
  }

  World world_{without_paths()};
  std::unique_ptr<ControlRing> rings_[2];
  std::vector<std::unique_ptr<ControlRing>> dead_;  // they have done nothing more
};

TEST_F(ControlRingTest, TheRouterAnswersAReadAtOnce) {
  ASSERT_TRUE(send(0, read_ids()));
  const auto reply = next(0);
  ASSERT_TRUE(reply);
  const auto* ids = std::get_if<ReadReply>(&*reply);
  ASSERT_NE(ids, nullptr);
  EXPECT_EQ(ids->address.sequence, 1);
  EXPECT_EQ(ids->address.adapter, kNhi);
  EXPECT_EQ(ids->data.span()[0] & 0xffff, 0x8087u);
  EXPECT_FALSE(next(0));
  EXPECT_FALSE(next(1));
}

TEST_F(ControlRingTest, TheRingGoesRoundManyTimes) {
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(send(0, read_ids()));
    ASSERT_TRUE(next(0)) << i;
  }
  EXPECT_EQ(world_.fabric->counters(0).misuse, 0u);
}

TEST_F(ControlRingTest, AnswersWaitForDescriptors) {
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(send(0, read_ids()));
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(next(0)) << i;
  EXPECT_FALSE(next(0));
  EXPECT_EQ(world_.fabric->counters(0).control_drops, 0u);
}

TEST_F(ControlRingTest, WhatIsTooMuchIsLostAndCounted) {
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(send(0, read_ids()));
  int answers = 0;
  while (next(0)) ++answers;
  EXPECT_EQ(answers + world_.fabric->counters(0).control_drops, 200u);
  EXPECT_GT(answers, 15);
}

TEST_F(ControlRingTest, AMessageReachesTheOtherHostUnderItsOwnRoute) {
  write(0, ConfigSpace::kAdapter, kLane, 4, {0});  // unlocks the port
  XDomainPacket message;
  message.route = route_append({}, kLane);
  message.protocol = uuid("b638d70e-42ff-40bb-97c2-90e2c0b2ff07");
  message.body.push(12);
  ASSERT_TRUE(send(0, message));
  EXPECT_FALSE(next(0));
  const auto got = next(1);
  ASSERT_TRUE(got);
  const auto* packet = std::get_if<XDomainPacket>(&*got);
  ASSERT_NE(packet, nullptr);
  EXPECT_TRUE(packet->from_router);
  EXPECT_EQ(packet->route, route_append({}, kLane));
  EXPECT_EQ(packet->body, message.body);
}

TEST_F(ControlRingTest, FramesPassOnceBothRoutersHaveThePath) {
  auto a = world_.open(0, 1);
  auto b = world_.open(1, 1);
  ASSERT_TRUE(test::send(*a, 1, 1));  // our own router knows no path: lost
  EXPECT_EQ(world_.fabric->counters(0).unreachable, 1u);
  open_path(0, kNhi, 1, kLane, 9);
  ASSERT_TRUE(test::send(*a, 1, 2));  // the other router has none: the sender stalls
  EXPECT_FALSE(b->rx_pending());
  open_path(1, kLane, 9, kNhi, 1);
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{2});
  write(1, ConfigSpace::kPath, kLane, 18, {0});
  ASSERT_TRUE(test::send(*a, 1, 3));
  EXPECT_FALSE(b->rx_pending());
  open_path(1, kLane, 9, kNhi, 1);
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{3});
}

// Host 0 is told by HopID 9, then by HopID 10, and the receive ring goes on where it was.
TEST_F(ControlRingTest, AReceiveRingKeepsItsPlaceOverAChangeOfPath) {
  auto a = world_.open(0, 1);
  auto b = world_.open(1, 1);
  open_path(0, kNhi, 1, kLane, 9);
  open_path(1, kLane, 9, kNhi, 1);
  for (uint32_t i = 0; i < 21; ++i) {
    ASSERT_TRUE(test::send(*a, 1, i));
    ASSERT_EQ(receive(*b), std::vector<uint32_t>{i});
  }
  write(1, ConfigSpace::kPath, kLane, 18, {0});
  open_path(1, kLane, 10, kNhi, 1);
  open_path(0, kNhi, 1, kLane, 10);
  ASSERT_TRUE(test::send(*a, 1, 99));
  EXPECT_EQ(receive(*b), std::vector<uint32_t>{99});
}

TEST_F(ControlRingTest, AnArmedRingWakesTheDaemon) {
  ASSERT_TRUE(rings_[0]->arm());
  sys::drain_eventfd(world_.interrupts[0].get());
  ASSERT_TRUE(send(0, read_ids()));
  EXPECT_GT(sys::drain_eventfd(world_.interrupts[0].get()), 0u);
  EXPECT_FALSE(rings_[0]->arm());
  ASSERT_TRUE(next(0));
  ASSERT_TRUE(rings_[0]->arm());
  ASSERT_TRUE(send(0, read_ids()));
  EXPECT_GT(sys::drain_eventfd(world_.interrupts[0].get()), 0u);
}

TEST_F(ControlRingTest, ACableThatLosesLosesMessagesToo) {
  write(0, ConfigSpace::kAdapter, kLane, 4, {0});
  emulated::CableParams params;
  params.drop_ppm = 500'000;
  world_.fabric->set_params(0, params);
  XDomainPacket message;
  message.route = route_append({}, kLane);
  message.body.push(1);
  int got = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(send(0, message));
    got += next(1) ? 1 : 0;
  }
  EXPECT_GT(got, 20);
  EXPECT_LT(got, 80);
}

TEST_F(ControlRingTest, PullingTheCableIsToldToWhoWantsToKnow) {
  write(0, ConfigSpace::kRouter, 0, 3, {1u << 31});  // enumerated: from now on it tells
  while (next(0)) {
  }
  emulated::CableParams pulled;
  pulled.plugged = false;
  world_.fabric->set_params(0, pulled);
  const auto news = next(0);
  ASSERT_TRUE(news);
  const auto* event = std::get_if<HotPlug>(&*news);
  ASSERT_NE(event, nullptr);
  EXPECT_TRUE(event->unplug);
  EXPECT_EQ(event->adapter, kLane);
}

TEST_F(ControlRingTest, StoppedAndStartedAgain) {
  ASSERT_TRUE(send(0, read_ids()));
  rings_[0]->stop();
  EXPECT_FALSE(next(0));
  ASSERT_TRUE(rings_[0]->start());
  ASSERT_TRUE(send(0, read_ids()));
  EXPECT_TRUE(next(0));
  ControlRing second(*world_.memories[0], *world_.devices[0]);
  EXPECT_EQ(second.start().code(), EBUSY);
}

// The ring of an owner that was killed is still enabled, and nobody unmaps its memory.
TEST_F(ControlRingTest, ARingWhoseOwnerIsDeadIsTakenOver) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(send(0, read_ids()));  // its answer is lost with the ring
    dead_.push_back(std::move(rings_[0]));
    auto next_owner = std::make_unique<ControlRing>(*world_.memories[0], *world_.devices[0]);
    ASSERT_EQ(next_owner->start().code(), EBUSY);
    const Status taken = next_owner->take_over();
    ASSERT_TRUE(taken) << i << ": " << taken.text();
    rings_[0] = std::move(next_owner);
    ASSERT_FALSE(next(0));
    ASSERT_TRUE(send(0, read_ids()));
    ASSERT_TRUE(next(0));
  }
}

TEST_F(ControlRingTest, TakingOverARingThatWasStoppedIsStartingIt) {
  rings_[0]->stop();
  ASSERT_TRUE(rings_[0]->take_over());
  ASSERT_TRUE(send(0, read_ids()));
  EXPECT_TRUE(next(0));
}

}  // namespace
}  // namespace tbt::rail::test
