// Completion queues, channels and asynchronous events: what an application may see, and when
// destroying waits.
#include <fcntl.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "fixture.h"

namespace tbt::provider_test {
namespace {

using std::chrono::milliseconds;

bool readable(int fd) {
  pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&p, 1, 0) == 1;
}

class CqTest : public Fixture {
 protected:
  void SetUp() override {
    Fixture::SetUp();
    channel = ibv_create_comp_channel(context);
    ASSERT_NE(channel, nullptr);
    fcntl(channel->fd, F_SETFL, O_NONBLOCK);
    fcntl(context->async_fd, F_SETFL, O_NONBLOCK);
    cq = make(this);
    ASSERT_NE(cq, nullptr);
  }
  void TearDown() override {
    if (cq != nullptr) {
      EXPECT_EQ(ibv_destroy_cq(cq), 0);
    }
    EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
    Fixture::TearDown();
  }
  ibv_cq* make(void* cq_context) { return ibv_create_cq(context, 8, cq_context, channel, 0); }
  // The user pointer that provider/ gives the transport is its CQ object.
  void complete(ibv_cq* at, uint64_t wr_id) {
    Wc wc;
    wc.wr_id = wr_id;
    transport_double::complete(at, wc);
  }
  bool get_event(ibv_cq*& event_cq, void*& event_context) {
    return ibv_get_cq_event(channel, &event_cq, &event_context) == 0;
  }
  // True if the CQ is destroyed only after `ack` was called, 100 ms later.
  template <typename Destroy, typename Ack>
  static bool destroy_waits_for(Destroy destroy, Ack ack) {
    std::atomic<bool> acked = false;
    bool in_order = false;
    std::thread destroyer([&] {
      EXPECT_EQ(destroy(), 0);
      in_order = acked;
    });
    std::this_thread::sleep_for(milliseconds(100));
    acked = true;
    ack();
    destroyer.join();
    return in_order;
  }

