// Traffic through the extended interfaces, shared receive queues, channels and datagrams, on a
// running fabric.
#include <fcntl.h>
#include <poll.h>

#include "live.h"

namespace tbt::provider_live {
namespace {

bool readable_within(int fd, int milliseconds) {
  pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&p, 1, milliseconds) == 1;
}

class ExtendedTraffic : public LiveTest {
 protected:
  void SetUp() override {
    LiveTest::SetUp();
    ibv_cq_init_attr_ex attr{};
    attr.cqe = 64;
    attr.wc_flags = uint64_t{IBV_WC_STANDARD_FLAGS} | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP;
    cq_ex = ibv_create_cq_ex(context, &attr);
    ASSERT_NE(cq_ex, nullptr);
    sender =
        make_qp({.cq = ibv_cq_ex_to_cq(cq_ex),
                 .send_ops = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM |
                             IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                             IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
                             IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_ATOMIC_WRITE});
    ASSERT_NE(sender, nullptr);
    receiver = make_qp({});
    connect(sender, receiver);
    ex = ibv_qp_to_qp_ex(sender);
    ASSERT_NE(ex, nullptr);
    ex->wr_flags = IBV_SEND_SIGNALED;
  }
  void TearDown() override {
    for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
    qps.clear();
    EXPECT_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(cq_ex)), 0);
    LiveTest::TearDown();
  }
  // The next completion of the sender; false after ten seconds. The caller ends the poll.
  bool start_poll() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    ibv_poll_cq_attr attr{};
    while (std::chrono::steady_clock::now() < end) {
      if (ibv_start_poll(cq_ex, &attr) == 0) return true;
      std::this_thread::yield();
    }
    return false;
  }
  void expect_completion(uint64_t wr_id, ibv_wc_opcode opcode) {
    ASSERT_TRUE(start_poll());
    EXPECT_EQ(cq_ex->status, IBV_WC_SUCCESS);
    EXPECT_EQ(cq_ex->wr_id, wr_id);
    EXPECT_EQ(ibv_wc_read_opcode(cq_ex), opcode);
    EXPECT_EQ(ibv_wc_read_qp_num(cq_ex), sender->qp_num);
    ibv_end_poll(cq_ex);
  }
  void set_sge(size_t offset, uint32_t length) {
    ibv_wr_set_sge(ex, mr->lkey, reinterpret_cast<uintptr_t>(memory) + offset, length);
  }
  uint64_t remote(size_t offset) const { return reinterpret_cast<uintptr_t>(memory) + offset; }

  ibv_cq_ex* cq_ex = nullptr;
  ibv_qp* sender = nullptr;
  ibv_qp* receiver = nullptr;
  ibv_qp_ex* ex = nullptr;
};

