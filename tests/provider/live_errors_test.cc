// What goes wrong on purpose: arguments, states, order of destruction, remote faults, the child of
// a fork. Numbers C-... are those of the verbs test plan.
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#undef ibv_reg_mr

namespace tbt::provider_live {
namespace {

using Errors = LiveTest;

TEST_F(Errors, C001_RemoteWriteNeedsLocalWrite) {
  for (const int access : {IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_ATOMIC}) {
    errno = 0;
    EXPECT_EQ(ibv_reg_mr(pd, memory, 64, access), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
}

TEST_F(Errors, C002_UnmappedMemoryIsRefused) {
  const size_t page = 4096;
  void* hole = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(hole, page);
  errno = 0;
  EXPECT_EQ(ibv_reg_mr(pd, hole, page, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(Errors, C003_NothingCannotBeRegistered) {
  errno = 0;
  EXPECT_EQ(ibv_reg_mr(pd, memory, 0, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Errors, C005_ReadOnlyMemoryIsRegisteredForReadingOnly) {
  const size_t page = 4096;
  void* constant = mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  errno = 0;
  EXPECT_EQ(ibv_reg_mr(pd, constant, page, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_TRUE(errno == EFAULT || errno == EACCES) << errno;
  ibv_mr* readable = ibv_reg_mr(pd, constant, page, IBV_ACCESS_REMOTE_READ);
  ASSERT_NE(readable, nullptr);
  EXPECT_EQ(ibv_dereg_mr(readable), 0);
  munmap(constant, page);
}

TEST_F(Errors, C006_C007_WhatIsInUseIsNotDestroyed) {
  ASSERT_NE(make_qp({}), nullptr);
  EXPECT_EQ(ibv_dealloc_pd(pd), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(cq), EBUSY);
}

TEST_F(Errors, C011_GrantedCapacitiesCoverTheWishAndTheLimitsHold) {
  ibv_device_attr device;
  ASSERT_EQ(ibv_query_device(context, &device), 0);
  ibv_qp_init_attr attr{};
  attr.send_cq = cq;
  attr.recv_cq = cq;
  attr.qp_type = IBV_QPT_RC;
  attr.cap = {.max_send_wr = static_cast<uint32_t>(device.max_qp_wr),
              .max_recv_wr = 0,
              .max_send_sge = 1,
              .max_recv_sge = 0,
              .max_inline_data = 100};
  ibv_qp* largest = ibv_create_qp(pd, &attr);
  ASSERT_NE(largest, nullptr) << errno;
  EXPECT_GE(attr.cap.max_send_wr, static_cast<uint32_t>(device.max_qp_wr));
  EXPECT_GE(attr.cap.max_inline_data, 100u);
  EXPECT_EQ(ibv_destroy_qp(largest), 0);
  attr.cap.max_send_wr = static_cast<uint32_t>(device.max_qp_wr) + 1;
  errno = 0;
  EXPECT_EQ(ibv_create_qp(pd, &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
  attr.cap = {.max_send_wr = 1,
              .max_recv_wr = 1,
              .max_send_sge = static_cast<uint32_t>(device.max_sge) + 1,
              .max_recv_sge = 1,
              .max_inline_data = 0};
  EXPECT_EQ(ibv_create_qp(pd, &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Errors, C013_ACqIsNotMadeSmallerThanItsContents) {
  ibv_qp* qp = make_qp({});
  to_init(qp);
  for (uint64_t i = 0; i < 5; ++i) ASSERT_EQ(post_recv(qp, i, sge(0, 8)), 0);
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_ERR;
  ASSERT_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE), 0);
  EXPECT_EQ(ibv_resize_cq(cq, 4), EINVAL);
  EXPECT_EQ(ibv_resize_cq(cq, 300), 0);
  EXPECT_GE(cq->cqe, 300);
  const auto flushed = completions(cq, 5);
  ASSERT_EQ(flushed.size(), 5u);
  for (uint64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(flushed[i].wr_id, i);
    EXPECT_EQ(flushed[i].status, IBV_WC_WR_FLUSH_ERR);
  }
}

TEST_F(Errors, C020_C022_IllegalStepsAndMasksChangeNothing) {
  ibv_qp* qp = make_qp({});
  ibv_qp_attr attr{};
  ibv_qp_init_attr init;
  attr.qp_state = IBV_QPS_RTS;
  EXPECT_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), EINVAL);
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  EXPECT_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PORT), EINVAL);
  attr.port_num = 2;
  EXPECT_EQ(ibv_modify_qp(qp, &attr,
                          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
            EINVAL);
  ASSERT_EQ(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
  EXPECT_EQ(attr.qp_state, IBV_QPS_RESET);
  EXPECT_EQ(qp->state, IBV_QPS_RESET);
}

TEST_F(Errors, C025_C026_PostingNeedsTheRightState) {
  ibv_qp* qp = make_qp({});
  EXPECT_EQ(post_recv(qp, 1, sge(0, 8)), EINVAL);
  EXPECT_EQ(post_send(qp, 1, sge(0, 8)), EINVAL);
  to_init(qp);
  EXPECT_EQ(post_recv(qp, 1, sge(0, 8)), 0);
  EXPECT_EQ(post_send(qp, 1, sge(0, 8)), EINVAL);
}

// A write with a key that nobody gave: the requester learns it, the responder's process gets an
// event.
TEST_F(Errors, AWrongKeyEndsBothQps) {
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({});
  connect(a, b);
  ibv_sge what = sge(0, 8);
  ibv_send_wr wr{};
  wr.sg_list = &what;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.send_flags = IBV_SEND_SIGNALED;
  wr.wr.rdma = {.remote_addr = reinterpret_cast<uintptr_t>(memory), .rkey = mr->rkey ^ 0x5a5a00};
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(a, &wr, &bad), 0);
  const auto failed = completions(cq, 1);
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].status, IBV_WC_REM_ACCESS_ERR);
  ibv_qp_attr attr;
  ibv_qp_init_attr init;
  ASSERT_EQ(ibv_query_qp(a, &attr, IBV_QP_STATE, &init), 0);
  EXPECT_EQ(attr.qp_state, IBV_QPS_ERR);
  ibv_async_event event;
  do {
    pollfd p{.fd = context->async_fd, .events = POLLIN, .revents = 0};
    ASSERT_EQ(poll(&p, 1, 10000), 1) << "no event for the responder";
    ASSERT_EQ(ibv_get_async_event(context, &event), 0);
    ibv_ack_async_event(&event);
  } while (event.event_type == IBV_EVENT_COMM_EST);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_ACCESS_ERR);
  EXPECT_EQ(event.element.qp, b);
}

// In the child every call must fail or do nothing, at once; the parent's traffic goes on.
TEST_F(Errors, TheChildOfAForkIsRefused) {
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({});
  connect(a, b);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(10);  // hanging is a failure
    int findings = 0;
    ibv_wc wc;
    if (ibv_alloc_pd(context) != nullptr || errno != EPERM) findings |= 1;
    if (ibv_reg_mr(pd, memory, 64, 0) != nullptr || errno != EPERM) findings |= 2;
    if (post_send(a, 1, sge(0, 8)) != EPERM) findings |= 4;
    if (post_recv(a, 1, sge(0, 8)) != EPERM) findings |= 8;
    if (ibv_poll_cq(cq, 1, &wc) >= 0) findings |= 16;
    if (ibv_destroy_qp(a) != EPERM) findings |= 32;
    _exit(findings);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_EQ(post_recv(b, 1, sge(1024, 64)), 0);
  ASSERT_EQ(post_send(a, 2, sge(0, 8)), 0);
  for (const ibv_wc& wc : completions(cq, 2)) EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
}

}  // namespace
}  // namespace tbt::provider_live
