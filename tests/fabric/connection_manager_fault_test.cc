// Two connection managers over models of their routers, when things go wrong: cables pulled and
// hosts killed at every step, loss, stuck paths, limits that do not fit, and all of it at random.
#include "fabric/connection_manager.h"
#include "manager_world.h"

namespace tbt::fabric {
namespace {

constexpr Duration kAtOnce = Duration::from_ms(3);

// How many steps it takes two hosts from their start to the end of all work.
uint64_t steps_of_a_path() {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  return world.steps;
}

TEST(ConnectionManagerFault, APulledCableTakesThePathDownAndAReplugBringsItBack) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  for (int i = 0; i < 3; ++i) {
    world.plug(0, false);
    world.run(Duration::from_ms(2));
    for (uint32_t h = 0; h < 2; ++h) {
      EXPECT_EQ(world.last_down(h), "the cable was pulled");
      EXPECT_EQ(world.port(h).state, PortState::kUnplugged);
      EXPECT_EQ(world.port(h).lanes, 0u);
      EXPECT_FALSE(world.port(h).peer || world.port(h).path);
      EXPECT_EQ(world.entries(h), 0u);
      EXPECT_EQ(world.events_of<PeerLost>(h).size(), static_cast<size_t>(i) + 1);
    }
    world.plug(0, true);
    EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce) << i;
  }
  EXPECT_EQ(world.events_of<PathUp>(0).size(), 4u);
}

TEST(ConnectionManagerFault, APullAtEveryStepLeavesNothingOpen) {
  const uint64_t steps = steps_of_a_path();
  for (uint64_t step = 0; step <= steps; ++step) {
    ManagerWorld world;
    world.plug_all();
    world.boot(0);
    world.boot(1);
    world.run_steps(step);
    world.plug(0, false);
    world.run(Duration::from_s(30));
    for (uint32_t h = 0; h < 2; ++h) {
      EXPECT_EQ(world.entries(h), 0u) << "after " << step;
      EXPECT_FALSE(world.port(h).path) << "after " << step;
      EXPECT_TRUE(world[h].poll_timeout().is_never()) << "after " << step;
    }
    world.plug(0, true);
    EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce) << "after " << step;
  }
}

// Pulled and plugged again before anybody has time to do anything.
TEST(ConnectionManagerFault, AShortPullAtEveryStepIsSurvived) {
  const uint64_t steps = steps_of_a_path();
  for (uint64_t step = 0; step <= steps; ++step) {
    ManagerWorld world;
    world.plug_all();
    world.boot(0);
    world.boot(1);
    world.run_steps(step);
    world.plug(0, false);
    world.run_steps(step % 7);
    world.plug(0, true);
    world.run(Duration::from_s(3));
    EXPECT_TRUE(world.up()) << "after " << step;
    EXPECT_EQ(world.entries(0), 2u);
    EXPECT_EQ(world.entries(1), 2u);
  }
}

TEST(ConnectionManagerFault, ARestartOfThePeerAtEveryStepIsFollowed) {
  const uint64_t steps = steps_of_a_path();
  for (uint64_t step = 0; step <= steps; ++step) {
    ManagerWorld world;
    world.plug_all();
    world.boot(0);
    world.boot(1);
    world.run_steps(step);
    const bool was_up = world.port(0).path.has_value();
    world.restart(1);
    world.run(Duration::from_ms(200));
    EXPECT_TRUE(world.up()) << "after " << step;
    if (was_up) {
      EXPECT_EQ(world.last_down(0), "the peer has restarted") << "after " << step;
    }
    EXPECT_EQ(world.entries(1), 2u) << "what its predecessor left is gone";
  }
}

TEST(ConnectionManagerFault, ADeadPeerIsFollowedWhenItComesBack) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  world.kill(1);
  world.run(Duration::from_s(60));
  EXPECT_TRUE(world.port(0).path) << "nothing on the link says that a daemon is dead";
  world.restart(1);
  EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
  EXPECT_EQ(world.events_of<PathUp>(0).size(), 2u);
}

