// Two ends of flow agreement, and one driven by hand: no end begins before both are ready, each
// learns what the other has found, and nothing that is lost, late or foreign changes that.
#include "fabric/flow_negotiator.h"

#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

namespace tbt::fabric {
namespace {

using namespace wire::tb;

constexpr Uuid kHosts[2] = {uuid("00112233-4455-6677-8899-aabbccddeeff"),
                            uuid("c0ffee00-0102-0304-0506-0708090a0b0c")};
constexpr Uuid kStranger = uuid("deadbeef-0000-0000-0000-000000000001");
constexpr PathEpoch kEpochs[2] = {{.incarnation = 7, .generation = 1},
                                  {.incarnation = 9, .generation = 4}};

class Pair {
 public:
  FlowNegotiator& operator[](size_t end) { return ends_[end]; }
  void start(size_t end) { ends_[end].start(kHosts[1 - end], kEpochs[end], kEpochs[1 - end]); }
  // Carries what there is to carry now; of each packet `lose` says whether it arrives.
  void carry() {
    for (bool any = true; any;) {
      any = false;
      for (size_t end : {0u, 1u}) {
        XDomainPacket packet;
        while (ends_[end].poll_transmit(now, packet)) {
          any = true;
          ++sent;
          if (lose > 0 && lose-- > 0) continue;
          packet.from_router = true;
          ends_[1 - end].handle_packet(packet);
        }
      }
    }
  }
  void wait() {
    const Instant next = std::min(ends_[0].poll_timeout(), ends_[1].poll_timeout());
    ASSERT_FALSE(next.is_never());
    now = std::max(now, next);
    carry();
  }

