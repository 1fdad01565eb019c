// The heap of deadlines forgets what means nothing any more, and nothing else.
#include "engine/deadlines.h"

#include <gtest/gtest.h>

namespace tbt::engine {
namespace {

constexpr Instant kFar{1000000000000};
constexpr size_t kEntriesMost = 130;

QueuePair& add(QpTable& pairs, uint32_t number) {
  auto qp = std::make_unique<QueuePair>(QpCaps{1, 1, 1, 1, 0}, QpType::kRc);
  qp->number = number;
  return pairs.insert(std::move(qp));
}

TEST(Deadlines, OfDestroyedPairsDoNotPileUp) {
  QpTable pairs;
  Deadlines deadlines(pairs);
  deadlines.update(add(pairs, 1), kFar);
  for (uint32_t number = 2; number < 2000; ++number) {
    QueuePair& qp = add(pairs, number);
    deadlines.update(qp, Instant{kFar.ns - number});
    pairs.erase(qp);
    ASSERT_LE(deadlines.entries(), kEntriesMost);
  }
  uint32_t found = 0;
  while (const uint32_t number = deadlines.pop_due(kFar)) found += number == 1 ? 1 : 0;
  EXPECT_EQ(found, 1u) << "the living pair's";
}

// As with a receiver that is not ready again and again, and an ACK timer of hours.
TEST(Deadlines, MovedCloserAndFurtherDoNotPileUp) {
  QpTable pairs;
  Deadlines deadlines(pairs);
  QueuePair& qp = add(pairs, 1);
  deadlines.update(qp, kFar);
  for (int64_t now = 1; now < 2000; ++now) {
    deadlines.update(qp, Instant{now});
    ASSERT_EQ(deadlines.pop_due(Instant{now}), 1u);
    qp.deadline_queued = Instant::never();
    deadlines.update(qp, kFar);
    ASSERT_LE(deadlines.entries(), kEntriesMost);
  }
  EXPECT_EQ(deadlines.next(), kFar);
}

TEST(Deadlines, OfManyLivingPairsAllComeUpInOrder) {
  QpTable pairs;
  Deadlines deadlines(pairs);
  for (uint32_t number = 1; number <= 1000; ++number) {
    deadlines.make_room(number);
    QueuePair& qp = add(pairs, number);
    deadlines.update(qp, Instant{2000 + number});
    deadlines.update(qp, Instant{1000 - number});
  }
  uint32_t next = 1000;
  while (const uint32_t number = deadlines.pop_due(Instant{1000})) {
    ASSERT_EQ(number, next--);
    pairs.find(number)->deadline_queued = Instant::never();
  }
  EXPECT_EQ(next, 0u);
}

}  // namespace
}  // namespace tbt::engine
