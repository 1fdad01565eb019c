// Queue pairs: creation, state changes, and both post interfaces.
#include <array>
#include <vector>

#include "fixture.h"

namespace tbt::provider_test {
namespace {

using QpTest = QpFixture;

TEST_F(QpTest, CreationPassesTheCapacitiesAndReturnsTheGrantedOnes) {
  ibv_qp_init_attr attr{};
  attr.send_cq = cq;
  attr.recv_cq = cq;
  attr.qp_type = IBV_QPT_UC;
  attr.sq_sig_all = 1;
  attr.cap = {.max_send_wr = 5,
              .max_recv_wr = 6,
              .max_send_sge = 1,
              .max_recv_sge = 3,
              .max_inline_data = 8};
  ibv_qp* made = ibv_create_qp(pd, &attr);
  ASSERT_NE(made, nullptr);
  const QpOptions& options = control().qps.back();
  EXPECT_EQ(options.type, QpType::kUc);
  EXPECT_TRUE(options.sq_sig_all);
  EXPECT_EQ(options.cap.max_send_wr, 5u);
  EXPECT_EQ(options.cap.max_recv_sge, 3u);
  EXPECT_EQ(attr.cap.max_inline_data, 64u);
  EXPECT_EQ(made->state, IBV_QPS_RESET);
  EXPECT_EQ(made->qp_type, IBV_QPT_UC);
  EXPECT_EQ(made->context, context);
  EXPECT_EQ(ibv_destroy_qp(made), 0);
}

TEST_F(QpTest, KindsThatWeLackAreNotSupported) {
  errno = 0;
  EXPECT_EQ(make_qp(IBV_QPT_RAW_PACKET), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(make_qp(IBV_QPT_XRC_RECV), nullptr) << "a target is made of a domain, not of a PD";
}

TEST_F(QpTest, InitiatorsNameTheSrqOfTheirPeer) {
  ibv_qp* made = make_qp(IBV_QPT_XRC_SEND);
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(control().qps.back().type, QpType::kXrcSend);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.wr.rdma = {.remote_addr = 0x9000, .rkey = 5};
  wr.qp_type.xrc.remote_srqn = 0x55;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(made, &wr, &bad), 0);
  EXPECT_EQ(control().sends.back().wr.remote_qpn, 0x55u);
  EXPECT_EQ(control().sends.back().wr.remote_addr, 0x9000u);
  EXPECT_EQ(ibv_destroy_qp(made), 0);
}

TEST_F(QpTest, ModifyPassesAttributesAndMask) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = IBV_MTU_1024;
  attr.dest_qp_num = 0x123456;
  attr.rq_psn = 7;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.grh.sgid_index = 1;
  attr.ah_attr.port_num = 1;
  attr.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_RELAXED_ORDERING;
  ASSERT_EQ(ibv_modify_qp(qp, &attr, 0x101181), 0);
  EXPECT_EQ(control().modify_masks.back(), 0x101181u);
  const QpAttr& seen = control().modifies.back();
  EXPECT_EQ(seen.qp_state, QpState::kRtr);
  EXPECT_EQ(seen.path_mtu, 3);
  EXPECT_EQ(seen.dest_qpn, 0x123456u);
  EXPECT_EQ(seen.rq_psn, 7u);
  EXPECT_EQ(seen.av.sgid_index, 1);
  EXPECT_EQ(seen.access_flags, static_cast<uint32_t>(kAccessRemoteRead));
  EXPECT_EQ(qp->state, IBV_QPS_RTR);
}

TEST_F(QpTest, ModifyRefusesUnknownBitsAndStates) {
  ibv_qp_attr attr{};
  EXPECT_EQ(ibv_modify_qp(qp, &attr, IBV_QP_RATE_LIMIT), EINVAL);
  attr.qp_state = static_cast<ibv_qp_state>(99);
  EXPECT_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE), EINVAL);
  EXPECT_TRUE(control().modifies.empty());
}

