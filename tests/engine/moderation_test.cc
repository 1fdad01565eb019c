// Completion events that are put off until several completions are there, or a while has passed.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

constexpr Duration kPeriod = Duration::from_us(50);

struct Moderated : Harness {
  explicit Moderated(uint32_t count, Duration period = kPeriod) {
    for (uint64_t i = 0; i < 8; ++i) post_recv(i, 0, 64);
    endpoint->moderate(now, cq, count, period);
    cq.arm(false);
  }
  void arrive(bool solicited = false) {
    auto headers = from_peer(Opcode::kRcSendOnly, kRqPsn + arrived++);
    headers.solicited = solicited;
    receive(headers, bytes(8));
  }
  uint32_t told() {
    uint32_t count = 0;
    Event event;
    while (endpoint->poll_event(event)) count += event.kind == Event::Kind::kCompletion;
    return count;
  }
  uint32_t arrived = 0;
};

TEST(Moderation, TheEventComesWithTheLastOfSoManyCompletions) {
  Moderated h(3);
  h.arrive();
  h.arrive();
  EXPECT_EQ(h.told(), 0u);
  h.arrive();
  EXPECT_EQ(h.told(), 1u);
  h.arrive();
  h.pass(kPeriod);
  EXPECT_EQ(h.told(), 0u) << "one event per arming";
  h.cq.arm(false);
  h.arrive();
  EXPECT_EQ(h.told(), 0u) << "they are counted from the arming on";
}

TEST(Moderation, FewerAreToldOfAfterThePeriod) {
  Moderated h(3);
  h.arrive();
  h.arrive();
  EXPECT_EQ(h.endpoint->next_strict_deadline(), h.now + kPeriod);
  h.pass(kPeriod - Duration{1});
  EXPECT_EQ(h.told(), 0u);
  h.pass(Duration{1});
  EXPECT_EQ(h.told(), 1u);
  h.arrive();
  h.pass(kPeriod);
  EXPECT_EQ(h.told(), 0u);
}

TEST(Moderation, AnEventByNumberRestartsThePeriod) {
  Moderated h(2);
  h.arrive();
  h.arrive();
  EXPECT_EQ(h.told(), 1u);
  h.pass(Duration::from_us(30));
  h.cq.arm(false);
  h.arrive();
  h.pass(Duration::from_us(20));  // the first timer
  EXPECT_EQ(h.told(), 0u);
  h.pass(Duration::from_us(30));
  EXPECT_EQ(h.told(), 1u);
}

TEST(Moderation, WithoutAPeriodOrANumberEventsComeAtOnce) {
  for (const uint32_t count : {0u, 1u, 5u}) {
    Moderated h(count, count == 5 ? Duration{} : kPeriod);
    h.arrive();
    EXPECT_EQ(h.told(), 1u) << count;
  }
}

TEST(Moderation, OnlyWhatWasAskedForIsCounted) {
  Moderated h(2);
  h.endpoint->moderate(h.now, h.cq, 1, {});
  h.arrive();  // uses up the arming of the constructor
  EXPECT_EQ(h.told(), 1u);
  h.endpoint->moderate(h.now, h.cq, 2, kPeriod);
  h.cq.arm(/*solicited_only=*/true);
  h.arrive();
  h.arrive();
  h.pass(kPeriod);
  EXPECT_EQ(h.told(), 0u);
  h.arrive(true);
  h.arrive(true);
  EXPECT_EQ(h.told(), 1u);
}

TEST(Moderation, ChangingItTellsWhatIsHeldBack) {
  Moderated h(3);
  h.arrive();
  h.endpoint->moderate(h.now, h.cq, 5, kPeriod);
  EXPECT_EQ(h.told(), 1u);
}

TEST(Moderation, AQueueThatIsGoneIsNotToldOf) {
  Moderated h(3);
  h.arrive();
  h.endpoint->forget(h.cq);
  h.pass(kPeriod);
  EXPECT_EQ(h.told(), 0u);
}

}  // namespace
}  // namespace tbt::engine
