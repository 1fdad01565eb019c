// States of a queue pair as the engine keeps them: numbers C-022 to C-034 of docs/conformance.md.
#include "pair.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

Status modify(Harness& h, QpState state, uint32_t mask = 0, QpAttr attr = {}) {
  attr.qp_state = state;
  return h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState | mask);
}

// ERR and SQE are not reached by a row of steps, so the harness cannot bring a pair there.
void bring_to(Harness& h, QpState state) {
  if (state == QpState::kSqe) {
    const Sge bad{h.address(0), 8, h.key + 1};
    SendWr wr;
    wr.sg_list = &bad;
    wr.num_sge = 1;
    ASSERT_TRUE(h.try_post(wr).ok());
    h.expect_silence();
  } else {
    ASSERT_TRUE(modify(h, state).ok());
  }
  ASSERT_EQ(h.qp->state, state);
}

TEST(States, ARefusedModifyChangesNoAttribute) {
  Harness h({.state = QpState::kRtr});
  QpAttr attr;
  attr.sq_psn = 77;
  attr.timeout = 31;
  attr.retry_cnt = 8;  // too large
  attr.rnr_retry = 7;
  attr.max_rd_atomic = 1;
  const uint32_t mask = kQpSqPsn | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic;
  EXPECT_EQ(modify(h, QpState::kRts, mask, attr).code(), EINVAL);
  attr.retry_cnt = 7;
  EXPECT_EQ(modify(h, QpState::kRts, mask | kQpQkey, attr).code(), EINVAL) << "not of RC";
  EXPECT_EQ(h.qp->state, QpState::kRtr);
  EXPECT_EQ(h.qp->attr.sq_psn, 0u);
  EXPECT_EQ(h.qp->attr.timeout, 0u);
  EXPECT_EQ(h.qp->attr.max_rd_atomic, 0u);
}

TEST(States, AnAddressThatNobodyHasChangesNothing) {
  Harness h({.state = QpState::kInit});
  h.route_exists = false;
  QpAttr attr;
  attr.path_mtu = 1;
  attr.dest_qpn = kPeerQpn;
  const uint32_t mask =
      kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic | kQpMinRnrTimer;
  EXPECT_EQ(modify(h, QpState::kRtr, mask, attr).code(), ENETUNREACH);
  EXPECT_EQ(h.qp->state, QpState::kInit);
  EXPECT_EQ(h.qp->attr.dest_qpn, 0u);
}

TEST(States, FirstPsnsAreCutTo24Bits) {
  Harness h({.sq_psn = 0xabfffffe});
  h.post(WrOpcode::kSend, 1, 0, 3 * kMtu);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendFirst).headers.psn, 0xfffffeu);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, 0xffffffu);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendLast).headers.psn, 0u);

  Harness other({.state = QpState::kInit});
  QpAttr attr;
  attr.path_mtu = 1;
  attr.dest_qpn = kPeerQpn;
  attr.rq_psn = 0xff000005;
  attr.av.dlid = kPeerLid;
  const uint32_t mask =
      kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic | kQpMinRnrTimer;
  ASSERT_TRUE(modify(other, QpState::kRtr, mask, attr).ok());
  other.post_recv(1, 0, 64);
  other.receive(other.from_peer(Opcode::kRcSendOnly, 5), bytes(8));
  other.expect_completion();
  EXPECT_EQ(other.qp->attr.rq_psn, 5u);
}

TEST(States, AReceiveIsTakenInEachStateButReset) {
  for (QpType type : {QpType::kRc, QpType::kUc, QpType::kUd}) {
    Harness reset({.type = type, .state = QpState::kReset});
    EXPECT_EQ(reset.endpoint->post_recv(reset.now, *reset.qp, {}).code(), EINVAL);
    for (QpState state : {QpState::kInit, QpState::kRtr, QpState::kRts}) {
      Harness h({.type = type, .state = state});
      EXPECT_TRUE(h.endpoint->post_recv(h.now, *h.qp, {}).ok()) << qp_state_name(state);
    }
    for (QpState state : {QpState::kSqd, QpState::kSqe, QpState::kErr}) {
      if (type != QpType::kUc && state == QpState::kSqe) continue;
      Harness h({.type = type, .uc_drop = true});
      bring_to(h, state);
      EXPECT_TRUE(h.endpoint->post_recv(h.now, *h.qp, {}).ok()) << qp_state_name(state);
    }
  }
}