  ibv_comp_channel* channel = nullptr;
  ibv_cq* cq = nullptr;
};

TEST_F(CqTest, SizesAndVectorsAreChecked) {
  for (const int entries : {0, -1, (1 << 20) + 1}) {
    errno = 0;
    EXPECT_EQ(ibv_create_cq(context, entries, nullptr, nullptr, 0), nullptr) << entries;
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(ibv_create_cq(context, 1, nullptr, nullptr, context->num_comp_vectors), nullptr);
  EXPECT_EQ(ibv_create_cq(context, 1, nullptr, nullptr, -1), nullptr);
  EXPECT_EQ(cq->cqe, 8);
  EXPECT_EQ(ibv_resize_cq(cq, 20), 0);
  EXPECT_EQ(cq->cqe, 20);
  EXPECT_EQ(ibv_resize_cq(cq, 0), EINVAL);
}

TEST_F(CqTest, PollReturnsWhatThereIsInOrder) {
  ibv_wc wc[40];
  EXPECT_EQ(ibv_poll_cq(cq, 40, wc), 0);
  for (uint64_t i = 0; i < 35; ++i) complete(cq, i);
  EXPECT_EQ(ibv_poll_cq(cq, 3, wc), 3);
  EXPECT_EQ(wc[2].wr_id, 2u);
  EXPECT_EQ(ibv_poll_cq(cq, 40, wc), 32);
  EXPECT_EQ(wc[0].wr_id, 3u);
  EXPECT_EQ(wc[31].wr_id, 34u);
  EXPECT_EQ(ibv_poll_cq(cq, 0, wc), 0);
}

TEST_F(CqTest, EveryFieldOfACompletionArrives) {
  const Wc in{.wr_id = 1,
              .status = WcStatus::kRnrRetryExc,
              .opcode = WcOpcode::kRecvRdmaImm,
              .slid = 2,
              .vendor_err = 3,
              .byte_len = 4,
              .imm_be = 5,
              .qp_num = 6,
              .src_qp = 7,
              .flags = kWcGrh | kWcWithImm,
              .sl = 8};
  transport_double::complete(cq, in);
  ibv_wc wc;
  ASSERT_EQ(ibv_poll_cq(cq, 1, &wc), 1);
  EXPECT_EQ(wc.wr_id, 1u);
  EXPECT_EQ(wc.status, IBV_WC_RNR_RETRY_EXC_ERR);
  EXPECT_EQ(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
  EXPECT_EQ(wc.slid, 2);
  EXPECT_EQ(wc.vendor_err, 3u);
  EXPECT_EQ(wc.byte_len, 4u);
  EXPECT_EQ(wc.imm_data, 5u);
  EXPECT_EQ(wc.qp_num, 6u);
  EXPECT_EQ(wc.src_qp, 7u);
  EXPECT_EQ(wc.wc_flags, static_cast<unsigned>(IBV_WC_GRH | IBV_WC_WITH_IMM));
  EXPECT_EQ(wc.sl, 8);
}

TEST_F(CqTest, AnArmedCqRaisesOneEventAndItsDescriptorBecomesReadable) {
  complete(cq, 1);  // not armed
  EXPECT_FALSE(readable(channel->fd));
  ASSERT_EQ(ibv_req_notify_cq(cq, 1), 0);
  EXPECT_EQ(control().arms, std::vector<bool>{true});
  complete(cq, 2);
  complete(cq, 3);
  EXPECT_TRUE(readable(channel->fd));
  ibv_cq* event_cq = nullptr;
  void* event_context = nullptr;
  ASSERT_TRUE(get_event(event_cq, event_context));
  EXPECT_EQ(event_cq, cq);
  EXPECT_EQ(event_context, this);
  EXPECT_FALSE(readable(channel->fd));
  EXPECT_FALSE(get_event(event_cq, event_context));
  EXPECT_EQ(errno, EAGAIN);
  ibv_ack_cq_events(cq, 1);
}

TEST_F(CqTest, AChannelIsBusyWhileACqUsesIt) {
  EXPECT_EQ(ibv_destroy_comp_channel(channel), EBUSY);
}

TEST_F(CqTest, DestroyingACqTakesItsUnreadEventsBack) {
  ibv_cq* other = make(nullptr);
  ibv_req_notify_cq(cq, 0);
  ibv_req_notify_cq(other, 0);
  complete(cq, 1);
  complete(other, 2);
  ASSERT_EQ(ibv_destroy_cq(cq), 0);
  cq = nullptr;
  ibv_cq* event_cq = nullptr;
  void* event_context = nullptr;
  ASSERT_TRUE(get_event(event_cq, event_context));
  EXPECT_EQ(event_cq, other);
  EXPECT_FALSE(readable(channel->fd)) << "the destroyed CQ left a token";
  ibv_ack_cq_events(other, 1);
  EXPECT_EQ(ibv_destroy_cq(other), 0);
}

TEST_F(CqTest, DestroyingACqWaitsForTheAckOfAReadEvent) {
  ibv_req_notify_cq(cq, 0);
  complete(cq, 1);
  ibv_cq* event_cq = nullptr;
  void* event_context = nullptr;
  ASSERT_TRUE(get_event(event_cq, event_context));
  EXPECT_TRUE(destroy_waits_for([this] { return ibv_destroy_cq(cq); },
                                [&] { ibv_ack_cq_events(event_cq, 1); }));
  cq = nullptr;
}

// A reader that blocks must not be disturbed by a purge, and must get the next event.
TEST_F(CqTest, ABlockedReaderSurvivesAPurge) {
  fcntl(channel->fd, F_SETFL, 0);
  ibv_cq* other = make(nullptr);
  ibv_cq* got = nullptr;
  std::thread reader([&] {
    void* event_context = nullptr;
    EXPECT_EQ(ibv_get_cq_event(channel, &got, &event_context), 0);
  });
  std::this_thread::sleep_for(milliseconds(20));
  ASSERT_EQ(ibv_destroy_cq(cq), 0);
  cq = nullptr;
  ibv_req_notify_cq(other, 0);
  complete(other, 1);
  reader.join();
  EXPECT_EQ(got, other);
  ibv_ack_cq_events(other, 1);
  EXPECT_EQ(ibv_destroy_cq(other), 0);
}

TEST_F(CqTest, AsyncEventsNameTheirObject) {
  ibv_async_event event;
  EXPECT_EQ(ibv_get_async_event(context, &event), -1);
  EXPECT_EQ(errno, EAGAIN);
  control().async->on_async_event({.type = AsyncEventType::kPortErr, .object = nullptr});
  control().async->on_async_event({.type = AsyncEventType::kCqErr, .object = cq});
  EXPECT_TRUE(readable(context->async_fd));
  ASSERT_EQ(ibv_get_async_event(context, &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_PORT_ERR);
  EXPECT_EQ(event.element.port_num, 1);
  ibv_ack_async_event(&event);
  ASSERT_EQ(ibv_get_async_event(context, &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_CQ_ERR);
  EXPECT_EQ(event.element.cq, cq);
  EXPECT_TRUE(destroy_waits_for([this] { return ibv_destroy_cq(cq); },
                                [&] { ibv_ack_async_event(&event); }));
  cq = nullptr;
}

using AsyncQpTest = QpFixture;

TEST_F(AsyncQpTest, UnreadQpEventsGoWithTheQp) {
  fcntl(context->async_fd, F_SETFL, O_NONBLOCK);
  ibv_qp* other = make_qp(IBV_QPT_RC);
  control().async->on_async_event({.type = AsyncEventType::kQpFatal, .object = other});
  control().async->on_async_event({.type = AsyncEventType::kCommEst, .object = qp});
  ASSERT_EQ(ibv_destroy_qp(other), 0);
  ibv_async_event event;
  ASSERT_EQ(ibv_get_async_event(context, &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_COMM_EST);
  EXPECT_EQ(event.element.qp, qp);
  ibv_ack_async_event(&event);
  EXPECT_FALSE(readable(context->async_fd));
}

class ExtendedCqTest : public Fixture {
 protected:
  void SetUp() override {
    Fixture::SetUp();
    cq = make(uint64_t{IBV_WC_STANDARD_FLAGS} | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP, 0);
    ASSERT_NE(cq, nullptr);
  }
  void TearDown() override {
    EXPECT_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
    Fixture::TearDown();
  }
  ibv_cq_ex* make(uint64_t wc_flags, uint32_t comp_mask) {
    ibv_cq_init_attr_ex attr{};
    attr.cqe = 8;
    attr.wc_flags = wc_flags;
    attr.comp_mask = comp_mask;
    return ibv_create_cq_ex(context, &attr);
  }
  void complete(uint64_t wr_id) {
    transport_double::complete(cq,
                               {.wr_id = wr_id, .byte_len = 10, .imm_be = 11, .timestamp_ns = 12});
  }
  ibv_cq_ex* cq = nullptr;
};

TEST_F(ExtendedCqTest, FlagsThatWeLackAreNotSupported) {
  errno = 0;
  EXPECT_EQ(make(IBV_WC_EX_WITH_CVLAN, 0), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(make(IBV_WC_STANDARD_FLAGS, IBV_CQ_INIT_ATTR_MASK_PD), nullptr);
}

TEST_F(ExtendedCqTest, ModerationReachesTheTransport) {
  ibv_device_attr_ex device{};
  ASSERT_EQ(ibv_query_device_ex(context, nullptr, &device), 0);
  EXPECT_EQ(device.cq_mod_caps.max_cq_count, 0xffff);
  EXPECT_EQ(device.cq_mod_caps.max_cq_period, 0xffff);
  const auto modify = [this](uint32_t mask, uint16_t count, uint16_t period) {
    ibv_modify_cq_attr attr{.attr_mask = mask, .moderate = {count, period}};
    return ibv_modify_cq(ibv_cq_ex_to_cq(cq), &attr);
  };
  EXPECT_EQ(modify(IBV_CQ_ATTR_MODERATE, 0, 0), 0);
  EXPECT_EQ(modify(IBV_CQ_ATTR_MODERATE, 16, 0xffff), 0);
  EXPECT_EQ(control().moderations,
            (std::vector<std::pair<uint32_t, uint32_t>>{{0, 0}, {16, 0xffff}}));
  EXPECT_EQ(modify(0, 1, 0), EINVAL);
  EXPECT_EQ(modify(IBV_CQ_ATTR_MODERATE | IBV_CQ_ATTR_RESERVED, 1, 0), EINVAL);
}

TEST_F(ExtendedCqTest, CompletionsAreReadFieldByField) {
  ibv_poll_cq_attr attr{};
  EXPECT_EQ(ibv_start_poll(cq, &attr), ENOENT);
  complete(1);
  complete(2);
  ASSERT_EQ(ibv_start_poll(cq, &attr), 0);
  EXPECT_EQ(cq->wr_id, 1u);
  EXPECT_EQ(cq->status, IBV_WC_SUCCESS);
  EXPECT_EQ(ibv_wc_read_byte_len(cq), 10u);
  EXPECT_EQ(ibv_wc_read_imm_data(cq), 11u);
  EXPECT_EQ(ibv_wc_read_completion_ts(cq), 12u);
  ASSERT_EQ(ibv_next_poll(cq), 0);
  EXPECT_EQ(cq->wr_id, 2u);
  EXPECT_EQ(ibv_next_poll(cq), ENOENT);
  ibv_end_poll(cq);
}

// C-133: the end after ENOENT must not swallow the completion that comes next.
TEST_F(ExtendedCqTest, EndAfterNoEntryAdvancesNothing) {
  ibv_poll_cq_attr attr{};
  complete(1);
  ASSERT_EQ(ibv_start_poll(cq, &attr), 0);
  ASSERT_EQ(ibv_next_poll(cq), ENOENT);
  complete(2);
  ibv_end_poll(cq);
  ASSERT_EQ(ibv_start_poll(cq, &attr), 0);
  EXPECT_EQ(cq->wr_id, 2u);
  ibv_end_poll(cq);
  EXPECT_EQ(ibv_start_poll(cq, &attr), ENOENT);
  ibv_end_poll(cq);  // not called for by the manual, but done by programs
  complete(3);
  ibv_wc wc;
  EXPECT_EQ(ibv_poll_cq(ibv_cq_ex_to_cq(cq), 1, &wc), 1);
  EXPECT_EQ(wc.wr_id, 3u);
}

}  // namespace
}  // namespace tbt::provider_test
