// XRC: an initiator names the peer's SRQ in each request, a target serves many SRQs.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::NakCode;
using wire::Opcode;

Harness initiator() { return Harness({.type = QpType::kXrcSend}); }

struct Target : Harness {
  Target() : Harness({.type = QpType::kXrcRecv}) {}
  // Another SRQ of the endpoint.
  std::unique_ptr<verbs::SharedReceiveQueue> make_srq(uint32_t number, const verbs::XrcDomain& of,
                                                      verbs::CompletionQueue& to,
                                                      verbs::ProtectionDomain& in) {
    auto made = std::make_unique<verbs::SharedReceiveQueue>(&in, 16, 4, nullptr);
    made->number = number;
    made->xrcd = &of;
    made->cq = &to;
    endpoint->add_xrc_srq(*made);
    return made;
  }
  Status post_to(verbs::SharedReceiveQueue& queue, uint64_t wr_id, uint32_t offset,
                 uint32_t length = 64) {
    const Sge sge{address(offset), length, key};
    return endpoint->post_srq_recv(now, queue, {wr_id, &sge, 1});
  }
  void send(uint32_t psn, uint32_t srq_number, Opcode opcode = Opcode::kRcSendOnly,
            uint32_t length = 8) {
    auto headers = from_peer(opcode, psn);
    headers.srq_number = srq_number;
    receive(headers, bytes(length));
  }
  void expect_ack_of(uint32_t psn) {
    const Sent ack = expect_packet(Opcode::kRcAck);
    EXPECT_EQ(ack.headers.syndrome, 0x1f) << "an acknowledge, and no credits";
    EXPECT_EQ(ack.headers.psn, psn);
  }
  void expect_refused(NakCode code) {
    const Sent nak = expect_packet(Opcode::kRcAck);
    EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kNak);
    EXPECT_EQ(wire::aeth_value(nak.headers.syndrome), static_cast<uint8_t>(code));
    EXPECT_EQ(qp->state, QpState::kErr);
  }
};

SendWr request(const Harness& h, WrOpcode opcode, const Sge& sge, uint32_t srq_number) {
  SendWr wr;
  wr.wr_id = 1;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.flags = kSendSignaled;
  wr.remote_addr = h.address(0);
  wr.rkey = 0x77;
  wr.remote_qpn = srq_number;
  return wr;
}

TEST(XrcInitiator, NamesTheSrqInEveryPacketOfARequest) {
  Harness h = initiator();
  const Sge sge{h.address(0), 600, h.key};
  ASSERT_TRUE(h.try_post(request(h, WrOpcode::kSend, sge, 0x123456)).ok());
  for (const Opcode opcode : {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendLast})
    EXPECT_EQ(h.expect_packet(opcode).headers.srq_number, 0x123456u);
  h.receive_ack(kSqPsn + 2);
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kSend);
  ASSERT_TRUE(h.try_post(request(h, WrOpcode::kRdmaRead, sge, 9)).ok());
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadRequest).headers.srq_number, 9u);
  const Sge eight{h.address(0), 8, h.key};
  ASSERT_TRUE(h.try_post(request(h, WrOpcode::kFetchAdd, eight, 11)).ok());
  EXPECT_EQ(h.expect_packet(Opcode::kRcFetchAdd).headers.srq_number, 11u);
}

TEST(XrcInitiator, RepeatsWithTheSrqOfTheRequest) {
  Harness h = initiator();
  const Sge sge{h.address(0), 8, h.key};
  ASSERT_TRUE(h.try_post(request(h, WrOpcode::kSend, sge, 5)).ok());
  ASSERT_TRUE(h.try_post(request(h, WrOpcode::kRdmaWrite, sge, 6)).ok());
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_packet(Opcode::kRcWriteOnly);
  h.receive_ack(kSqPsn, 0x60);  // sequence NAK
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.srq_number, 5u);
  EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.srq_number, 6u);
}

TEST(XrcInitiator, ReceivesNothing) {
  Harness h = initiator();
  const Sge sge{h.address(0), 8, h.key};
  EXPECT_EQ(h.endpoint->post_recv(h.now, *h.qp, {1, &sge, 1}).code(), EINVAL);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_EQ(h.endpoint->stats().rx_wrong_service, 1u);
  h.expect_silence();
}