TEST_F(QpTest, QueryReturnsStateAndWhatCreationWasGiven) {
  control().query_answer.qp_state = QpState::kErr;
  control().query_answer.sq_draining = true;
  control().query_answer.rnr_retry = 5;
  ibv_qp_attr attr;
  ibv_qp_init_attr init;
  ASSERT_EQ(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
  EXPECT_EQ(attr.qp_state, IBV_QPS_ERR);
  EXPECT_EQ(attr.sq_draining, 1);
  EXPECT_EQ(attr.rnr_retry, 5);
  EXPECT_EQ(qp->state, IBV_QPS_ERR);
  EXPECT_EQ(init.cap.max_send_wr, 32u);
  EXPECT_EQ(init.send_cq, cq);
}

// A chain of n sends; request i has wr_id i.
struct Chain {
  explicit Chain(size_t n) : wrs(n), sges(n) {
    for (size_t i = 0; i < n; ++i) {
      sges[i] = {0x1000 * i, 100, 9};
      wrs[i] = {};
      wrs[i].wr_id = i;
      wrs[i].next = i + 1 < n ? &wrs[i + 1] : nullptr;
      wrs[i].sg_list = &sges[i];
      wrs[i].num_sge = 1;
      wrs[i].opcode = IBV_WR_SEND;
    }
  }
  std::vector<ibv_send_wr> wrs;
  std::vector<ibv_sge> sges;
};

TEST_F(QpTest, AChainIsPostedInOrderAndInBatches) {
  Chain chain(21);
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(qp, chain.wrs.data(), &bad), 0);
  ASSERT_EQ(control().sends.size(), 21u);
  for (size_t i = 0; i < 21; ++i) {
    EXPECT_EQ(control().sends[i].wr.wr_id, i);
    EXPECT_EQ(control().sends[i].sges.at(0).addr, 0x1000 * i);
  }
  EXPECT_LT(control().send_batches.size(), 21u);
}

TEST_F(QpTest, TheFirstRefusedRequestIsNamed) {
  for (const size_t refused : {0u, 1u, 7u, 8u, 9u, 20u}) {
    control().sends.clear();
    control().refuse_send_at = refused;
    control().refuse_code = ENOMEM;
    Chain chain(21);
    ibv_send_wr* bad = nullptr;
    EXPECT_EQ(ibv_post_send(qp, chain.wrs.data(), &bad), ENOMEM);
    EXPECT_EQ(bad, &chain.wrs[refused]);
    EXPECT_EQ(control().sends.size(), refused);
  }
}

TEST_F(QpTest, AnOperationThatWeLackEndsTheChainThere) {
  for (const size_t wrong : {0u, 3u, 8u, 20u}) {
    control().sends.clear();
    Chain chain(21);
    chain.wrs[wrong].opcode = IBV_WR_TSO;
    ibv_send_wr* bad = nullptr;
    EXPECT_EQ(ibv_post_send(qp, chain.wrs.data(), &bad), EINVAL);
    EXPECT_EQ(bad, &chain.wrs[wrong]);
    EXPECT_EQ(control().sends.size(), wrong);
  }
}

TEST_F(QpTest, RemoteOperationsCarryTheirOperands) {
  Chain chain(2);
  chain.wrs[0].opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  chain.wrs[0].imm_data = 0x12345678;
  chain.wrs[0].wr.rdma = {.remote_addr = 0xabc0, .rkey = 77};
  chain.wrs[1].opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
  chain.wrs[1].send_flags = IBV_SEND_SIGNALED | IBV_SEND_FENCE;
  chain.wrs[1].wr.atomic = {.remote_addr = 0xdef8, .compare_add = 1, .swap = 2, .rkey = 78};
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(qp, chain.wrs.data(), &bad), 0);
  const SendWr& write = control().sends[0].wr;
  EXPECT_EQ(write.opcode, WrOpcode::kRdmaWriteImm);
  EXPECT_EQ(write.imm_be, 0x12345678u);
  EXPECT_EQ(write.remote_addr, 0xabc0u);
  EXPECT_EQ(write.rkey, 77u);
  const SendWr& swap = control().sends[1].wr;
  EXPECT_EQ(swap.opcode, WrOpcode::kCmpSwap);
  EXPECT_EQ(swap.flags, static_cast<uint32_t>(kSendSignaled | kSendFence));
  EXPECT_EQ(swap.remote_addr, 0xdef8u);
  EXPECT_EQ(swap.compare_add, 1u);
  EXPECT_EQ(swap.swap, 2u);
  EXPECT_EQ(swap.rkey, 78u);
}

