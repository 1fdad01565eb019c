// A connection manager that is killed while its paths carry frames, and another one that goes on
// for it: nothing of a path is touched as long as all is as it was left, and whatever is not so
// leads to a path that is made anew.
#include "fabric/connection_manager.h"
#include "manager_world.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

constexpr Duration kAtOnce = Duration::from_ms(3);
constexpr uint32_t kLane = 1, kNhi = 3;  // adapters of a router with one port

class Scene : public ManagerWorld {
 public:
  using ManagerWorld::ManagerWorld;

  void bring_up() {
    plug_all();
    boot(0);
    boot(1);
    run(Duration::from_s(5));
    ASSERT_TRUE(up());
    watch();
  }
  // From here on, what is written to the routers beyond their own space, and what is said.
  void watch() {
    intercept = [this](uint32_t, const ControlPacket& packet) {
      const auto* write = std::get_if<WriteRequest>(&packet);
      writes += write != nullptr && write->address.space != ConfigSpace::kRouter ? 1 : 0;
      return std::optional<ControlPacket>();
    };
    events = {};
    writes = 0;
  }
  template <typename T>
  size_t count(uint32_t host) {
    return events_of<T>(host).size();
  }
  void expect_undisturbed() {
    EXPECT_TRUE(up());
    EXPECT_EQ(writes, 0u) << "of a path entry or an adapter";
    for (uint32_t h = 0; h < 2; ++h) {
      EXPECT_EQ(count<PathDown>(h), 0u) << "host " << h << ": " << last_down(h);
      EXPECT_EQ(count<PeerLost>(h), 0u) << "host " << h;
      EXPECT_EQ(count<ManagerWarning>(h), 0u) << "host " << h;
    }
    EXPECT_TRUE(events[1].empty()) << "the peer has noticed it";
  }

  uint32_t writes = 0;
};

TEST(ManagerResume, ARunningPathGoesOnAndThePeerDoesNotNotice) {
  Scene world;
  world.bring_up();
  const PathStatus before = *world.port(0).path;
  for (int i = 0; i < 3; ++i) {
    world.kill(0);
    world.run(Duration::from_s(1));
    world.resume(0);
    world.run(Duration::from_s(60));
    world.expect_undisturbed();
  }
  EXPECT_EQ(world.count<PathUp>(0), 3u);
  EXPECT_EQ(world.port(0).path->generation, before.generation);
  EXPECT_EQ(world.port(0).path->out_hop_id, before.out_hop_id);
  EXPECT_EQ(world.port(0).peer->host_name, "host1");
  EXPECT_TRUE(world[0].poll_timeout().is_never());
}

// Killed again at every step of going on.
TEST(ManagerResume, AKillAtEveryStepOfItDisturbsNothing) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.resume(0);
  const uint64_t begun = world.steps;
  world.run(Duration::from_s(60));
  const uint64_t steps = world.steps - begun;
  for (uint64_t step = 0; step <= steps; ++step) {
    world.kill(0);
    world.resume(0);
    world.run_steps(step);
    world.kill(0);
    world.resume(0);
    world.run(Duration::from_s(60));
    world.expect_undisturbed();
    ASSERT_FALSE(::testing::Test::HasFailure()) << "after " << step;
  }
}

// And before the path has come up, or while it does: it comes up, and says true things.
TEST(ManagerResume, AKillAtEveryStepOfAPathLeadsToAPath) {
  uint64_t steps = 0;
  {
    ManagerWorld whole;
    whole.plug_all();
    whole.boot(0);
    whole.boot(1);
    whole.run(Duration::from_s(1));
    steps = whole.steps;
  }
  for (uint64_t step = 0; step <= steps; ++step) {
    for (uint32_t host = 0; host < 2; ++host) {
      ManagerWorld one;
      one.plug_all();
      one.boot(0);
      one.boot(1);
      one.run_steps(step);
      one.kill(host);
      one.run(Duration::from_ms(20));
      one.resume(host);
      one.run(Duration::from_s(3));
      EXPECT_TRUE(one.up()) << "after " << step;
      EXPECT_EQ(one.entries(0), 2u) << "after " << step;
      EXPECT_EQ(one.entries(1), 2u) << "after " << step;
    }
  }
}