// One end saw the link go and come, the other one did not: both begin anew, because the flow
// control of a path is between both ends.
TEST(ConnectionManagerFault, ALossThatOnlyOneEndSawMakesBothEndsNew) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  for (int i = 1; i <= 3; ++i) {
    world.give(0, wire::tb::HotPlug{.route = {}, .adapter = 1, .unplug = true});
    world.run(Duration::from_ms(20));
    EXPECT_TRUE(world.up());
    EXPECT_EQ(world.last_down(0), "the cable was pulled");
    EXPECT_EQ(world.last_down(1), "the peer has begun anew");
    EXPECT_EQ(world.events_of<PathUp>(0).size(), 1u + i);
    EXPECT_EQ(world.events_of<PathUp>(1).size(), 1u + i);
    world.run(Duration::from_s(1));
  }
}

// It was given up by discovery, because nothing that it said got through; the other end knows it
// and asks for a path now and then.
TEST(ConnectionManagerFault, APeerThatAsksForAPathIsDiscoveredAnew) {
  ManagerWorld world;
  bool mute = true;
  world.intercept =
      [&](uint32_t host,
          const wire::tb::ControlPacket& packet) -> std::optional<wire::tb::ControlPacket> {
    const auto* message = std::get_if<wire::tb::XDomainPacket>(&packet);
    if (!mute || host != 0 || message == nullptr || !message->response) return std::nullopt;
    return wire::tb::Reset{.route = {}, .from_router = true};
  };
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(30));
  ASSERT_TRUE(world.port(0).peer);
  ASSERT_FALSE(world.port(1).peer);
  mute = false;
  EXPECT_LT(world.run_until_up(Duration::from_s(30)), Duration::from_ms(5010));
}

// No event tells of it: the link went and came while nobody could hear.
TEST(ConnectionManagerFault, ALockThatClosedUnnoticedIsOpened) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.run(Duration::from_ms(10));
  ASSERT_EQ(world.port(0).state, PortState::kUp);
  world.silicon(0).ports[0].lane0[4] |= 1u << 31;
  world.run(Duration::from_s(30));
  world.boot(1);
  EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce);
}

TEST(ConnectionManagerFault, LeftOverEntriesAreClearedAtTheStart) {
  ManagerWorld world(1, 2);
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  ASSERT_EQ(world.entries(0), 4u);
  world.kill(0);
  world.plug(0, false);
  world.plug(1, false);
  world.restart(0);
  world.run(Duration::from_s(1));
  EXPECT_EQ(world.entries(0), 0u);
}

TEST(ConnectionManagerFault, ShutdownTellsThePeerAndClearsBothEnds) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  world[0].shutdown(world.now);
  EXPECT_EQ(world[0].status().state, RouterState::kClosing);
  world.run(Duration::from_ms(1));
  EXPECT_TRUE(world[0].is_closed());
  EXPECT_EQ(world.last_down(0), "shut down");
  EXPECT_EQ(world.last_down(1), "the peer has withdrawn");
  EXPECT_EQ(world.entries(0) + world.entries(1), 0u);
  world.run(Duration::from_s(60));
  EXPECT_TRUE(world[1].poll_timeout().is_never()) << "who has said farewell is not asked";
  world.restart(0);
  EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
}

TEST(ConnectionManagerFault, ShutdownAtEveryStepEndsInTime) {
  const uint64_t steps = steps_of_a_path();
  for (uint64_t step = 0; step <= steps; ++step) {
    for (const bool peer_dead : {false, true}) {
      ManagerWorld world;
      world.plug_all();
      world.boot(0);
      world.boot(1);
      world.run_steps(step);
      if (peer_dead) world.kill(1);
      world[0].shutdown(world.now);
      world.run(Duration::from_ms(300));
      EXPECT_TRUE(world[0].is_closed()) << "after " << step;
      EXPECT_EQ(world.entries(0), 0u) << "after " << step;
      EXPECT_TRUE(world[0].poll_timeout().is_never()) << "after " << step;
      if (!peer_dead) {
        world.run(Duration::from_s(1));
        EXPECT_FALSE(world.port(1).path) << "after " << step;
        EXPECT_FALSE(world.router(1).path(3, 1).enabled) << "after " << step;
      }
    }
  }
}

