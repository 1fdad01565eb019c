// Flow control of a path: what is offered and what a self-test finds decide it, the same at both
// ends, and before frames pass; whatever happens meanwhile.
#include "manager_world.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

constexpr uint32_t kAuto = kPathFeatureE2e | kPathFeatureCredits;

void boot_both(ManagerWorld& world) {
  world.plug_all();
  world.boot(0);
  world.boot(1);
}
PathStatus path_of(ManagerWorld& world, uint32_t host) {
  return world.port(host).path.value_or(PathStatus{});
}

TEST(ManagerFlow, WhatBothOfferDecides) {
  struct Case {
    uint32_t offers[2];
    PathFlow flow;
    bool tested;
  };
  const Case cases[] = {{{kAuto, kAuto}, PathFlow::kE2e, true},
                        {{kAuto, kPathFeatureE2e}, PathFlow::kE2e, false},
                        {{kPathFeatureE2e, kPathFeatureE2e}, PathFlow::kE2e, false},
                        {{kAuto, kPathFeatureCredits}, PathFlow::kCredits, false},
                        {{kPathFeatureCredits, kPathFeatureCredits}, PathFlow::kCredits, false},
                        {{kPathFeatureE2e, kPathFeatureCredits}, PathFlow::kNone, false},
                        {{kAuto, 0}, PathFlow::kNone, false}};
  for (const Case& c : cases) {
    ManagerWorld world;
    for (uint32_t h = 0; h < 2; ++h) world.configs[h].flow_features = c.offers[h];
    boot_both(world);
    world.run(Duration::from_s(1));
    ASSERT_TRUE(world.up());
    for (uint32_t h = 0; h < 2; ++h) {
      const PathStatus path = path_of(world, h);
      EXPECT_EQ(path.flow, c.flow);
      EXPECT_EQ(path.flow_reason, c.tested ? FlowReason::kTested : FlowReason::kOffered);
      EXPECT_EQ(path.session != 0, c.flow == PathFlow::kCredits);
      EXPECT_EQ(world.events_of<FlowTestDue>(h).size(), c.tested ? 1u : 0u);
    }
    EXPECT_EQ(path_of(world, 0).session, path_of(world, 1).session);
  }
}

TEST(ManagerFlow, ASelfTestThatFailsAtEitherEndIsHeededByBoth) {
  for (const auto failed : {FlowOutcome::kMissing, FlowOutcome::kNothing}) {
    ManagerWorld world;
    world.flow_outcomes[1] = failed;
    boot_both(world);
    world.run(Duration::from_s(1));
    ASSERT_TRUE(world.up());
    EXPECT_EQ(path_of(world, 0).flow, PathFlow::kCredits);
    EXPECT_EQ(path_of(world, 1).flow, PathFlow::kCredits);
    EXPECT_EQ(path_of(world, 0).flow_reason, FlowReason::kFailedThere);
    EXPECT_EQ(path_of(world, 1).flow_reason, FlowReason::kFailedHere);
    EXPECT_EQ(path_of(world, 0).session, path_of(world, 1).session);
    EXPECT_NE(path_of(world, 0).session, 0u);
  }
}

TEST(ManagerFlow, ShortRingsOfferWhatTheyCanDo) {
  for (const auto& [entries, flow, tested] :
       {std::tuple(7, PathFlow::kE2e, false), std::tuple(8, PathFlow::kCredits, false),
        std::tuple(63, PathFlow::kCredits, false), std::tuple(64, PathFlow::kE2e, true)}) {
    ManagerWorld world;
    world.configs[0].ring_entries = static_cast<uint16_t>(entries);
    boot_both(world);
    world.run(Duration::from_s(1));
    ASSERT_TRUE(world.up());
    EXPECT_EQ(path_of(world, 0).flow, flow) << entries;
    EXPECT_EQ(path_of(world, 0).flow_reason, tested ? FlowReason::kTested : FlowReason::kOffered);
  }
}

// A rail that cannot be held yet, because a stopped process has its lock, holds up its own cable.
TEST(ManagerFlow, NoFramesPassBeforeBothRailsAreHeld) {
  ManagerWorld world;
  world.rails_are_held = false;
  boot_both(world);
  world.run(Duration::from_s(2));
  ASSERT_EQ(world.events_of<FlowTestWanted>(0).size(), 1u);
  const uint32_t session = world.events_of<FlowTestWanted>(0)[0].session;
  world[0].rail_held(world.now, 0, session);
  world.run(Duration::from_s(10));
  EXPECT_TRUE(world.events_of<FlowTestDue>(0).empty());
  EXPECT_FALSE(world.up());
  EXPECT_EQ(world.port(0).trouble, "the peer does not come to an end of the flow agreement");
  world[1].rail_held(world.now, 0, session + 1);
  world.run(Duration::from_s(2));
  EXPECT_FALSE(world.up()) << "that was another session's";
  world[1].rail_held(world.now, 0, session);
  world.run(Duration::from_s(2));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.port(0).trouble, "");
}