TEST(ManagerResume, BothAtOnceGoOn) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.kill(1);
  world.resume(0);
  world.resume(1);
  world.run(Duration::from_s(60));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.writes, 0u);
  EXPECT_EQ(world.count<PathDown>(0) + world.count<PathDown>(1), 0u);
}

TEST(ManagerResume, APeerThatIsAwayAsWellIsWaitedFor) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.kill(1);
  world.resume(0);
  world.run(Duration::from_s(60));
  EXPECT_EQ(world.count<PathDown>(0), 0u);
  world.resume(1);
  world.run(Duration::from_s(60));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.writes, 0u);
  EXPECT_EQ(world.count<PathDown>(0) + world.count<PathDown>(1), 0u);
}

TEST(ManagerResume, ACablePulledMeanwhileIsNoticed) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.plug(0, false);
  world.run(Duration::from_s(1));
  world.resume(0);
  world.run(Duration::from_s(1));
  EXPECT_EQ(world.count<PathDown>(0), 1u);
  EXPECT_EQ(world.count<PathUp>(0), 0u);
  EXPECT_EQ(world.port(0).state, PortState::kUnplugged);
  EXPECT_FALSE(world.port(0).path || world.port(0).peer);
  EXPECT_EQ(world.entries(0), 0u);
  world.plug(0, true);
  EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
}

TEST(ManagerResume, ACablePulledAndPluggedAgainMeanwhileMakesThePathAnew) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.plug(0, false);
  world.run(Duration::from_ms(100));
  world.plug(0, true);
  world.run(Duration::from_ms(100));
  EXPECT_FALSE(world.port(1).path);
  world.resume(0);
  world.run(Duration::from_s(2));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.count<PathDown>(0), 1u) << "what the peer's end counts of flow control is new";
  EXPECT_EQ(world.last_down(0), "the peer has begun anew");
  EXPECT_EQ(world.entries(0), 2u);
}

TEST(ManagerResume, APeerThatRestartedMeanwhileMakesThePathAnew) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.restart(1);
  world.run(Duration::from_ms(100));
  world.resume(0);
  world.run(Duration::from_s(2));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.count<PathDown>(0), 1u);
  EXPECT_EQ(world.port(0).path->peer_incarnation, world.configs[1].incarnation);
}

TEST(ManagerResume, APeerThatHasLeftMeanwhileTakesThePathDown) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world[1].shutdown(world.now);
  world.run(Duration::from_s(2));
  world.kill(1);
  world.resume(0);
  world.run(Duration::from_s(20));
  EXPECT_EQ(world.count<PathDown>(0), 0u) << "nobody says that it is";
  world.restart(1);
  world.run(Duration::from_s(2));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.count<PathDown>(0), 1u);
}

// The peer's announcement of it was lost with the daemon. Told once, whichever is seen first: that
// the path is as it was, or the new terms.
TEST(ManagerResume, OtherTermsOfThePeerAreSeen) {
  for (const bool entries_late : {false, true}) {
    Scene world;
    world.bring_up();
    world.kill(0);
    uint32_t& known = world.kept[0][0].peer_max_frame;
    const uint32_t now = std::exchange(known, known / 2);
    bool held = !entries_late;
    world.intercept = [&](uint32_t, const ControlPacket& packet) -> std::optional<ControlPacket> {
      const auto* read = std::get_if<ReadRequest>(&packet);
      const bool entry = read != nullptr && read->address.space == ConfigSpace::kPath &&
                         read->address.offset == 2 * 8;
      if (!entry || std::exchange(held, true)) return std::nullopt;
      return Reset{.route = {}, .from_router = true};  // says nothing; the request is repeated
    };
    world.resume(0);
    world.run(Duration::from_s(2));
    EXPECT_TRUE(world.up());
    EXPECT_EQ(world.count<PathDown>(0), 1u);
    EXPECT_EQ(world.count<PathUp>(0), entries_late ? 1u : 2u);
    EXPECT_EQ(world.last_down(0), "the peer's service has changed");
    EXPECT_EQ(world.port(0).path->peer_max_frame, now);
    EXPECT_EQ(world.entries(0), 2u);
  }
}