TEST(States, ResponsesBeforeRtsAreDroppedAndCounted) {
  Harness h({.state = QpState::kRtr});
  h.receive_ack(kSqPsn);
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn), bytes(8));
  EXPECT_EQ(h.endpoint->stats().rx_wrong_state, 2u);
  EXPECT_EQ(h.qp->state, QpState::kRtr);
  h.expect_silence();
}

TEST(States, APeerThatWasNotReadyYetIsReachedByRepetition) {
  Pair pair;
  pair.b.modify(QpState::kReset);
  pair.post(WrOpcode::kSend, 1, 0, 8);
  pair.carry();
  EXPECT_EQ(pair.a.cq.queued(), 0u);
  pair.b.connect({}, pair.a.qp->number, 64);
  ASSERT_TRUE(pair.b.post_recv(2, 0, 64).ok());
  for (int i = 0; i < 20 && pair.a.cq.queued() == 0; ++i) {
    pair.a.now = pair.b.now = pair.a.now + Duration::from_ms(5);
    pair.a.endpoint.handle_timeout(pair.a.now);
    pair.carry();
  }
  EXPECT_EQ(pair.a.completion().status, WcStatus::kSuccess);
  EXPECT_EQ(pair.b.completion().wr_id, 2u);
}

// Whatever a life leaves behind, the next one begins from its own attributes.
TEST(States, AResetPairIsAsNewTenThousandTimes) {
  Pair pair;
  for (uint32_t life = 0; life < 10000; ++life) {
    ASSERT_TRUE(pair.b.post_recv(1, 0, 600).ok());
    pair.post(WrOpcode::kSend, 2, 0, 600);
    pair.post(WrOpcode::kRdmaRead, 3, 1024, 600, 2048);
    if (life % 3 != 0) pair.carry();
    if (life % 3 == 1) pair.b.modify(QpState::kErr);
    pair.a.modify(QpState::kReset);
    pair.b.modify(QpState::kReset);
    ASSERT_EQ(pair.a.cq.queued() + pair.b.cq.queued(), 0u) << "a completion survived";
    Event event;
    while (pair.b.endpoint.poll_event(event) || pair.a.endpoint.poll_event(event)) {
    }
    pair.a.connect({}, pair.b.qp->number, 128);
    pair.b.connect({}, pair.a.qp->number, 64);
    ASSERT_EQ(pair.carry(), 0u) << "a packet survived";
    ASSERT_EQ(pair.a.qp->req.next_psn, 0u);
    ASSERT_EQ(pair.b.qp->resp.expected_psn, 0u);
    ASSERT_EQ(pair.b.qp->resp.msn, 0u);
    ASSERT_EQ(pair.a.qp->req.answers_due, 0u);
  }
  ASSERT_TRUE(pair.b.post_recv(1, 0, 600).ok());
  pair.post(WrOpcode::kSend, 2, 0, 600);
  pair.carry();
  EXPECT_EQ(pair.a.completion().status, WcStatus::kSuccess);
  EXPECT_EQ(pair.b.completion().byte_len, 600u);
}

TEST(Sqd, SendsTheRestOfAMessageThatWasStartedAndNoMore) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 3 * kMtu);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendFirst);
  ASSERT_TRUE(modify(h, QpState::kSqd).ok());
  EXPECT_TRUE(h.qp->draining);
  h.expect_packet(Opcode::kRcSendMiddle);
  h.expect_packet(Opcode::kRcSendLast);
  h.expect_silence();
  h.receive_ack(kSqPsn + 2);
  h.expect_completion();
  EXPECT_FALSE(h.qp->draining);
  EXPECT_TRUE(h.events().empty()) << "not asked for";
  h.expect_silence();
  ASSERT_TRUE(modify(h, QpState::kRts).ok());
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn + 3);
}