TEST(ManagerFlow, APulledCableEndsTheTestAndTheNextOneIsAnother) {
  ManagerWorld world;
  world.rails_are_held = false;
  boot_both(world);
  world.run(Duration::from_s(1));
  const uint32_t session = world.events_of<FlowTestWanted>(0).back().session;
  world[0].rail_held(world.now, 0, session);
  world.plug(0, false);
  world.run(Duration::from_s(1));
  for (uint32_t h = 0; h < 2; ++h) {
    EXPECT_EQ(world.events_of<FlowTestOver>(h).size(), 1u);
    EXPECT_TRUE(world.events_of<PathUp>(h).empty());
    EXPECT_TRUE(world.events_of<PathDown>(h).empty());
  }
  world[1].rail_held(world.now, 0, session);  // late
  world.rails_are_held = true;
  world.plug(0, true);
  world.run(Duration::from_s(2));
  EXPECT_TRUE(world.up());
  EXPECT_NE(world.events_of<FlowTestWanted>(0).back().session, session);
}

// Unplug, loss, and the end of either daemon at each step of the way.
TEST(ManagerFlow, WhateverHappensOnTheWayBothEndsAgree) {
  uint64_t steps = 0;
  {
    ManagerWorld whole;
    whole.flow_outcomes[0] = FlowOutcome::kMissing;
    boot_both(whole);
    whole.run(Duration::from_s(1));
    steps = whole.steps;
  }
  for (uint64_t step = 0; step <= steps; ++step) {
    for (const int what : {0, 1, 2, 3, 4}) {
      ManagerWorld world(step + 1);
      world.flow_outcomes[0] = FlowOutcome::kMissing;
      boot_both(world);
      world.run_steps(step);
      if (what == 0) {
        world.plug(0, false);
        world.run(Duration::from_ms(20));
        world.plug(0, true);
      } else if (what == 4) {
        world.cable_lost_ppm = 300'000;
      } else {
        const uint32_t host = what % 2;
        world.kill(host);
        world.run(Duration::from_ms(30));
        what == 3 ? world.restart(host) : world.resume(host);
      }
      world.run(Duration::from_s(20));
      ASSERT_TRUE(world.up()) << step << ", " << what;
      EXPECT_EQ(path_of(world, 0).flow, PathFlow::kCredits) << step << ", " << what;
      EXPECT_EQ(path_of(world, 1).flow, PathFlow::kCredits) << step << ", " << what;
      EXPECT_EQ(path_of(world, 0).session, path_of(world, 1).session) << step << ", " << what;
    }
  }
}

// One end's result is lost on the cable, and so is its daemon. The next one has frames passing, and
// is asked what it was.
TEST(ManagerFlow, WhoGoesOnForADaemonCanSayWhatItHasFound) {
  for (const auto found : {FlowOutcome::kHeld, FlowOutcome::kMissing}) {
    ManagerWorld world;
    world.tests_end[1] = false;
    boot_both(world);
    world.run(Duration::from_ms(5));
    world.cable_lost_ppm = 1'000'000;
    const auto due = world.events_of<FlowTestDue>(1);
    ASSERT_EQ(due.size(), 1u);
    world[1].flow_tested(world.now, 0, due[0].session, found);
    world.run(Duration::from_ms(5));
    ASSERT_EQ(world.events_of<PathUp>(1).size(), 1u);
    ASSERT_TRUE(world.events_of<PathUp>(0).empty());
    world.kill(1);
    world.resume(1);
    world.cable_lost_ppm = 0;
    world.run(Duration::from_s(3));
    EXPECT_TRUE(world.up());
    EXPECT_TRUE(world.events_of<PathDown>(1).empty()) << world.last_down(1);
    EXPECT_EQ(path_of(world, 0).flow, path_of(world, 1).flow);
    EXPECT_EQ(path_of(world, 0).flow_reason,
              found == FlowOutcome::kHeld ? FlowReason::kTested : FlowReason::kFailedThere);
  }
}

// What lies in the memory that daemons leave to each other is looked at before it is believed.
TEST(ManagerFlow, AKeptPathWithAnImpossibleFlowControlIsOfNoUse) {
  for (const int what : {0, 1, 2}) {
    ManagerWorld world;
    boot_both(world);
    world.run(Duration::from_s(1));
    PathStatus& kept = world.kept[0].at(0);
    if (what == 0) kept.flow = static_cast<PathFlow>(3);
    if (what == 1) kept.flow_reason = static_cast<FlowReason>(9);
    if (what == 2) kept.session = 5;
    world.kill(0);
    world.resume(0);
    world.run(Duration::from_s(2));
    EXPECT_EQ(world.last_down(0), "what the last daemon has left is of no use");
    EXPECT_TRUE(world.up());
    EXPECT_EQ(path_of(world, 0).flow, PathFlow::kE2e);
  }
}

}  // namespace
}  // namespace tbt::fabric