TEST(ManagerResume, EntriesThatAreNotAsTheyWereLeftAreMadeAnew) {
  for (const bool transmit : {false, true}) {
    Scene world;
    world.bring_up();
    world.kill(0);
    auto& entry = transmit ? world.silicon(0).nhi_paths.entries[1]
                           : world.silicon(0).lane_paths[0].entries[8];
    const auto entry_now = [&] {
      return world.router(0).path(transmit ? kNhi : kLane, transmit ? 1 : 8);
    };
    const auto before = entry_now();
    entry ^= 1u;  // another HopID
    ASSERT_NE(entry_now(), before);
    world.resume(0);
    world.run(Duration::from_s(2));
    EXPECT_TRUE(world.up());
    EXPECT_EQ(world.count<PathDown>(0), 1u);
    EXPECT_EQ(world.last_down(0), "its path is not as the last daemon has left it");
    EXPECT_EQ(world.last_down(1), "the peer has begun anew");
    EXPECT_EQ(world.entries(0), 2u);
  }
}

TEST(ManagerResume, WhatIsRememberedWronglyLeadsToTheOrdinaryWay) {
  using Change = void (*)(PathStatus&);
  const Change changes[] = {
      [](PathStatus& p) { p.out_hop_id = 9; },        [](PathStatus& p) { p.out_hop_id = 7; },
      [](PathStatus& p) { p.out_hop_id = 2000; },     [](PathStatus& p) { p.in_hop_id = 9; },
      [](PathStatus& p) { p.tx_ring = 2; },           [](PathStatus& p) { p.port = 5; },
      [](PathStatus& p) { p.generation += 1; },       [](PathStatus& p) { p.peer_generation += 1; },
      [](PathStatus& p) { p.peer_incarnation += 1; }, [](PathStatus& p) { p.peer_incarnation = 0; },
      [](PathStatus& p) { p.peer.bytes[3] ^= 1; },    [](PathStatus& p) { p.peer_rail = 3; },
  };
  for (size_t i = 0; i < std::size(changes); ++i) {
    ManagerWorld one;
    one.plug_all();
    one.boot(0);
    one.boot(1);
    one.run(Duration::from_s(1));
    one.kill(0);
    changes[i](one.kept[0].begin()->second);
    one.events = {};
    one.resume(0);
    one.run(Duration::from_s(10));
    EXPECT_TRUE(one.up()) << i;
    EXPECT_EQ(one.events_of<PathDown>(0).size(), 1u) << i;
    EXPECT_EQ(one.entries(0), 2u) << i;
  }
}

TEST(ManagerResume, ARouterThatDoesNotAnswerTakesTheKeptPathsDown) {
  Scene world;
  world.bring_up();
  world.kill(0);
  world.ring_lost_ppm = 1'000'000;
  world.resume(0);
  world.run(Duration::from_s(1));
  EXPECT_EQ(world[0].status().state, RouterState::kRefused);
  EXPECT_EQ(world.count<PathDown>(0), 1u);
}

TEST(ManagerResume, OnlyThePathThatWasNotUpIsMade) {
  Scene world(1, 2);
  world.plug(0, true);
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  ASSERT_TRUE(world.up(0));
  world.kill(0);
  world.plug(1, true);
  world.run(Duration::from_ms(10));
  world.watch();
  world.resume(0);
  world.run(Duration::from_s(2));
  EXPECT_TRUE(world.up(0));
  EXPECT_TRUE(world.up(1));
  EXPECT_EQ(world.count<PathDown>(0) + world.count<PathDown>(1), 0u);
  EXPECT_EQ(world.count<PathUp>(1), 1u) << "of port 1";
}

TEST(ManagerResume, LossOnTheCableChangesNothing) {
  Scene world;
  world.bring_up();
  world.cable_lost_ppm = 300'000;
  for (int i = 0; i < 20; ++i) {
    world.kill(i % 2);
    world.resume(i % 2);
    world.run(Duration::from_ms(700));
  }
  world.cable_lost_ppm = 0;
  world.run(Duration::from_s(60));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.writes, 0u);
  EXPECT_EQ(world.count<PathDown>(0) + world.count<PathDown>(1), 0u);
}

}  // namespace
}  // namespace tbt::fabric