// Bound by one side, used and closed by the other.
TEST_F(ExtendedTraffic, AWindowIsOpenUntilThePeerInvalidatesIt) {
  ibv_qp* owner = make_qp({.send_ops = IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV});
  ibv_qp* user = make_qp({.send_ops = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND_WITH_INV});
  ASSERT_TRUE(owner != nullptr && user != nullptr);
  connect(owner, user);
  alignas(8) char area[64] = {};
  ibv_mr* region = ibv_reg_mr_iova2(pd, area, sizeof area, reinterpret_cast<uintptr_t>(area),
                                    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
  ibv_mw* window = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
  ASSERT_TRUE(region != nullptr && window != nullptr);
  const uint32_t key = ibv_inc_rkey(window->rkey);
  const ibv_mw_bind_info info{region, reinterpret_cast<uintptr_t>(area), sizeof area,
                              IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ZERO_BASED};
  ibv_qp_ex* ex_owner = ibv_qp_to_qp_ex(owner);
  ex_owner->wr_flags = IBV_SEND_SIGNALED;
  ibv_wr_start(ex_owner);
  ibv_wr_bind_mw(ex_owner, window, key, &info);
  ASSERT_EQ(ibv_wr_complete(ex_owner), 0);
  const auto next = [&] {
    const auto found = completions(cq, 1);
    return found.empty() ? ibv_wc{} : found.front();
  };
  ibv_wc wc = next();
  ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.opcode, IBV_WC_BIND_MW);
  EXPECT_EQ(ibv_dereg_mr(region), EBUSY);

  ASSERT_EQ(post_recv(owner, 60, sge(1024, 64)), 0);
  ibv_qp_ex* ex_user = ibv_qp_to_qp_ex(user);
  char text[] = "through it";
  ibv_wr_start(ex_user);
  ex_user->wr_flags = 0;
  ibv_wr_rdma_write(ex_user, key, 8);
  ibv_wr_set_inline_data(ex_user, text, sizeof text);
  ibv_wr_send_inv(ex_user, key);
  ibv_wr_set_inline_data(ex_user, text, 1);
  ASSERT_EQ(ibv_wr_complete(ex_user), 0);
  wc = next();
  ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.wr_id, 60u);
  EXPECT_EQ(wc.wc_flags, static_cast<unsigned>(IBV_WC_WITH_INV));
  EXPECT_EQ(wc.invalidated_rkey, key);
  EXPECT_STREQ(area + 8, text);

  ibv_wr_start(ex_user);
  ex_user->wr_flags = IBV_SEND_SIGNALED;
  ibv_wr_rdma_write(ex_user, key, 8);
  ibv_wr_set_inline_data(ex_user, text, 1);
  ASSERT_EQ(ibv_wr_complete(ex_user), 0);
  wc = next();
  EXPECT_EQ(wc.status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(ibv_dereg_mr(region), 0);
  EXPECT_EQ(ibv_dealloc_mw(window), 0);
}

TEST_F(ExtendedTraffic, EveryOperationMovesItsData) {
  std::memcpy(memory, "0123456789abcdef", 16);
  ASSERT_EQ(post_recv(receiver, 50, sge(1024, 64)), 0);
  ASSERT_EQ(post_recv(receiver, 51, sge(2048, 64)), 0);
  ibv_wr_start(ex);
  ex->wr_id = 1;
  ibv_wr_send_imm(ex, htobe32(0xabcd));
  set_sge(0, 16);
  ex->wr_id = 2;
  ibv_wr_rdma_write(ex, mr->rkey, remote(4096));
  char inline_data[] = "inline!";
  ibv_wr_set_inline_data(ex, inline_data, sizeof inline_data);
  ex->wr_id = 3;
  ibv_wr_rdma_write_imm(ex, mr->rkey, remote(5000), htobe32(7));
  set_sge(8, 8);
  ex->wr_id = 4;
  ibv_wr_rdma_read(ex, mr->rkey, remote(0));
  set_sge(6000, 16);
  ASSERT_EQ(ibv_wr_complete(ex), 0);
  expect_completion(1, IBV_WC_SEND);
  expect_completion(2, IBV_WC_RDMA_WRITE);
  expect_completion(3, IBV_WC_RDMA_WRITE);
  expect_completion(4, IBV_WC_RDMA_READ);
  const auto received = completions(cq, 2);
  ASSERT_EQ(received.size(), 2u);
  EXPECT_EQ(received[0].wr_id, 50u);
  EXPECT_EQ(received[0].byte_len, 16u);
  EXPECT_EQ(be32toh(received[0].imm_data), 0xabcdu);
  EXPECT_EQ(received[1].opcode, IBV_WC_RECV_RDMA_WITH_IMM);
  EXPECT_EQ(be32toh(received[1].imm_data), 7u);
  EXPECT_EQ(std::memcmp(memory + 1024, "0123456789abcdef", 16), 0);
  EXPECT_STREQ(reinterpret_cast<char*>(memory + 4096), "inline!");
  EXPECT_EQ(std::memcmp(memory + 5000, "89abcdef", 8), 0);
  EXPECT_EQ(std::memcmp(memory + 6000, "0123456789abcdef", 16), 0);
}

