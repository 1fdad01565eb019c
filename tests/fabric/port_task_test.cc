// The tasks at a port, each on dwords written by hand: path entries, the link, its low power
// states, what somebody left behind.
#include "fabric/link_task.h"
#include "fabric/path_entry_task.h"
#include "scripted_router.h"

namespace tbt::fabric {
namespace {

constexpr uint32_t kEnable = 1u << 31, kPending = 1u << 28;
constexpr PathIngress kLane{.adapter = 1, .hop_id = 8, .lane = true};
constexpr PathIngress kNhi{.adapter = 5, .hop_id = 2, .lane = false};

TEST(PathEntryTask, AnEntryOfALaneIsWrittenAsTheKernelDoes) {
  ScriptedRouter router;
  router.path(1, 8, 0);
  router.path(1, 8, 1);
  PathEntryTask task(kLane, PathTarget{.egress_adapter = 5, .next_hop_id = 1, .credits = 14});
  router.run(task);
  EXPECT_EQ(task.failure(), "");
  EXPECT_EQ(router.path(1, 8, 0), kEnable | 14u << 17 | 5u << 11 | 1);
  EXPECT_EQ(router.path(1, 8, 1), 3u << 24 | 5u << 8 | 1);
  EXPECT_EQ(router.writes().size(), 1u);
}

TEST(PathEntryTask, WhatIsNotOursIsKept) {
  ScriptedRouter router;
  router.path(5, 2, 0) = 0x7fff'ffff;
  router.path(5, 2, 1) = 0xefff'ffff;
  PathEntryTask task(kNhi, PathTarget{.egress_adapter = 1, .next_hop_id = 8, .credits = 14});
  router.run(task);
  // Credits, ingress flow control and ingress sharing of the host interface are its vendor's.
  EXPECT_EQ(router.path(5, 2, 0), (0xfe00'0000u | 127u << 17 | 1u << 11 | 8));
  EXPECT_EQ(router.path(5, 2, 1), (0xe700'00f0u | 5u << 8 | 1u));
  PathEntryTask close(kNhi, std::nullopt);
  router.run(close);
  EXPECT_EQ(router.path(5, 2, 0), (0x7e00'0000u | 127u << 17 | 1u << 11 | 8));
  EXPECT_EQ(router.path(5, 2, 1), (0xe500'00f0u | 5u << 8 | 1u));
}

TEST(PathEntryTask, ClosingDisablesThenWaitsThenTakesFlowControlOff) {
  ScriptedRouter router;
  router.path(1, 8, 0) = kEnable | 14u << 17 | 5u << 11 | 1;
  router.path(1, 8, 1) = 3u << 24 | 5u << 8 | 1;
  const Instant empty = router.now + Duration::from_ms(5);
  router.before = [&](const ConfigAccess& access) {
    const uint32_t pending = router.now < empty ? kPending : 0;
    router.path(1, 8, 1) = (router.path(1, 8, 1) & ~kPending) | pending;
    if (!access.write) return;
    if (router.writes().size() == 1) {
      EXPECT_EQ(access.data.span()[0] & kEnable, 0u);
      EXPECT_EQ(access.data.span()[1] >> 24 & 3, 3u) << "packets still need it";
    } else {
      EXPECT_EQ(access.data.span()[1] >> 24, 0u);
      EXPECT_GE(router.now, empty);
    }
  };
  PathEntryTask task(kLane, std::nullopt);
  router.run(task);
  EXPECT_EQ(router.writes().size(), 2u);
  EXPECT_FALSE(task.stuck());
  EXPECT_LT(router.now - empty, Duration::from_ms(2));
}

TEST(PathEntryTask, WhatStaysPendingIsWaitedForHalfASecond) {
  ScriptedRouter router;
  router.path(1, 8, 0) = kEnable;
  router.path(1, 8, 1) = kPending | 3u << 24;
  const Instant begun = router.now;
  PathEntryTask task(kLane, std::nullopt);
  router.run(task);
  EXPECT_TRUE(task.stuck());
  EXPECT_EQ(task.failure(), "");
  EXPECT_GE(router.now - begun, kPathPendingLimit);
  EXPECT_LT(router.now - begun, kPathPendingLimit + Duration::from_ms(10));
  EXPECT_EQ(router.path(1, 8, 1) >> 24 & 3, 0u);
}

TEST(PathEntryTask, AnEntryThatIsOpenIsClosedBeforeItIsOpenedAnew) {
  ScriptedRouter router;
  router.path(1, 8, 0) = kEnable | 3u << 11 | 9;
  router.path(1, 8, 1) = 3u << 24;
  PathEntryTask task(kLane, PathTarget{.egress_adapter = 5, .next_hop_id = 1, .credits = 14});
  router.run(task);
  EXPECT_EQ(router.writes().size(), 3u);
  EXPECT_EQ(router.path(1, 8, 0), kEnable | 14u << 17 | 5u << 11 | 1);
}

TEST(PathEntryTask, ClosingWhatIsClosedWritesNothing) {
  ScriptedRouter router;
  router.path(1, 8, 0) = 0x1234;
  router.path(1, 8, 1) = 3u << 24;
  PathEntryTask task(kLane, std::nullopt);
  router.run(task);
  EXPECT_TRUE(router.writes().empty());
}

TEST(PathEntryTask, ARefusalIsAFailure) {
  ScriptedRouter router;
  PathEntryTask task(kLane, std::nullopt);
  router.run(task);
  EXPECT_EQ(task.failure(), "a path entry: bad address");
}

// ---- the link

constexpr uint16_t kLaneCap = 0x10, kPortCap = 0x20, kPortControl = 0x33;
constexpr PortShape kShape{
    .lane0 = 1, .lane1 = 2, .lane0_cap = kLaneCap, .lane1_cap = 0x18, .usb4_port = kPortCap};

class Link : public ScriptedRouter {
 public:
  Link() {
    fill(Space::kAdapter, 1, 0, 8);
    adapter(1, kPortControl) = 0;
    set(2, 4, 2);
    adapter(1, kLaneCap) = 0xe << 16 | 3 << 20;
    adapter(2, 0x18) = adapter(2, 0x19) = 0;
  }
  void set(uint32_t state, uint32_t speed, uint32_t width) {
    adapter(1, kLaneCap + 1) = state << 26 | width << 20 | speed << 16 | low;
  }
  LaneReading reading() {
    LinkTask task(kShape);
    run(task);
    EXPECT_EQ(task.failure(), "");
    return task.reading();
  }
  uint32_t low = 0;
};

TEST(PathEntryCheck, SaysWhetherAnEntryIsAsItWasMade) {
  ScriptedRouter router;
  router.path(1, 8, 0);
  router.path(1, 8, 1);
  const PathTarget target{.egress_adapter = 5, .next_hop_id = 1, .credits = 14};
  PathEntryTask open(kLane, target);
  router.run(open);
  const size_t writes = router.writes().size();
  const auto as_wanted = [&] {
    PathEntryCheck check(kLane, target);
    router.run(check);
    EXPECT_EQ(check.failure(), "");
    return check.as_wanted();
  };
  EXPECT_TRUE(as_wanted());
  router.path(1, 8, 1) |= kPending;
  EXPECT_TRUE(as_wanted()) << "packets are on their way";
  router.path(1, 8, 0) ^= 3u << 17;
  EXPECT_TRUE(as_wanted()) << "other credits";
  for (const uint32_t bit : {31u, 0u, 11u, 24u}) {
    router.path(1, 8, 0) ^= 1u << bit;
    EXPECT_FALSE(as_wanted()) << bit;
    router.path(1, 8, 0) ^= 1u << bit;
  }
  for (const uint32_t bit : {0u, 8u, 11u, 24u, 25u, 26u, 27u}) {
    router.path(1, 8, 1) ^= 1u << bit;
    EXPECT_FALSE(as_wanted()) << bit;
    router.path(1, 8, 1) ^= 1u << bit;
  }
  EXPECT_EQ(router.writes().size(), writes);
}

TEST(LinkTask, ReadsSpeedAndLanes) {
  struct Case {
    uint32_t speed, width, gbps, lanes;
  };
  for (const Case& c : {Case{8, 1, 10, 1},
                        {4, 1, 20, 1},
                        {4, 2, 20, 2},
                        {2, 2, 40, 2},
                        {2, 4, 40, 3},
                        {2, 8, 40, 1}}) {
    Link link;
    link.set(2, c.speed, c.width);
    const LaneReading reading = link.reading();
    EXPECT_EQ(reading.state, PortState::kUp);
    EXPECT_EQ(reading.speed_gbps, c.gbps);
    EXPECT_EQ(reading.lanes, c.lanes);
  }
}

TEST(LinkTask, TellsStatesApart) {
  for (uint32_t state = 0; state < 16; ++state) {
    Link link;
    link.set(state, 4, 1);
    PortState wanted = PortState::kUnplugged;
    if (state == 0) wanted = PortState::kDisabled;
    if (state == 1) wanted = PortState::kTraining;
    if (state >= 2 && state <= 6) wanted = PortState::kUp;  // CL0, and asleep
    const LaneReading reading = link.reading();
    EXPECT_EQ(reading.state, wanted) << state;
    EXPECT_EQ(reading.lanes, wanted == PortState::kUp ? 1u : 0u) << state;
  }
}

TEST(LinkTask, LetsThePortReportPlugsBeforeItLooks) {
  Link link;
  link.set(7, 0, 0);
  link.adapter(1, 5) = 1u << 31 | 0x1234;
  LinkTask task(kShape);
  link.run(task);
  EXPECT_EQ(link.adapter(1, 5), 0x1234u);
  ASSERT_EQ(link.log.size(), 3u);
  EXPECT_TRUE(link.log[1].write);
  EXPECT_EQ(link.log[2].offset, kLaneCap);
}

TEST(LinkTask, MarksTheLinkAsBetweenDomainsAndOpensItsLock) {
  Link link;
  link.adapter(1, kPortControl) = 0x0500'0000;
  link.adapter(1, 4) = 1u << 31 | 60u << 20 | 5;
  link.reading();
  EXPECT_EQ(link.adapter(1, kPortControl), 0x0500'0010u);
  EXPECT_EQ(link.adapter(1, 4), 60u << 20 | 5);
  EXPECT_EQ(link.writes().size(), 2u);
  link.log.clear();
  link.reading();
  EXPECT_TRUE(link.writes().empty()) << "what is so already is not written";
}

TEST(LinkTask, WaitsForALinkThatTrains) {
  Link link;
  link.set(1, 0, 0);
  const Instant up = link.now + Duration::from_ms(150);
  link.before = [&](const ConfigAccess&) {
    if (link.now >= up) link.set(2, 2, 2);
  };
  EXPECT_EQ(link.reading().state, PortState::kUp);
  EXPECT_LT(link.now - up, kTrainingPoll + Duration::from_ms(1));

  Link never;
  never.set(1, 0, 0);
  const Instant begun = never.now;
  EXPECT_EQ(never.reading().state, PortState::kTraining);
  EXPECT_LT(never.now - begun, kTrainingLimit + Duration::from_ms(50));
}

TEST(LinkTask, EnablesALaneThatWasDisabledOnce) {
  Link link;
  link.low = 1u << 14 | 0x35;
  link.set(0, 0, 0);
  link.before = [&](const ConfigAccess& access) {
    if (!access.write || access.offset != kLaneCap + 1) return;
    EXPECT_EQ(access.data.span()[0] & (1u << 14 | 0xff), 0x35u);
  };
  EXPECT_EQ(link.reading().state, PortState::kDisabled);
  EXPECT_EQ(link.writes().size(), 1u);
}

TEST(LinkTask, APortThatWasSetUpForARouterIsReset) {
  Link link;
  link.adapter(1, kPortControl) = 1u << 3;
  std::vector<std::pair<Instant, uint32_t>> written;
  link.before = [&](const ConfigAccess& access) {
    if (access.write && access.offset == kPortControl) {
      written.emplace_back(link.now, access.data.span()[0]);
    }
  };
  EXPECT_EQ(link.reading().state, PortState::kUp);
  ASSERT_EQ(written.size(), 3u);
  EXPECT_EQ(written[0].second, 1u);
  EXPECT_EQ(written[1].second, 0u);
  EXPECT_EQ(written[2].second, 1u << 4);
  EXPECT_GE(written[1].first - written[0].first, kPortResetTime);
}

TEST(LinkTask, APortThatStaysSetUpForARouterIsResetOnce) {
  Link link;
  link.before = [&](const ConfigAccess&) { link.adapter(1, kPortControl) |= 1u << 3; };
  EXPECT_EQ(link.reading().state, PortState::kUp);
  EXPECT_EQ(link.writes().size(), 3u);
}

TEST(LinkTask, RegistersThatCannotBeReadAreAFailure) {
  ScriptedRouter router;
  LinkTask task(kShape);
  router.run(task);
  EXPECT_EQ(task.failure(), "the port's registers: bad address");
}

TEST(ClStatesTask, TakesTheStatesOffBothLanesAndNothingElse) {
  Link link;
  link.adapter(1, kLaneCap + 1) = 0xffff'ffff;
  link.adapter(2, 0x19) = 0x0800'0435;
  ClStatesTask task(kShape);
  link.run(task);
  EXPECT_EQ(link.adapter(1, kLaneCap + 1), 0xffff'e3ffu);
  EXPECT_EQ(link.adapter(2, 0x19), 0x0800'0035u);
  link.log.clear();
  ClStatesTask again(kShape);
  link.run(again);
  EXPECT_EQ(link.log.size(), 2u);
  EXPECT_TRUE(link.writes().empty());
}

TEST(BondTask, BothLanesWantTwoAndOneEndSaysWhen) {
  for (const bool drive : {false, true}) {
    Link link;
    link.adapter(1, kLaneCap + 1) = 0x0814'0014;
    link.adapter(2, 0x19) = 0x0814'0404;
    BondTask task(kShape, drive);
    link.run(task);
    EXPECT_EQ(task.failure(), "");
    EXPECT_EQ(link.adapter(1, kLaneCap + 1), drive ? 0x0814'8034u : 0x0814'0034u);
    EXPECT_EQ(link.adapter(2, 0x19), 0x0814'0434u);
    EXPECT_EQ(link.writes()[0].adapter, 2) << "lane 0 last";
  }
}

TEST(PathSweep, FindsEveryEnabledEntryOnce) {
  ScriptedRouter router;
  router.fill(ScriptedRouter::Space::kPath, 1, 16, 2 * 93);  // HopIDs 8 to 100
  for (const uint16_t hop_id : {8, 37, 38, 99, 100}) router.path(1, hop_id, 0) = kEnable;
  PathSweep sweep(1, 8, 100);
  router.run(sweep);
  EXPECT_EQ(sweep.enabled(), (std::vector<uint16_t>{8, 37, 38, 99, 100}));
  EXPECT_EQ(router.log.size(), 4u);
  PathSweep none(1, 8, 7);
  EXPECT_TRUE(none.finished());
  PathSweep unreadable(2, 8, 100);
  router.run(unreadable);
  EXPECT_TRUE(unreadable.enabled().empty());
}

TEST(RouterProbe, OnlyAnAnswerIsARouter) {
  ScriptedRouter router;
  router.router(0) = 1;
  RouterProbe domain(wire::tb::Route{1});
  router.run(domain);
  EXPECT_FALSE(domain.found());
  EXPECT_EQ(router.log[0].route, wire::tb::Route{1});
  RouterProbe here(wire::tb::Route{0});
  router.run(here);
  EXPECT_TRUE(here.found());
}

}  // namespace
}  // namespace tbt::fabric
