// Completion queues: order, capacity, overflow, notification (C-130 to C-132).
#include "verbs/completion_queue.h"

#include <gtest/gtest.h>

#include <vector>

namespace tbt::verbs {
namespace {

Wc wc(uint64_t id) {
  Wc result;
  result.wr_id = id;
  return result;
}

std::vector<uint64_t> pop_all(CompletionQueue& cq) {
  std::vector<Wc> out(cq.entries());
  out.resize(cq.pop(out));
  std::vector<uint64_t> ids;
  for (const Wc& one : out) ids.push_back(one.wr_id);
  return ids;
}

TEST(CompletionQueue, HoldsWhatItGrantsAndComesOutInOrder) {
  CompletionQueue cq(5, nullptr);
  ASSERT_GE(cq.entries(), 5u);
  for (uint32_t i = 0; i < cq.entries(); ++i) ASSERT_TRUE(cq.push(wc(i), {}, nullptr));
  const auto ids = pop_all(cq);
  for (uint32_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], i);
}

TEST(CompletionQueue, OverflowIsRememberedAndKeepsWhatWasThere) {
  CompletionQueue cq(2, nullptr);
  for (uint32_t i = 0; i < cq.entries(); ++i) cq.push(wc(i), {}, nullptr);
  EXPECT_FALSE(cq.push(wc(99), {}, nullptr));
  EXPECT_TRUE(cq.overflowed());
  EXPECT_EQ(pop_all(cq).size(), cq.entries());
}

TEST(CompletionQueue, SlotsComeBackWhenPolledNotBefore) {
  CompletionQueue cq(4, nullptr);
  uint32_t released = 0;
  cq.push(wc(1), {&released, 3}, nullptr);
  EXPECT_EQ(released, 0u);
  pop_all(cq);
  EXPECT_EQ(released, 3u);
}

TEST(CompletionQueue, PurgeRemovesOneOwnerOnly) {
  CompletionQueue cq(8, nullptr);
  int a = 0;
  int b = 0;
  for (uint64_t i = 0; i < 6; ++i) cq.push(wc(i), {}, i % 2 == 0 ? &a : &b);
  cq.purge(&a);
  EXPECT_EQ(pop_all(cq), (std::vector<uint64_t>{1, 3, 5}));
}

TEST(CompletionQueue, ResizeKeepsOrderAndRefusesToLose) {
  CompletionQueue cq(8, nullptr);
  for (uint64_t i = 0; i < 6; ++i) cq.push(wc(i), {}, nullptr);
  EXPECT_FALSE(cq.resize(4));
  EXPECT_TRUE(cq.resize(64));
  EXPECT_EQ(pop_all(cq), (std::vector<uint64_t>{0, 1, 2, 3, 4, 5}));
}

TEST(CompletionQueue, NotifiesOncePerArm) {
  CompletionQueue cq(8, nullptr);
  EXPECT_FALSE(cq.take_notification(true));
  cq.arm(false);
  EXPECT_TRUE(cq.take_notification(false));
  EXPECT_FALSE(cq.take_notification(false));
}

TEST(CompletionQueue, SolicitedArmIgnoresTheUnsolicited) {
  CompletionQueue cq(8, nullptr);
  cq.arm(true);
  EXPECT_FALSE(cq.take_notification(false));
  EXPECT_TRUE(cq.take_notification(true));
}

TEST(CompletionQueue, ArmingForSolicitedDoesNotWeakenAStandingRequestForAny) {
  CompletionQueue cq(8, nullptr);
  cq.arm(false);
  cq.arm(true);
  EXPECT_TRUE(cq.take_notification(false));
}

}  // namespace
}  // namespace tbt::verbs