// A batch is posted whole or not at all, whatever is wrong with it.
TEST_F(ExtendedTraffic, ABatchThatCannotBePostedWholePostsNothing) {
  ibv_qp_attr attr;
  ibv_qp_init_attr init;
  ASSERT_EQ(ibv_query_qp(sender, &attr, IBV_QP_CAP, &init), 0);
  auto batch = [&](uint64_t first, uint32_t count, bool spoil_last) {
    ibv_wr_start(ex);
    for (uint32_t i = 0; i < count; ++i) {
      ex->wr_id = first + i;
      if (spoil_last && i + 1 == count) {
        ibv_wr_atomic_fetch_add(ex, mr->rkey, remote(8192 + 4), 1);  // not aligned
      } else {
        ibv_wr_rdma_write(ex, mr->rkey, remote(4096));
      }
      set_sge(0, 8);
    }
    return ibv_wr_complete(ex);
  };
  EXPECT_EQ(batch(100, 3, true), EINVAL);
  ibv_wr_start(ex);
  ex->wr_id = 150;
  ibv_wr_rdma_write(ex, mr->rkey, remote(4096));
  set_sge(0, 8);
  ibv_wr_abort(ex);
  // Completions that were not polled keep their slots: one is taken now, so a full batch is one too
  // many.
  ASSERT_EQ(batch(1, 1, false), 0);
  EXPECT_EQ(batch(200, init.cap.max_send_wr, false), ENOMEM);
  expect_completion(1, IBV_WC_RDMA_WRITE);
  // Were anything of the refused or aborted batches posted, it would complete before these.
  ASSERT_EQ(batch(300, init.cap.max_send_wr, false), 0);
  for (uint32_t i = 0; i < init.cap.max_send_wr; ++i) expect_completion(300 + i, IBV_WC_RDMA_WRITE);
}

TEST_F(ExtendedTraffic, AtomicsReturnTheOldValue) {
  uint64_t value = 41;
  std::memcpy(memory + 8192, &value, sizeof value);
  ibv_wr_start(ex);
  ex->wr_id = 1;
  ibv_wr_atomic_fetch_add(ex, mr->rkey, remote(8192), 1);
  set_sge(0, 8);
  ex->wr_id = 2;
  ibv_wr_atomic_cmp_swp(ex, mr->rkey, remote(8192), 42, 99);
  set_sge(8, 8);
  ex->wr_id = 3;
  ibv_wr_atomic_cmp_swp(ex, mr->rkey, remote(8192), 42, 1);  // does not compare equal any more
  set_sge(16, 8);
  ASSERT_EQ(ibv_wr_complete(ex), 0);
  expect_completion(1, IBV_WC_FETCH_ADD);
  expect_completion(2, IBV_WC_COMP_SWAP);
  expect_completion(3, IBV_WC_COMP_SWAP);
  uint64_t old[3];
  std::memcpy(old, memory, sizeof old);
  std::memcpy(&value, memory + 8192, sizeof value);
  EXPECT_EQ(old[0], 41u);
  EXPECT_EQ(old[1], 42u);
  EXPECT_EQ(old[2], 99u);
  EXPECT_EQ(value, 99u);
}

// Through both interfaces; the device says that it can.
TEST_F(ExtendedTraffic, AnAtomicWritePlacesItsEightBytes) {
  constexpr uint64_t kCapAtomicWrite = uint64_t{1} << 40;  // IB_UVERBS_DEVICE_ATOMIC_WRITE
  ibv_device_attr_ex device{};
  ASSERT_EQ(ibv_query_device_ex(context, nullptr, &device), 0);
  EXPECT_NE(device.device_cap_flags_ex & kCapAtomicWrite, 0u);
  uint64_t value = 0x0102030405060708;
  ibv_wr_start(ex);
  ex->wr_id = 1;
  ibv_wr_atomic_write(ex, mr->rkey, remote(8192), &value);
  value = 0;  // it was copied
  ASSERT_EQ(ibv_wr_complete(ex), 0);
  expect_completion(1, IBV_WC_ATOMIC_WRITE);
  std::memcpy(&value, memory + 8192, sizeof value);
  EXPECT_EQ(value, 0x0102030405060708u);

  std::memcpy(memory, "old post", 8);
  ibv_sge what = sge(0, 8);
  ibv_send_wr wr{};
  wr.wr_id = 2;
  wr.sg_list = &what;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_ATOMIC_WRITE;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.wr.rdma = {.remote_addr = remote(8200), .rkey = mr->rkey};
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(sender, &wr, &bad), 0);
  expect_completion(2, IBV_WC_ATOMIC_WRITE);
  EXPECT_EQ(std::memcmp(memory + 8200, "old post", 8), 0);
  wr.wr.rdma.remote_addr = remote(8204);
  EXPECT_EQ(ibv_post_send(sender, &wr, &bad), EINVAL) << "not aligned";
  EXPECT_EQ(bad, &wr);
}