TEST(ConnectionManagerFault, PacketsThatStayPendingDelayButDoNotHold) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  world.router(0).set_stuck_pending_reads(20);
  world.plug(0, false);
  world.run(Duration::from_s(1));
  EXPECT_EQ(world.entries(0), 0u);
  EXPECT_TRUE(world.events_of<ManagerWarning>(0).empty()) << "it came to an end";
  world.router(0).set_stuck_pending_reads(60000);
  world.plug(0, true);
  EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
  const Instant begun = world.now;
  world[0].shutdown(world.now);
  while (!world[0].is_closed() && world.step(world.now + Duration::from_s(60))) {
  }
  // Two entries, 500 ms each.
  EXPECT_GT(world.now - begun, Duration::from_ms(999));
  EXPECT_LT(world.now - begun, Duration::from_ms(1100));
  EXPECT_EQ(world.events_of<ManagerWarning>(0).size(), 2u);
  EXPECT_EQ(world.entries(0), 0u);
}

// A router that lost half of what goes by ring 0 would be replaced; 2 % is beyond any real one.
TEST(ConnectionManagerFault, LossDelaysButDoesNotDeceive) {
  uint32_t late = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    ManagerWorld world(seed);
    world.cable_lost_ppm = 200'000;
    world.ring_lost_ppm = 20'000;
    world.plug_all();
    world.boot(0);
    world.boot(1);
    world.run(Duration::from_s(10));
    for (uint32_t h = 0; h < 2; ++h) {
      EXPECT_TRUE(!world.port(h).path || world.leads_across(h, 0)) << "seed " << seed;
    }
    if (!world.up()) ++late;
    world.cable_lost_ppm = world.ring_lost_ppm = 0;
    world.plug(0, false);
    world.run(Duration::from_s(2));
    world.plug(0, true);
    EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce) << "seed " << seed;
  }
  EXPECT_LE(late, 10u);
}

// Everything that can happen to a cable and its hosts, in any order and at any time. Whatever the
// managers say of a path must be so, and when it is over all must be well within seconds.
TEST(ConnectionManagerFault, RandomStoriesEndWell) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Rng rng(seed);
    ManagerWorld world(seed, 2);
    world.plug_all();
    world.boot(0);
    world.boot(1);
    for (uint32_t i = 0; i < 20; ++i) {
      const uint32_t host = rng.below(2), port = rng.below(2);
      switch (rng.below(7)) {
        case 0:
          world.plug(port, !world.cables[port].plugged);
          break;
        case 1:
          world.kill(host);
          break;
        case 2:
          world.restart(host);
          break;
        case 3:
          if (world.alive(host)) world[host].shutdown(world.now);
          break;
        case 4:
          world.cable_lost_ppm = rng.below(2) * 300'000;
          break;
        case 5:
          world.ring_lost_ppm = rng.below(2) * 20'000;
          break;
        default:
          world.notify(host, wire::tb::kLinkError, port);
          break;
      }
      if (rng.below(2) == 0) {
        world.run_steps(rng.below(60));
      } else {
        world.run(Duration::from_ms(rng.below(3000)));
      }
      for (uint32_t h = 0; h < 2; ++h) {
        if (!world.alive(h) || !world.port(h, port).path) continue;
        const uint32_t nhi = world[h].status().nhi_adapter;
        ASSERT_TRUE(world.router(h).path(nhi, port + 1).enabled) << "seed " << seed;
        ASSERT_TRUE(world.router(h).path(2 * port + 1, 8).enabled) << "seed " << seed;
      }
    }
    world.cable_lost_ppm = world.ring_lost_ppm = 0;
    world.plug_all();
    for (uint32_t h = 0; h < 2; ++h) {
      if (!world.alive(h) || world[h].status().state != RouterState::kReady) world.restart(h);
    }
    world.run(Duration::from_s(8));
    for (uint32_t port = 0; port < 2; ++port) EXPECT_TRUE(world.up(port)) << "seed " << seed;
    for (uint32_t h = 0; h < 2; ++h) EXPECT_EQ(world.entries(h), 4u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace tbt::fabric