  Instant now{5'000'000'000};
  int lose = 0, sent = 0;

 private:
  std::array<FlowNegotiator, 2> ends_{FlowNegotiator(kHosts[0], Route{1}),
                                      FlowNegotiator(kHosts[1], Route{1})};
};

TEST(FlowNegotiator, NobodyBeginsBeforeBothAreReady) {
  Pair p;
  p.start(0);
  p.start(1);
  p.carry();
  EXPECT_EQ(p.sent, 0) << "nothing to say yet";
  p[0].held(p.now);
  p.carry();
  EXPECT_EQ(p[0].stage(), FlowStage::kReady);
  EXPECT_EQ(p[1].stage(), FlowStage::kHolding);
  p[1].held(p.now);
  p.carry();
  EXPECT_EQ(p[0].stage(), FlowStage::kTesting);
  EXPECT_EQ(p[1].stage(), FlowStage::kTesting);
  EXPECT_TRUE(p[0].poll_timeout().is_never()) << "there is nothing to ask while it lasts";
  EXPECT_TRUE(p[1].poll_timeout().is_never());
}

TEST(FlowNegotiator, EachLearnsWhatTheOtherHasFound) {
  for (const auto mine : {FlowOutcome::kHeld, FlowOutcome::kMissing, FlowOutcome::kNothing}) {
    Pair p;
    for (size_t end : {0u, 1u}) p.start(end);
    for (size_t end : {0u, 1u}) p[end].held(p.now);
    p.carry();
    p[0].tested(p.now, mine);
    p.carry();
    EXPECT_EQ(p[0].stage(), FlowStage::kTested);
    EXPECT_EQ(p[1].stage(), FlowStage::kTesting) << "its own goes on";
    p[1].tested(p.now, FlowOutcome::kHeld);
    p.carry();
    for (size_t end : {0u, 1u}) {
      EXPECT_EQ(p[end].stage(), FlowStage::kSettled);
      EXPECT_EQ(p[end].mine(), end == 0 ? mine : FlowOutcome::kHeld);
      EXPECT_EQ(p[end].theirs(), end == 0 ? FlowOutcome::kHeld : mine);
      EXPECT_TRUE(p[end].poll_timeout().is_never());
    }
  }
}

// Whichever packets of the first so many get lost.
TEST(FlowNegotiator, LossOnlyTakesTime) {
  for (uint32_t lost = 0; lost < 12; ++lost) {
    Pair p;
    for (size_t end : {0u, 1u}) p.start(end);
    p.lose = static_cast<int>(lost);
    p[0].held(p.now);
    p.carry();
    p[1].held(p.now);
    p.carry();
    const auto settled = [&](FlowStage stage) {
      return p[0].stage() >= stage && p[1].stage() >= stage;
    };
    for (int i = 0; i < 40 && !settled(FlowStage::kTesting); ++i) p.wait();
    ASSERT_TRUE(settled(FlowStage::kTesting)) << lost;
    p.lose = static_cast<int>(lost);
    p[1].tested(p.now, FlowOutcome::kMissing);
    p.carry();
    p[0].tested(p.now, FlowOutcome::kHeld);
    p.carry();
    for (int i = 0; i < 40 && !settled(FlowStage::kSettled); ++i) p.wait();
    ASSERT_TRUE(settled(FlowStage::kSettled)) << lost;
    EXPECT_EQ(p[0].theirs(), FlowOutcome::kMissing);
    EXPECT_FALSE(p[0].unanswered());
  }
}

TEST(FlowNegotiator, AsksMoreAndMoreSeldomAndSaysWhenNobodyAnswers) {
  Pair p;
  p.start(0);
  p[0].held(p.now);
  p.lose = 1000;
  p.carry();
  std::vector<int64_t> gaps;
  for (uint32_t i = 1; i < kFlowAskMax; ++i) {
    EXPECT_FALSE(p[0].unanswered()) << i;
    const Instant before = p.now;
    p.wait();
    gaps.push_back((p.now - before).ns / 1'000'000);
  }
  EXPECT_EQ(gaps, (std::vector<int64_t>{20, 40, 80, 160, 320, 640, 1000, 1000, 1000}));
  EXPECT_TRUE(p[0].unanswered());
  p.lose = 0;
  p.start(1);
  p[1].held(p.now);
  p.carry();
  EXPECT_EQ(p[0].stage(), FlowStage::kTesting) << "and goes on when somebody does";
  EXPECT_FALSE(p[0].unanswered());
}

TEST(FlowNegotiator, LateAndForeignMessagesChangeNothing) {
  FlowNegotiator one(kHosts[0], Route{1});
  const auto give = [&](const Uuid& source, const Uuid& destination, PathEpoch from, PathEpoch to) {
    one.handle_packet(encode_flow_message(
        {source, destination, false, from, to, FlowStep::kTested, FlowOutcome::kHeld},
        {.route = Route{1}, .from_router = true}));
  };
  give(kHosts[1], kHosts[0], kEpochs[1], kEpochs[0]);
  EXPECT_EQ(one.ignored(), 1u) << "idle";
  one.start(kHosts[1], kEpochs[0], kEpochs[1]);
  PathEpoch other = kEpochs[1];
  ++other.generation;
  give(kHosts[1], kHosts[0], other, kEpochs[0]);
  other = kEpochs[0];
  --other.generation;
  give(kHosts[1], kHosts[0], kEpochs[1], other);
  give(kStranger, kHosts[0], kEpochs[1], kEpochs[0]);
  give(kHosts[1], kStranger, kEpochs[1], kEpochs[0]);
  EXPECT_EQ(one.ignored(), 5u);
  XDomainPacket packet;
  EXPECT_FALSE(one.poll_transmit(Instant{1}, packet)) << "they are not even answered";
  one.held(Instant{1});
  EXPECT_EQ(one.stage(), FlowStage::kReady);
  give(kHosts[1], kHosts[0], kEpochs[1], kEpochs[0]);
  EXPECT_EQ(one.stage(), FlowStage::kTesting) << "this one counts";
}

// A step that was said later is not taken back by one that comes late.
TEST(FlowNegotiator, AnOlderStepDoesNotCount) {
  FlowNegotiator one(kHosts[0], Route{1});
  one.start(kHosts[1], kEpochs[0], kEpochs[1]);
  const auto give = [&](FlowStep step, FlowOutcome outcome) {
    one.handle_packet(
        encode_flow_message({kHosts[1], kHosts[0], true, kEpochs[1], kEpochs[0], step, outcome},
                            {.route = Route{1}, .from_router = true}));
  };
  one.held(Instant{1});
  give(FlowStep::kTested, FlowOutcome::kMissing);
  give(FlowStep::kReady, FlowOutcome::kOpen);
  EXPECT_EQ(one.stage(), FlowStage::kTesting);
  one.tested(Instant{1}, FlowOutcome::kHeld);
  EXPECT_EQ(one.stage(), FlowStage::kSettled);
  EXPECT_EQ(one.theirs(), FlowOutcome::kMissing);
}

TEST(FlowNegotiator, WhoGoesOnForAnotherAnswersForIt) {
  Pair p;
  p.start(0);
  p[0].held(p.now);
  p[1].settle(kHosts[0], kEpochs[1], kEpochs[0], FlowOutcome::kMissing, FlowOutcome::kHeld);
  EXPECT_TRUE(p[1].poll_timeout().is_never());
  p.carry();
  p[0].tested(p.now, FlowOutcome::kHeld);
  p.carry();
  EXPECT_EQ(p[0].stage(), FlowStage::kSettled);
  EXPECT_EQ(p[0].theirs(), FlowOutcome::kMissing);
}

}  // namespace
}  // namespace tbt::fabric