TEST_F(ExtendedTraffic, TimeStampsCountNanosecondsAndDoNotGoBack) {
  uint64_t last = 0;
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_EQ(post_recv(receiver, i, sge(1024, 64)), 0);
    ASSERT_EQ(post_send(sender, i, sge(0, 8)), 0);
    ASSERT_TRUE(start_poll());
    const uint64_t stamp = ibv_wc_read_completion_ts(cq_ex);
    ibv_end_poll(cq_ex);
    EXPECT_GE(stamp, last);
    last = stamp;
    ASSERT_EQ(completions(cq, 1).size(),
              1u);  // a receive keeps its place until its completion is taken
  }
  ibv_values_ex now{.comp_mask = IBV_VALUES_MASK_RAW_CLOCK, .raw_clock = {}};
  ASSERT_EQ(ibv_query_rt_values_ex(context, &now), 0);
  const uint64_t now_ns = static_cast<uint64_t>(now.raw_clock.tv_sec) * 1'000'000'000 +
                          static_cast<uint64_t>(now.raw_clock.tv_nsec);
  EXPECT_GE(now_ns, last);
  EXPECT_LT(now_ns - last, 10'000'000'000u);
}

using Traffic = LiveTest;

TEST_F(Traffic, AFullSendQueueNamesTheFirstRequestThatDidNotFit) {
  ibv_qp* a = make_qp({.depth = 8});
  ibv_qp* b = make_qp({});
  connect(a, b);
  // Nothing is received: the sends stay in the queue.
  std::vector<ibv_send_wr> wrs(64);
  ibv_sge data = sge(0, 8);
  for (size_t i = 0; i < wrs.size(); ++i) {
    wrs[i] = {};
    wrs[i].wr_id = i;
    wrs[i].next = i + 1 < wrs.size() ? &wrs[i + 1] : nullptr;
    wrs[i].sg_list = &data;
    wrs[i].num_sge = 1;
    wrs[i].opcode = IBV_WR_SEND;
    wrs[i].send_flags = IBV_SEND_SIGNALED;
  }
  ibv_qp_attr attr;
  ibv_qp_init_attr init;
  ASSERT_EQ(ibv_query_qp(a, &attr, IBV_QP_CAP, &init), 0);
  ibv_send_wr* bad = nullptr;
  EXPECT_EQ(ibv_post_send(a, wrs.data(), &bad), ENOMEM);
  ASSERT_NE(bad, nullptr);
  EXPECT_EQ(bad->wr_id, init.cap.max_send_wr);
  // What was taken is delivered once there are receives.
  for (uint64_t i = 0; i < bad->wr_id; ++i) ASSERT_EQ(post_recv(b, 100 + i, sge(1024, 8)), 0);
  EXPECT_EQ(completions(cq, 2 * bad->wr_id).size(), 2 * bad->wr_id);
}