TEST(XrcInitiator, OperationsOnWindowsOfThePeerAndPlacementAreNotItsOwn) {
  Harness h = initiator();
  const Sge sge{h.address(0), 8, h.key};
  for (const WrOpcode opcode : {WrOpcode::kSendInv, WrOpcode::kAtomicWrite, WrOpcode::kFlush})
    EXPECT_EQ(h.try_post(request(h, opcode, sge, 5)).code(), EINVAL);
}

TEST(XrcTarget, SendsNothing) {
  Target h;
  const Sge sge{h.address(0), 8, h.key};
  for (const WrOpcode opcode : {WrOpcode::kSend, WrOpcode::kRdmaWrite, WrOpcode::kRdmaRead})
    EXPECT_EQ(h.try_post(request(h, opcode, sge, 5)).code(), EINVAL);
  EXPECT_EQ(h.endpoint->post_recv(h.now, *h.qp, {1, &sge, 1}).code(), EINVAL);
}

TEST(XrcTarget, EachMessageGoesToTheSrqThatItNames) {
  Target h;
  verbs::CompletionQueue other_cq{16, nullptr};
  auto other = h.make_srq(9, h.xrcd, other_cq, h.pd);
  h.post_recv(1, 0, 64);
  ASSERT_TRUE(h.post_to(*other, 2, 100).ok());
  h.send(kRqPsn, 9);
  h.send(kRqPsn + 1, kSrqNumber);
  h.expect_ack_of(kRqPsn + 1);
  Wc wc;
  ASSERT_EQ(other_cq.pop({&wc, 1}), 1u);
  EXPECT_EQ(wc.wr_id, 2u);
  EXPECT_EQ(wc.qp_num, kLocalQpn);
  EXPECT_EQ(h.memory[100], std::byte{1});
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.memory[0], std::byte{1});
}

TEST(XrcTarget, WhatIsKeptBehindAGapGoesToItsOwnSrq) {
  Target h;
  verbs::CompletionQueue other_cq{16, nullptr};
  auto other = h.make_srq(9, h.xrcd, other_cq, h.pd);
  h.post_recv(1, 0, 64);
  ASSERT_TRUE(h.post_to(*other, 2, 100).ok());
  h.send(kRqPsn + 1, 9);
  h.expect_packet(Opcode::kRcSack);
  h.send(kRqPsn, kSrqNumber);
  h.expect_ack_of(kRqPsn + 1);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  Wc wc;
  ASSERT_EQ(other_cq.pop({&wc, 1}), 1u);
  EXPECT_EQ(wc.wr_id, 2u);
}

TEST(XrcTarget, AnSrqThatIsNotThereOrOfAnotherDomainIsRefused) {
  Target unknown;
  unknown.send(kRqPsn, 12345);
  unknown.expect_refused(NakCode::kInvalidRequest);
  unknown.expect_event(AsyncEventType::kQpReqErr);
  Target foreign;
  verbs::XrcDomain another;
  auto srq = foreign.make_srq(9, another, foreign.cq, foreign.pd);
  ASSERT_TRUE(foreign.post_to(*srq, 1, 0).ok());
  foreign.send(kRqPsn, 9);
  foreign.expect_refused(NakCode::kInvalidRequest);
  EXPECT_EQ(srq->queue.posted(), 1u) << "its receive is untouched";
}

TEST(XrcTarget, AMessageMayNotChangeItsSrqMidway) {
  Target h;
  verbs::CompletionQueue other_cq{16, nullptr};
  auto other = h.make_srq(9, h.xrcd, other_cq, h.pd);
  h.post_recv(1, 0, 600);
  h.send(kRqPsn, kSrqNumber, Opcode::kRcSendFirst, kMtu);
  h.send(kRqPsn + 1, 9, Opcode::kRcSendLast);
  h.expect_refused(NakCode::kInvalidRequest);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 1u) << "where it was taken from";
  EXPECT_EQ(other_cq.queued(), 0u);
}

TEST(XrcTarget, AnEmptySrqIsReceiverNotReady) {
  Target h;
  h.send(kRqPsn, kSrqNumber);
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kRnrNak);
  h.post_recv(1, 0, 64);
  h.send(kRqPsn, kSrqNumber);
  h.expect_completion();
}