TEST_F(QpTest, WindowAndInvalidationFieldsAreTranslated) {
  char memory[64];
  ibv_mr* mr = ibv_reg_mr_iova2(pd, memory, sizeof memory, 0, IBV_ACCESS_MW_BIND);
  ibv_mw* mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
  ASSERT_NE(mw, nullptr);
  ibv_sge garbage{};
  ibv_send_wr wrs[3] = {};
  wrs[0].opcode = IBV_WR_BIND_MW;
  wrs[0].sg_list = &garbage;  // not looked at
  wrs[0].num_sge = 1;
  wrs[0].bind_mw.mw = mw;
  wrs[0].bind_mw.rkey = ibv_inc_rkey(mw->rkey);
  wrs[0].bind_mw.bind_info = {mr, 0x1000, 32, IBV_ACCESS_REMOTE_READ};
  wrs[0].next = &wrs[1];
  wrs[1].opcode = IBV_WR_LOCAL_INV;
  wrs[1].invalidate_rkey = 5;
  wrs[1].next = &wrs[2];
  wrs[2].opcode = IBV_WR_SEND_WITH_INV;
  wrs[2].invalidate_rkey = 6;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(qp, wrs, &bad), 0);
  const SendWr& bind = control().sends[0].wr;
  EXPECT_EQ(bind.opcode, WrOpcode::kBindMw);
  EXPECT_EQ(bind.num_sge, 0u);
  EXPECT_EQ(bind.rkey, ibv_inc_rkey(mw->rkey));
  EXPECT_EQ(bind.imm_be, mr->lkey);
  EXPECT_EQ(bind.remote_addr, 0x1000u);
  EXPECT_EQ(bind.compare_add, 32u);
  EXPECT_EQ(bind.swap, static_cast<uint64_t>(IBV_ACCESS_REMOTE_READ));
  EXPECT_EQ(control().sends[1].wr.rkey, 5u);
  EXPECT_EQ(control().sends[2].wr.rkey, 6u);
  wrs[0].bind_mw.rkey = mw->rkey + 256;
  EXPECT_EQ(ibv_post_send(qp, wrs, &bad), EINVAL) << "the key of another window";
  EXPECT_EQ(bad, &wrs[0]);
  EXPECT_EQ(ibv_dealloc_mw(mw), 0);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

TEST_F(QpTest, AWindowOfType1IsBoundByItsOwnCallWithANewKey) {
  ibv_mw* mw = ibv_alloc_mw(pd, IBV_MW_TYPE_1);
  ASSERT_NE(mw, nullptr);
  const uint32_t before = mw->rkey;
  ibv_mw_bind bind{};
  bind.wr_id = 9;
  bind.send_flags = IBV_SEND_SIGNALED;
  bind.bind_info.mw_access_flags = IBV_ACCESS_ZERO_BASED;
  EXPECT_EQ(ibv_bind_mw(qp, mw, &bind), EINVAL);
  EXPECT_EQ(mw->rkey, before);
  bind.bind_info.mw_access_flags = IBV_ACCESS_REMOTE_READ;
  ASSERT_EQ(ibv_bind_mw(qp, mw, &bind), 0);
  EXPECT_EQ(mw->rkey, ibv_inc_rkey(before));
  EXPECT_EQ(control().sends.back().wr.rkey, mw->rkey);
  EXPECT_EQ(control().sends.back().wr.wr_id, 9u);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_BIND_MW;
  wr.bind_mw.mw = mw;
  wr.bind_mw.rkey = mw->rkey;
  ibv_send_wr* bad = nullptr;
  EXPECT_EQ(ibv_post_send(qp, &wr, &bad), EINVAL) << "by a work request only type 2 is bound";
  EXPECT_EQ(ibv_dealloc_mw(mw), 0);
}

TEST_F(QpTest, ReceivesWithoutBuffersAreTakenAndNegativeCountsAreNot) {
  ibv_recv_wr good{};
  ibv_recv_wr bad_wr{};
  bad_wr.num_sge = -1;
  good.wr_id = 4;
  good.next = &bad_wr;
  ibv_recv_wr* bad = nullptr;
  EXPECT_EQ(ibv_post_recv(qp, &good, &bad), EINVAL);
  EXPECT_EQ(bad, &bad_wr);
  ASSERT_EQ(control().recvs.size(), 1u);
  EXPECT_EQ(control().recvs[0].wr_id, 4u);
}

