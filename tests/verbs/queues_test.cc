// Send and receive queues: capacity, copies, release (C-116, C-135).
#include <gtest/gtest.h>

#include "verbs/recv_queue.h"
#include "verbs/send_queue.h"

namespace tbt::verbs {
namespace {

RecvWqe room(uint32_t sges) {
  RecvWqe wqe;
  wqe.sges.resize(sges);
  return wqe;
}

TEST(RecvQueue, RefusesMoreThanItsCapacityUntilReleased) {
  RecvQueue queue(3, 1);
  const RecvWr wr{1, nullptr, 0};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.post(wr));
  EXPECT_FALSE(queue.post(wr));
  RecvWqe taken = room(1);
  ASSERT_TRUE(queue.take(taken));
  EXPECT_FALSE(queue.post(wr)) << "the slot is free only when its completion was polled";
  *queue.release_counter() = taken.index + 1;
  EXPECT_TRUE(queue.post(wr));
}

TEST(RecvQueue, TakeCopiesTheListAndAddsUpTheCapacity) {
  RecvQueue queue(4, 2);
  Sge sges[2] = {{100, 10, 1}, {200, 20, 2}};
  queue.post({7, sges, 2});
  sges[0] = {};
  RecvWqe taken = room(2);
  ASSERT_TRUE(queue.take(taken));
  EXPECT_EQ(taken.wr_id, 7u);
  EXPECT_EQ(taken.capacity, 30u);
  EXPECT_EQ(taken.sges[0].addr, 100u);
  EXPECT_FALSE(queue.take(taken));
}

TEST(RecvQueue, ResizeKeepsWhatIsPosted) {
  RecvQueue queue(8, 1);
  const Sge sge{5, 6, 7};
  for (uint64_t i = 0; i < 5; ++i) queue.post({i, &sge, 1});
  EXPECT_FALSE(queue.resize(4));
  ASSERT_TRUE(queue.resize(100));
  RecvWqe taken = room(1);
  for (uint64_t i = 0; i < 5; ++i) {
    ASSERT_TRUE(queue.take(taken));
    EXPECT_EQ(taken.wr_id, i);
    EXPECT_EQ(taken.sges[0].lkey, 7u);
  }
}

TEST(SendQueue, IsFullAtItsCapacityEvenIfTheRingIsLarger) {
  SendQueue queue({.max_send_wr = 3, .max_send_sge = 1, .max_inline_data = 16}, false);
  for (int i = 0; i < 3; ++i, ++queue.tail) EXPECT_FALSE(queue.full());
  EXPECT_TRUE(queue.full());
  queue.head = 2;
  EXPECT_TRUE(queue.full()) << "completed is not yet released";
  queue.released = 2;
  EXPECT_FALSE(queue.full());
}

}  // namespace
}  // namespace tbt::verbs
