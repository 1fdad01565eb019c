// The self-test of end-to-end credits, against controllers whose credits work, are not there, or
// let a sender wait for ever.
#include "rail/nhi/flow_test.h"

#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using nhi::FlowResult;
using nhi::FlowTest;

struct Outcome {
  std::array<std::optional<FlowResult>, 2> results;
  std::array<uint32_t, 2> unsent{};
  uint64_t overruns = 0;
  Duration took{};
};

struct Controllers {
  bool e2e = true, sticks = false;
  emulated::CableParams cable{};
};

class FlowWorld {
 public:
  explicit FlowWorld(const Controllers& c) : world(config(c)) {
    for (uint32_t h = 0; h < 2; ++h) {
      rails[h] = std::make_unique<nhi::NhiRail>(*world.memories[h], 0, *world.devices[h],
                                                kDaemonSlot, classify);
      processes[h] = world.open(h, 1);
      EXPECT_TRUE(rails[h]->hold(nhi::RingFlow::kE2e, FlowTest::kPosted));
    }
  }
  static WorldConfig config(const Controllers& c) {
    WorldConfig w;
    w.host = {.cables = 1, .ring_entries = 64, .rx_buffers = 192};
    w.fabric.e2e = c.e2e;
    w.fabric.e2e_sticks = c.sticks;
    w.fabric.params = {c.cable};
    return w;
  }

  Outcome run() {
    std::array<FlowTest, 2> tests{FlowTest(*rails[0], 77), FlowTest(*rails[1], 77)};
    Outcome out;
    const Instant begun = sys::monotonic_now();
    for (auto& test : tests) test.begin(begun);
    while (!out.results[0] || !out.results[1]) {
      const Instant now = sys::monotonic_now();
      if (now - begun > Duration::from_s(5)) break;
      for (uint32_t h = 0; h < 2; ++h) {
        rails[h]->advance(now.ns);
        // Processes look at their rails meanwhile, and are to leave the test alone.
        std::array<RxPacket, 4> packets;
        EXPECT_EQ(processes[h]->rx_burst(packets), 0u);
        EXPECT_FALSE(send(*processes[h], 1, 1));
        if (!out.results[h]) out.results[h] = tests[h].turn(now);
      }
    }
    out.took = sys::monotonic_now() - begun;
    for (uint32_t h = 0; h < 2; ++h) {
      out.unsent[h] = tests[h].unsent();
      out.overruns += world.fabric->counters(h).overruns;
    }
    return out;
  }

  World world;
  std::array<std::unique_ptr<nhi::NhiRail>, 2> rails;
  std::array<std::unique_ptr<Rail>, 2> processes;
};

TEST(FlowTest, CreditsThatWorkAreFoundToWorkAndNothingIsLost) {
  FlowWorld world({});
  const Outcome out = world.run();
  EXPECT_EQ(out.results[0], FlowResult::kHeld);
  EXPECT_EQ(out.results[1], FlowResult::kHeld);
  EXPECT_EQ(out.overruns, 0u);
  EXPECT_LT(out.took, Duration::from_ms(100));
  // And the same rings go on with frames of programs.
  for (auto& rail : world.rails) EXPECT_TRUE(rail->release());
  EXPECT_TRUE(send(*world.processes[0], 1, 5));
  EXPECT_EQ(receive(*world.processes[1]), std::vector<uint32_t>{5});
}

TEST(FlowTest, ControllersWithoutCreditsLoseWhatShouldWait) {
  FlowWorld world({.e2e = false});
  const Outcome out = world.run();
  for (uint32_t h = 0; h < 2; ++h) {
    EXPECT_EQ(out.results[h], FlowResult::kMissing);
    EXPECT_EQ(out.unsent[h], 0u) << "sent, and lost";
  }
  EXPECT_EQ(out.overruns, 2u * FlowTest::kExtra);
}

TEST(FlowTest, ASenderThatWaitsForEverIsFoundOut) {
  FlowWorld world({.sticks = true});
  const Outcome out = world.run();
  for (uint32_t h = 0; h < 2; ++h) {
    EXPECT_EQ(out.results[h], FlowResult::kMissing);
    EXPECT_EQ(out.unsent[h], FlowTest::kExtra) << "still there";
  }
  EXPECT_EQ(out.overruns, 0u);
  // Rings that are started anew, without them, are free again.
  for (auto& rail : world.rails) EXPECT_TRUE(rail->hold(nhi::RingFlow::kNone, 0));
  for (auto& rail : world.rails) EXPECT_TRUE(rail->release());
  EXPECT_TRUE(send(*world.processes[0], 1, 5));
  EXPECT_EQ(receive(*world.processes[1]), std::vector<uint32_t>{5});
}

TEST(FlowTest, ALossyOrSlowCableIsNotHeldAgainstTheCredits) {
  for (const emulated::CableParams& cable :
       {emulated::CableParams{.drop_ppm = 20'000},
        emulated::CableParams{.rate_bps = 1'000'000'000, .latency_ns = 1'000'000}}) {
    FlowWorld world({.cable = cable});
    const Outcome out = world.run();
    EXPECT_EQ(out.results[0], FlowResult::kHeld);
    EXPECT_EQ(out.results[1], FlowResult::kHeld);
  }
}

TEST(FlowTest, APathThatCarriesNothingIsToldInBoundedTime) {
  emulated::CableParams dead;
  dead.drop_ppm = 1'000'000;
  FlowWorld world({.cable = dead});
  const Outcome out = world.run();
  EXPECT_EQ(out.results[0], FlowResult::kNothing);
  EXPECT_LT(out.took, Duration::from_s(3));
}

}  // namespace
}  // namespace tbt::rail::test