TEST_F(Traffic, SolicitedEventsComeForSolicitedMessagesOnly) {
  ibv_comp_channel* channel = ibv_create_comp_channel(context);
  ibv_cq* waited = ibv_create_cq(context, 16, this, channel, 0);
  ASSERT_NE(waited, nullptr);
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({.cq = waited});
  connect(a, b);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_EQ(post_recv(b, i, sge(1024, 64)), 0);
  ASSERT_EQ(ibv_req_notify_cq(waited, 1), 0);
  ASSERT_EQ(post_send(a, 1, sge(0, 8)), 0);
  ASSERT_EQ(completions(cq, 1).size(), 1u);  // the peer has it
  EXPECT_FALSE(readable_within(channel->fd, 50));
  ASSERT_EQ(post_send(a, 2, sge(0, 8), IBV_SEND_SIGNALED | IBV_SEND_SOLICITED), 0);
  ASSERT_TRUE(readable_within(channel->fd, 10000));
  ibv_cq* event_cq = nullptr;
  void* event_context = nullptr;
  ASSERT_EQ(ibv_get_cq_event(channel, &event_cq, &event_context), 0);
  EXPECT_EQ(event_cq, waited);
  EXPECT_EQ(event_context, this);
  EXPECT_EQ(completions(waited, 2).size(), 2u);
  // Armed for any message; one event only.
  ASSERT_EQ(ibv_req_notify_cq(waited, 0), 0);
  ASSERT_EQ(post_send(a, 3, sge(0, 8)), 0);
  ASSERT_TRUE(readable_within(channel->fd, 10000));
  ASSERT_EQ(ibv_get_cq_event(channel, &event_cq, &event_context), 0);
  EXPECT_FALSE(readable_within(channel->fd, 50));
  ibv_ack_cq_events(waited, 2);
  for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qps.clear();
  EXPECT_EQ(ibv_destroy_cq(waited), 0);
  EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
}

TEST_F(Traffic, ASharedReceiveQueueServesTwoQpsAndTellsWhenItRunsLow) {
  ibv_srq_init_attr attr{};
  attr.attr = {.max_wr = 8, .max_sge = 1, .srq_limit = 0};
  ibv_srq* srq = ibv_create_srq(pd, &attr);
  ASSERT_NE(srq, nullptr);
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({.srq = srq});
  ibv_qp* c = make_qp({});
  ibv_qp* d = make_qp({.srq = srq});
  connect(a, b);
  connect(c, d);
  for (uint64_t i = 0; i < 4; ++i) {
    ibv_sge where = sge(1024 * (i + 1), 64);
    ibv_recv_wr wr{};
    wr.wr_id = 100 + i;
    wr.sg_list = &where;
    wr.num_sge = 1;
    ibv_recv_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_srq_recv(srq, &wr, &bad), 0);
  }
  EXPECT_EQ(ibv_destroy_srq(srq), EBUSY);
  ibv_srq_attr limit{.max_wr = 0, .max_sge = 0, .srq_limit = 3};
  ASSERT_EQ(ibv_modify_srq(srq, &limit, IBV_SRQ_LIMIT), 0);
  ASSERT_EQ(post_send(a, 1, sge(0, 8)), 0);
  ASSERT_EQ(completions(cq, 2).size(), 2u);
  ASSERT_EQ(post_send(c, 2, sge(0, 8)), 0);
  ASSERT_EQ(completions(cq, 2).size(), 2u);
  ASSERT_TRUE(readable_within(context->async_fd, 10000));
  ibv_async_event event;
  do {  // a COMM_EST may come before
    ASSERT_TRUE(readable_within(context->async_fd, 10000));
    ASSERT_EQ(ibv_get_async_event(context, &event), 0);
    ibv_ack_async_event(&event);
  } while (event.event_type == IBV_EVENT_COMM_EST);
  EXPECT_EQ(event.event_type, IBV_EVENT_SRQ_LIMIT_REACHED);
  EXPECT_EQ(event.element.srq, srq);
  ibv_srq_attr now;
  ASSERT_EQ(ibv_query_srq(srq, &now), 0);
  EXPECT_EQ(now.srq_limit, 0u);
  for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qps.clear();
  EXPECT_EQ(ibv_destroy_srq(srq), 0);
}

