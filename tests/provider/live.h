// Queue pairs of one process on a running fabric, connected to each other through the public verbs
// API.
#pragma once

#include <endian.h>
#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace tbt::provider_live {

constexpr uint32_t kQkey = 0x11111111;
constexpr size_t kGrhBytes = 40;

struct QpRequest {
  ibv_qp_type type = IBV_QPT_RC;
  ibv_cq* cq = nullptr;
  ibv_srq* srq = nullptr;
  uint32_t depth = 16;
  uint64_t send_ops = 0;  // not zero: with the extended post interface
};

class LiveTest : public testing::Test {
 protected:
  void SetUp() override {
    context = open("tbt0");
    ASSERT_NE(context, nullptr) << "no device tbt0: run this by live_test.py";
    ibv_port_attr port{};
    ASSERT_EQ(verbs_get_ctx(context)->query_port(context, 1, &port, sizeof port), 0);
    lid = port.lid;
    pd = ibv_alloc_pd(context);
    ASSERT_NE(pd, nullptr);
    mr = ibv_reg_mr_iova2(pd, memory, sizeof memory, reinterpret_cast<uintptr_t>(memory),
                          IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                              IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC);
    ASSERT_NE(mr, nullptr);
    cq = ibv_create_cq(context, 256, nullptr, nullptr, 0);
    ASSERT_NE(cq, nullptr);
  }
  void TearDown() override {
    if (context == nullptr) return;
    for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
    EXPECT_EQ(ibv_destroy_cq(cq), 0);
    EXPECT_EQ(ibv_dereg_mr(mr), 0);
    EXPECT_EQ(ibv_dealloc_pd(pd), 0);
    EXPECT_EQ(ibv_close_device(context), 0);
  }

  static ibv_context* open(const std::string& name) {
    ibv_device** list = ibv_get_device_list(nullptr);
    ibv_context* opened = nullptr;
    for (ibv_device** d = list; d != nullptr && *d != nullptr; ++d) {
      if (name == ibv_get_device_name(*d)) opened = ibv_open_device(*d);
    }
    if (list != nullptr) ibv_free_device_list(list);
    return opened;
  }

  // Destroyed at the end of the test unless taken out of `qps`.
  ibv_qp* make_qp(const QpRequest& request) {
    ibv_qp_init_attr_ex attr{};
    attr.send_cq = request.cq != nullptr ? request.cq : cq;
    attr.recv_cq = attr.send_cq;
    attr.srq = request.srq;
    attr.qp_type = request.type;
    attr.cap = {.max_send_wr = request.depth,
                .max_recv_wr = request.depth,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = 64};
    attr.comp_mask = IBV_QP_INIT_ATTR_PD;
    attr.pd = pd;
    if (request.send_ops != 0) {
      attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
      attr.send_ops_flags = request.send_ops;
    }
    ibv_qp* qp = ibv_create_qp_ex(context, &attr);
    if (qp != nullptr) qps.push_back(qp);
    return qp;
  }

  void to_init(ibv_qp* qp) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qkey = kQkey;
    attr.qp_access_flags =
        IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
    const int last = qp->qp_type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
    ASSERT_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | last), 0);
  }
  void to_rtr(ibv_qp* qp, uint32_t peer) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    attr.dest_qp_num = peer;
    attr.max_dest_rd_atomic = 4;
    attr.min_rnr_timer = 1;
    attr.ah_attr.dlid = lid;
    attr.ah_attr.port_num = 1;
    int mask = IBV_QP_STATE;
    if (qp->qp_type != IBV_QPT_UD)
      mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
    if (qp->qp_type == IBV_QPT_RC) mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    ASSERT_EQ(ibv_modify_qp(qp, &attr, mask), 0);
  }
  void to_rts(ibv_qp* qp) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = 14;
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 4;
    int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
    if (qp->qp_type == IBV_QPT_RC) {
      mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    }
    ASSERT_EQ(ibv_modify_qp(qp, &attr, mask), 0);
  }
  void connect(ibv_qp* a, ibv_qp* b) {
    to_init(a);
    to_init(b);
    to_rtr(a, b->qp_num);
    to_rtr(b, a->qp_num);
    to_rts(a);
    to_rts(b);
  }

  ibv_sge sge(size_t offset, size_t length) const {
    return {reinterpret_cast<uintptr_t>(memory) + offset, static_cast<uint32_t>(length), mr->lkey};
  }
  int post_recv(ibv_qp* qp, uint64_t wr_id, ibv_sge where) {
    ibv_recv_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &where;
    wr.num_sge = 1;
    ibv_recv_wr* bad = nullptr;
    return ibv_post_recv(qp, &wr, &bad);
  }
  int post_send(ibv_qp* qp, uint64_t wr_id, ibv_sge what, unsigned int flags = IBV_SEND_SIGNALED) {
    ibv_send_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &what;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND;
    wr.send_flags = flags;
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp, &wr, &bad);
  }

  // The next `count` completions; fewer after ten seconds.
  static std::vector<ibv_wc> completions(ibv_cq* from, size_t count) {
    std::vector<ibv_wc> found;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (found.size() < count && std::chrono::steady_clock::now() < end) {
      ibv_wc wc;
      if (ibv_poll_cq(from, 1, &wc) == 1) {
        found.push_back(wc);
      } else {
        std::this_thread::yield();
      }
    }
    return found;
  }

  ibv_context* context = nullptr;
  ibv_pd* pd = nullptr;
  ibv_mr* mr = nullptr;
  ibv_cq* cq = nullptr;
  uint16_t lid = 0;
  std::vector<ibv_qp*> qps;
  alignas(64) uint8_t memory[64 * 1024] = {};
};

}  // namespace tbt::provider_live
