// Destroying a queue pair or a shared receive queue waits until the application has acknowledged
// the events of it that it has read (C-014; completion queues: events_test.cc).
#include <atomic>
#include <chrono>
#include <thread>

#include "fixture.h"

namespace tbt::provider_test {
namespace {

class AcknowledgeTest : public QpFixture {
 protected:
  ibv_async_event read_event(AsyncEventType type, void* object) {
    control().async->on_async_event({.type = type, .object = object});
    ibv_async_event event{};
    EXPECT_EQ(ibv_get_async_event(context, &event), 0);
    return event;
  }
  // Whether `destroy` came back only after the event was acknowledged, 100 ms later.
  template <typename Destroy>
  static bool waits(Destroy destroy, ibv_async_event& event) {
    std::atomic<bool> acknowledged = false;
    bool in_order = false;
    std::thread destroyer([&] {
      EXPECT_EQ(destroy(), 0);
      in_order = acknowledged;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    acknowledged = true;
    ibv_ack_async_event(&event);
    destroyer.join();
    return in_order;
  }
};

TEST_F(AcknowledgeTest, DestroyingAQpWaits) {
  ibv_qp* other = make_qp(IBV_QPT_RC);
  ASSERT_NE(other, nullptr);
  ibv_async_event event = read_event(AsyncEventType::kCommEst, other);
  EXPECT_EQ(event.element.qp, other);
  EXPECT_TRUE(waits([&] { return ibv_destroy_qp(other); }, event));
}

TEST_F(AcknowledgeTest, DestroyingAnSrqWaits) {
  ibv_srq_init_attr attr{};
  attr.attr = {.max_wr = 8, .max_sge = 1, .srq_limit = 0};
  ibv_srq* srq = ibv_create_srq(pd, &attr);
  ASSERT_NE(srq, nullptr);
  ibv_async_event event = read_event(AsyncEventType::kSrqLimitReached, srq);
  EXPECT_EQ(event.element.srq, srq);
  EXPECT_TRUE(waits([&] { return ibv_destroy_srq(srq); }, event));
}

}  // namespace
}  // namespace tbt::provider_test