// A datagram has no timer: only its sender can tell the sleeping thread that it is there.
TEST_F(Traffic, ADatagramToOneselfRaisesItsEventWhileTheProcessSleeps) {
  ibv_comp_channel* channel = ibv_create_comp_channel(context);
  ibv_cq* waited = ibv_create_cq(context, 16, nullptr, channel, 0);
  ASSERT_NE(waited, nullptr);
  ibv_qp* a = make_qp({.type = IBV_QPT_UD});
  ibv_qp* b = make_qp({.type = IBV_QPT_UD, .cq = waited});
  connect(a, b);
  ibv_ah_attr attr{};
  attr.port_num = 1;
  attr.dlid = lid;
  ibv_ah* ah = ibv_create_ah(pd, &attr);
  ASSERT_NE(ah, nullptr);
  ibv_sge what = sge(0, 32);
  ibv_send_wr wr{};
  wr.sg_list = &what;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.wr.ud = {.ah = ah, .remote_qpn = b->qp_num, .remote_qkey = kQkey};
  constexpr int kRounds = 24;
  int prompt = 0;
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_EQ(post_recv(b, 1, sge(1024, 256)), 0);
    ASSERT_EQ(ibv_req_notify_cq(waited, 0), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // the thread is asleep by now
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(a, &wr, &bad), 0);
    // Far more than a wake takes. Without one the thread sleeps on, up to half a second.
    if (readable_within(channel->fd, 100)) {
      ++prompt;
    } else {
      ASSERT_TRUE(readable_within(channel->fd, 10000)) << "round " << i;
    }
    ibv_cq* event_cq = nullptr;
    void* event_context = nullptr;
    ASSERT_EQ(ibv_get_cq_event(channel, &event_cq, &event_context), 0);
    ASSERT_EQ(completions(waited, 1).size(), 1u);
    ASSERT_EQ(completions(cq, 1).size(), 1u);
  }
  // Most of them, not all: a busy machine may make some wait.
  EXPECT_GT(prompt, kRounds / 2);
  ibv_ack_cq_events(waited, kRounds);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
  for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qps.clear();
  EXPECT_EQ(ibv_destroy_cq(waited), 0);
  EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
}

TEST_F(Traffic, ADatagramCanBeAnsweredFromItsCompletion) {
  ibv_qp* a = make_qp({.type = IBV_QPT_UD});
  ibv_qp* b = make_qp({.type = IBV_QPT_UD});
  connect(a, b);
  ASSERT_EQ(post_recv(a, 10, sge(1024, 256)), 0);
  ASSERT_EQ(post_recv(b, 11, sge(2048, 256)), 0);
  ibv_ah_attr attr{};
  attr.port_num = 1;
  attr.dlid = lid;
  attr.is_global = 1;
  attr.grh.hop_limit = 64;
  attr.grh.sgid_index = 1;
  ASSERT_EQ(ibv_query_gid(context, 1, 1, &attr.grh.dgid), 0);
  ibv_ah* ah = ibv_create_ah(pd, &attr);
  ASSERT_NE(ah, nullptr);
  const auto send = [&](ibv_qp* from, ibv_ah* to, uint32_t qpn, const char* text) {
    std::strcpy(reinterpret_cast<char*>(memory), text);
    ibv_sge what = sge(0, 32);
    ibv_send_wr wr{};
    wr.sg_list = &what;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.ud = {.ah = to, .remote_qpn = qpn, .remote_qkey = kQkey};
    ibv_send_wr* bad = nullptr;
    EXPECT_EQ(ibv_post_send(from, &wr, &bad), 0);
  };
  send(a, ah, b->qp_num, "question");
  ibv_wc question{};
  for (const ibv_wc& wc : completions(cq, 2)) {
    EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
    if (wc.opcode == IBV_WC_RECV) question = wc;
  }
  ASSERT_EQ(question.wr_id, 11u);
  EXPECT_EQ(question.src_qp, a->qp_num);
  EXPECT_EQ(question.byte_len, kGrhBytes + 32);
  ASSERT_NE(question.wc_flags & IBV_WC_GRH, 0u);
  EXPECT_STREQ(reinterpret_cast<char*>(memory + 2048 + kGrhBytes), "question");
  ibv_ah* back = ibv_create_ah_from_wc(pd, &question, reinterpret_cast<ibv_grh*>(memory + 2048), 1);
  ASSERT_NE(back, nullptr) << errno;
  send(b, back, question.src_qp, "answer");
  ASSERT_EQ(completions(cq, 2).size(), 2u);
  EXPECT_STREQ(reinterpret_cast<char*>(memory + 1024 + kGrhBytes), "answer");
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
  EXPECT_EQ(ibv_destroy_ah(back), 0);
}

}  // namespace
}  // namespace tbt::provider_live