TEST(Sqe, AUcSendErrorFlushesTheSendsAndLeavesTheReceives) {
  Harness h({.type = QpType::kUc, .uc_drop = true});
  h.post_recv(10, 0, 64);
  const Sge bad{h.address(0), 8, h.key + 1};
  SendWr wr;
  wr.wr_id = 1;
  wr.sg_list = &bad;
  wr.num_sge = 1;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.post(WrOpcode::kSend, 2, 0, 8, 0);
  h.expect_silence();
  EXPECT_EQ(h.qp->state, QpState::kSqe);
  EXPECT_EQ(h.expect_completion(WcStatus::kLocProt).wr_id, 1u);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 2u);
  h.post(WrOpcode::kSend, 3, 0, 8);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 3u);
  h.expect_no_completion();
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn), bytes(8, 5));
  EXPECT_EQ(h.expect_completion().wr_id, 10u);
  EXPECT_EQ(h.memory[0], std::byte{5});

  ASSERT_TRUE(modify(h, QpState::kRts).ok());
  h.post(WrOpcode::kSend, 4, 0, 8);
  EXPECT_EQ(h.expect_packet(Opcode::kUcSendOnly).headers.psn, kSqPsn);
  EXPECT_EQ(h.expect_completion().wr_id, 4u);
}

// The message that broke off has used the PSNs that it sent; the next one starts after them.
TEST(Sqe, AUcMessageThatBreaksOffMidwayDoesNotSpoilTheNext) {
  Harness h({.type = QpType::kUc, .uc_drop = true});
  const uint32_t key =
      h.endpoint->register_memory({0, 0, &h.pd, h.address(0), 8192, h.memory.data()})->key;
  const Sge sge{h.address(0), 4 * kMtu, key};
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.flags = kSendSignaled;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_packet(Opcode::kUcSendFirst);
  h.endpoint->regions().erase(key);
  h.expect_silence();
  h.expect_completion(WcStatus::kLocProt);
  ASSERT_EQ(h.qp->state, QpState::kSqe);
  ASSERT_TRUE(modify(h, QpState::kRts).ok());
  h.post(WrOpcode::kSend, 2, 0, 2 * kMtu);
  EXPECT_EQ(h.expect_packet(Opcode::kUcSendFirst).headers.psn, kSqPsn + 1);
  EXPECT_EQ(h.expect_packet(Opcode::kUcSendLast).headers.psn, kSqPsn + 2);
  EXPECT_EQ(h.expect_completion().wr_id, 2u);
}

TEST(Sqe, AUdSendErrorIsTheSame) {
  Harness h({.type = QpType::kUd});
  AddressHandle ah;
  ah.pd = &h.pd;
  ah.has_path = true;
  ah.path.slid = kLocalLid;
  ah.path.dlid = kPeerLid;
  auto send = [&](uint64_t wr_id, uint32_t key) {
    const Sge sge{h.address(0), 8, key};
    SendWr wr;
    wr.wr_id = wr_id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.flags = kSendSignaled;
    ASSERT_TRUE(h.try_post(wr, &ah).ok());
  };
  h.post_recv(10, 0, 64);
  send(1, h.key + 1);
  send(2, h.key);
  h.expect_silence();
  EXPECT_EQ(h.qp->state, QpState::kSqe);
  EXPECT_EQ(h.expect_completion(WcStatus::kLocProt).wr_id, 1u);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 2u);
  auto datagram = h.from_peer(Opcode::kUdSendOnly, 0);
  datagram.qkey = 0x1234;
  h.receive(datagram, bytes(8));
  EXPECT_EQ(h.expect_completion().wr_id, 10u);
  ASSERT_TRUE(modify(h, QpState::kRts).ok());
  send(3, h.key);
  h.expect_packet(Opcode::kUdSendOnly);
  EXPECT_EQ(h.expect_completion().wr_id, 3u);
}

TEST(Sqe, NoErrorBringsRcThere) {
  for (int kind = 0; kind < 5; ++kind) {
    Harness h({.retry_cnt = 0, .rnr_retry = 0});
    if (kind == 0) {
      bring_to(h, QpState::kErr);
    } else if (kind == 1) {
      const Sge bad{h.address(0), 8, h.key + 1};
      SendWr wr;
      wr.sg_list = &bad;
      wr.num_sge = 1;
      ASSERT_TRUE(h.try_post(wr).ok());
      h.expect_silence();
    } else {
      h.post(WrOpcode::kSend, 1, 0, 8);
      h.expect_packet(Opcode::kRcSendOnly);
      if (kind == 2) h.receive_ack(kSqPsn, 0x62);
      if (kind == 3) h.receive_ack(kSqPsn, 0x2c);
      if (kind == 4) h.pass(Duration::from_ms(5));
    }
    EXPECT_EQ(h.qp->state, QpState::kErr) << "kind " << kind;
  }
}

}  // namespace
}  // namespace tbt::engine