// The key is judged in the PD of the SRQ: the queue pair has none.
TEST(XrcTarget, MemoryIsOpenInThePdOfTheNamedSrqOnly) {
  Target h;
  auto other = h.make_srq(9, h.xrcd, h.cq, h.other_pd);
  auto write = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  write.dma_length = 8;
  h.receive(write, bytes(8, 5));
  EXPECT_EQ(h.memory[0], std::byte{5});
  h.expect_ack_of(kRqPsn);
  write.psn = kRqPsn + 1;
  write.srq_number = 9;
  h.receive(write, bytes(8, 6));
  EXPECT_EQ(h.memory[0], std::byte{5});
  h.expect_refused(NakCode::kRemoteAccessError);
}

TEST(XrcTarget, AReadIsAnsweredFromItsOwnPdWhateverComesAfterIt) {
  Target h;
  auto other = h.make_srq(9, h.xrcd, h.cq, h.other_pd);
  h.memory[300] = std::byte{0x42};
  auto read = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  read.va = h.address(300);
  read.dma_length = 8;
  h.receive(read);
  ASSERT_TRUE(h.post_to(*other, 1, 0, 0).ok());
  h.send(kRqPsn + 1, 9, Opcode::kRcSendOnly, 0);  // another SRQ, of another PD, is worn now
  const Sent answer = h.expect_packet(Opcode::kRcReadResponseOnly);
  ASSERT_EQ(answer.payload.size(), 8u);
  EXPECT_EQ(answer.payload[0], std::byte{0x42});
  h.expect_completion();
}

TEST(XrcTarget, AtomicsWork) {
  Target h;
  auto add = h.from_peer(Opcode::kRcFetchAdd, kRqPsn);
  add.swap_add = 5;
  h.receive(add);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 0u);
  EXPECT_EQ(h.memory[0], std::byte{5});
}

TEST(XrcTarget, ADestroyedSrqTakesNothingMore) {
  Target h;
  h.post_recv(1, 0, 64);
  h.send(kRqPsn, kSrqNumber);
  h.expect_completion();
  h.expect_ack_of(kRqPsn);
  ASSERT_TRUE(h.endpoint->remove_xrc_srq(*h.srq));
  h.send(kRqPsn, kSrqNumber);
  h.expect_ack_of(kRqPsn);  // a late copy is no reason to end
  h.send(kRqPsn + 1, kSrqNumber);
  h.expect_refused(NakCode::kInvalidRequest);
}

TEST(XrcTarget, AnSrqIsBusyWhileAMessageArrivesInIt) {
  Target h;
  h.post_recv(1, 0, 600);
  h.send(kRqPsn, kSrqNumber, Opcode::kRcSendFirst, kMtu);
  EXPECT_FALSE(h.endpoint->remove_xrc_srq(*h.srq));
  h.send(kRqPsn + 1, kSrqNumber, Opcode::kRcSendLast);
  EXPECT_TRUE(h.endpoint->remove_xrc_srq(*h.srq));
}

// Its PD may be gone by the time a READ through it is answered.
TEST(XrcTarget, AReadThroughADestroyedSrqIsRefused) {
  Target h;
  auto read = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  read.dma_length = 8;
  h.receive(read);
  ASSERT_TRUE(h.endpoint->remove_xrc_srq(*h.srq));
  h.expect_refused(NakCode::kRemoteAccessError);
}

TEST(XrcTarget, ABrokenCompletionQueueRefusesTheRequest) {
  Target h;
  for (int i = 0; i < 65; ++i) h.cq.push({}, {}, nullptr);
  h.post_recv(1, 0, 64);
  h.send(kRqPsn, kSrqNumber);
  h.expect_refused(NakCode::kRemoteOperationalError);
}

TEST(XrcTarget, ItsCompletionsGoWithIt) {
  Target h;
  h.post_recv(1, 0, 64);
  h.send(kRqPsn, kSrqNumber);
  ASSERT_EQ(h.cq.queued(), 1u);
  h.endpoint->destroy_qp(h.now, *h.qp);
  EXPECT_EQ(h.cq.queued(), 0u);
}

TEST(XrcTarget, NeedsADomain) {
  Target h;
  QpConfig config;
  config.number = kLocalQpn + 1;
  config.type = QpType::kXrcRecv;
  EXPECT_EQ(h.endpoint->create_qp(config).error().code(), EINVAL);
}

}  // namespace
}  // namespace tbt::engine