class ExtendedPostTest : public QpFixture {
 protected:
  void SetUp() override {
    QpFixture::SetUp();
    ex_base = make(IBV_QPT_RC, IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                                   IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD);
    ASSERT_NE(ex_base, nullptr);
    ex = ibv_qp_to_qp_ex(ex_base);
    ASSERT_NE(ex, nullptr);
  }
  void TearDown() override {
    EXPECT_EQ(ibv_destroy_qp(ex_base), 0);
    QpFixture::TearDown();
  }
  ibv_qp* make(ibv_qp_type type, uint64_t ops) {
    ibv_qp_init_attr_ex attr{};
    attr.send_cq = cq;
    attr.recv_cq = cq;
    attr.qp_type = type;
    attr.cap = {.max_send_wr = 4,
                .max_recv_wr = 4,
                .max_send_sge = 2,
                .max_recv_sge = 1,
                .max_inline_data = 16};
    attr.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.pd = pd;
    attr.send_ops_flags = ops;
    return ibv_create_qp_ex(context, &attr);
  }
  ibv_qp* ex_base = nullptr;
  ibv_qp_ex* ex = nullptr;
};

TEST_F(ExtendedPostTest, OnlyQpsMadeForItHaveTheInterface) {
  EXPECT_EQ(ibv_qp_to_qp_ex(qp), nullptr);
  errno = 0;
  EXPECT_EQ(make(IBV_QPT_UD, IBV_QP_EX_WITH_RDMA_READ), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(make(IBV_QPT_RC, IBV_QP_EX_WITH_TSO), nullptr);
  EXPECT_EQ(make(IBV_QPT_UC, IBV_QP_EX_WITH_SEND_WITH_INV), nullptr);
}

TEST_F(ExtendedPostTest, RequestsAreCollectedAndPostedAtOnce) {
  ibv_wr_start(ex);
  ex->wr_id = 11;
  ex->wr_flags = IBV_SEND_SIGNALED;
  ibv_wr_send(ex);
  ibv_wr_set_sge(ex, 5, 0x9000, 100);
  ex->wr_id = 12;
  ex->wr_flags = 0;
  ibv_wr_rdma_write_imm(ex, 6, 0xa000, 0x77);
  const ibv_sge list[2] = {{0x1, 2, 3}, {0x4, 5, 6}};
  ibv_wr_set_sge_list(ex, 2, list);
  ibv_wr_atomic_fetch_add(ex, 7, 0xb000, 42);
  EXPECT_TRUE(control().sends.empty());
  ASSERT_EQ(ibv_wr_complete(ex), 0);
  ASSERT_EQ(control().send_batches, std::vector<size_t>{3});
  const auto& sends = control().sends;
  EXPECT_EQ(sends[0].wr.wr_id, 11u);
  EXPECT_EQ(sends[0].wr.flags, static_cast<uint32_t>(kSendSignaled));
  EXPECT_EQ(sends[0].sges.at(0).addr, 0x9000u);
  EXPECT_EQ(sends[1].wr.opcode, WrOpcode::kRdmaWriteImm);
  EXPECT_EQ(sends[1].wr.imm_be, 0x77u);
  EXPECT_EQ(sends[1].wr.rkey, 6u);
  EXPECT_EQ(sends[1].sges.at(1).lkey, 6u);
  EXPECT_EQ(sends[2].wr.compare_add, 42u);
}

TEST_F(ExtendedPostTest, InlineDataIsCopiedWhenItIsSet) {
  std::array<char, 8> data{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
  const ibv_data_buf parts[2] = {{data.data(), 3}, {data.data() + 5, 3}};
  ibv_wr_start(ex);
  ibv_wr_send(ex);
  ibv_wr_set_inline_data(ex, data.data(), data.size());
  ibv_wr_send(ex);
  ibv_wr_set_inline_data_list(ex, 2, parts);
  data.fill('x');
  ASSERT_EQ(ibv_wr_complete(ex), 0);
  EXPECT_NE(control().sends[0].wr.flags & kSendInline, 0u);
  EXPECT_EQ(control().sends[0].inline_bytes,
            (std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}));
  EXPECT_EQ(control().sends[1].inline_bytes, (std::vector<uint8_t>{'a', 'b', 'c', 'f', 'g', 'h'}));
}

TEST_F(ExtendedPostTest, AnErrorWhileCollectingPostsNothing) {
  std::array<char, 100> too_long{};
  ibv_wr_start(ex);
  ibv_wr_send(ex);
  ibv_wr_set_inline_data(ex, too_long.data(), too_long.size());
  EXPECT_EQ(ibv_wr_complete(ex), EINVAL);
  ibv_wr_start(ex);
  for (int i = 0; i < 5; ++i) ibv_wr_send(ex);
  EXPECT_EQ(ibv_wr_complete(ex), ENOMEM);
  ibv_wr_start(ex);
  ibv_wr_set_sge(ex, 1, 2, 3);  // of no request
  EXPECT_EQ(ibv_wr_complete(ex), EINVAL);
  EXPECT_TRUE(control().sends.empty());
}

TEST_F(ExtendedPostTest, AbortForgetsTheBatch) {
  ibv_wr_start(ex);
  ibv_wr_send(ex);
  ibv_wr_abort(ex);
  ibv_wr_start(ex);
  EXPECT_EQ(ibv_wr_complete(ex), 0);
  EXPECT_TRUE(control().sends.empty());
}

TEST_F(ExtendedPostTest, ADatagramCarriesItsAddress) {
  ibv_qp* ud = make(IBV_QPT_UD, IBV_QP_EX_WITH_SEND);
  ASSERT_NE(ud, nullptr);
  ibv_ah_attr attr{};
  attr.port_num = 1;
  ibv_ah* ah = ibv_create_ah(pd, &attr);
  ibv_qp_ex* ud_ex = ibv_qp_to_qp_ex(ud);
  ibv_wr_start(ud_ex);
  ibv_wr_send(ud_ex);
  ibv_wr_set_ud_addr(ud_ex, ah, 0x99, 0x11111111);
  ASSERT_EQ(ibv_wr_complete(ud_ex), 0);
  const SendWr& wr = control().sends.back().wr;
  EXPECT_NE(wr.ah, nullptr);
  EXPECT_EQ(wr.remote_qpn, 0x99u);
  EXPECT_EQ(wr.remote_qkey, 0x11111111u);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
  EXPECT_EQ(ibv_destroy_qp(ud), 0);
}

TEST_F(QpTest, SharedReceiveQueuesHaveSizesALimitAndANumber) {
  ibv_srq_init_attr attr{};
  attr.attr = {.max_wr = 8, .max_sge = 2, .srq_limit = 0};
  ibv_srq* srq = ibv_create_srq(pd, &attr);
  ASSERT_NE(srq, nullptr);
  EXPECT_EQ(attr.attr.max_wr, 9u);
  ibv_srq_attr change{.max_wr = 0, .max_sge = 0, .srq_limit = 3};
  ASSERT_EQ(ibv_modify_srq(srq, &change, IBV_SRQ_LIMIT), 0);
  EXPECT_EQ(ibv_modify_srq(srq, &change, IBV_SRQ_MAX_WR), ENOSYS);
  EXPECT_EQ(ibv_modify_srq(srq, &change, 1 << 5), EINVAL);
  ibv_srq_attr now;
  ASSERT_EQ(ibv_query_srq(srq, &now), 0);
  EXPECT_EQ(now.srq_limit, 3u);
  uint32_t number = 0;
  ASSERT_EQ(ibv_get_srq_num(srq, &number), 0);
  EXPECT_EQ(number, 77u);
  ibv_recv_wr wr{};
  wr.wr_id = 6;
  ibv_recv_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_srq_recv(srq, &wr, &bad), 0);
  EXPECT_EQ(control().recvs.back().wr_id, 6u);
  EXPECT_EQ(ibv_destroy_srq(srq), 0);
  ibv_srq_init_attr_ex xrc{};
  xrc.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
  xrc.srq_type = IBV_SRQT_XRC;
  xrc.pd = pd;
  errno = 0;
  EXPECT_EQ(ibv_create_srq_ex(context, &xrc), nullptr);
  EXPECT_EQ(errno, EINVAL) << "without a domain and a completion queue";
  xrc.srq_type = IBV_SRQT_TM;
  EXPECT_EQ(ibv_create_srq_ex(context, &xrc), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
}

}  // namespace
}  // namespace tbt::provider_test
