// ibv_modify_cq on a running fabric: when the event of a channel comes.
#include <poll.h>

#include "live.h"

namespace tbt::provider_live {
namespace {

using std::chrono::steady_clock;

constexpr uint16_t kPeriodUs = 30000;

class ModeratedEvents : public LiveTest {
 protected:
  void SetUp() override {
    LiveTest::SetUp();
    channel = ibv_create_comp_channel(context);
    ASSERT_NE(channel, nullptr);
    watched = ibv_create_cq(context, 64, nullptr, channel, 0);
    ASSERT_NE(watched, nullptr);
    a = make_qp({});
    b = make_qp({.cq = watched});
    connect(a, b);
    for (uint64_t i = 0; i < 8; ++i) ASSERT_EQ(post_recv(b, i, sge(i * 64, 64)), 0);
  }
  void TearDown() override {
    for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
    qps.clear();
    EXPECT_EQ(ibv_destroy_cq(watched), 0);
    EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
    LiveTest::TearDown();
  }
  void moderate(uint16_t count, uint16_t period_us) {
    ibv_modify_cq_attr attr{.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {count, period_us}};
    ASSERT_EQ(ibv_modify_cq(watched, &attr), 0);
  }
  void send(uint32_t times) {
    for (uint32_t i = 0; i < times; ++i) ASSERT_EQ(post_send(a, i, sge(4096, 16)), 0);
  }
  // Waits for the event; nobody polls meanwhile.
  void wait_event() {
    pollfd descriptor{channel->fd, POLLIN, 0};
    ASSERT_EQ(::poll(&descriptor, 1, 10000), 1) << "no event";
    ibv_cq* from = nullptr;
    void* user = nullptr;
    ASSERT_EQ(ibv_get_cq_event(channel, &from, &user), 0);
    EXPECT_EQ(from, watched);
    ibv_ack_cq_events(watched, 1);
  }

  ibv_comp_channel* channel = nullptr;
  ibv_cq* watched = nullptr;
  ibv_qp* a = nullptr;
  ibv_qp* b = nullptr;
};

TEST_F(ModeratedEvents, FewCompletionsWaitForThePeriodAndNoLonger) {
  moderate(8, kPeriodUs);
  ASSERT_EQ(ibv_req_notify_cq(watched, 0), 0);
  const auto start = steady_clock::now();
  send(2);
  wait_event();
  const auto waited = steady_clock::now() - start;
  EXPECT_GE(waited, std::chrono::microseconds(kPeriodUs));
  EXPECT_LT(waited, std::chrono::seconds(5));
  EXPECT_EQ(completions(watched, 2).size(), 2u);
}

TEST_F(ModeratedEvents, EnoughOfThemDoNotWait) {
  moderate(4, 0xffff);
  ASSERT_EQ(ibv_req_notify_cq(watched, 0), 0);
  send(4);
  wait_event();
  EXPECT_EQ(completions(watched, 4).size(), 4u);
  // The next arming counts anew; the application polls another queue meanwhile.
  ASSERT_EQ(ibv_req_notify_cq(watched, 0), 0);
  send(1);
  EXPECT_EQ(completions(cq, 5).size(), 5u);
  wait_event();
}

}  // namespace
}  // namespace tbt::provider_live
