// UC in both modes, and UD.
#include <set>

#include "pair.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

wire::PacketHeaders credit(const Harness& h, uint32_t limit) {
  auto headers = h.from_peer(Opcode::kUcCredit, 0);
  headers.src_qp = kPeerQpn;
  headers.control = {limit, 0, kSqPsn};
  return headers;
}

TEST(UcWait, HoldsAMessageUntilTheReceiverHasRoom) {
  Harness h({.type = QpType::kUc});
  h.post(WrOpcode::kSend, 1, 0, 300);
  const Sent request = h.expect_packet(Opcode::kUcCreditRequest);
  EXPECT_EQ(request.headers.control[0], 0u);
  h.expect_silence();
  h.receive(credit(h, 1));
  h.expect_packet(Opcode::kUcSendFirst);
  h.expect_no_completion();
  h.expect_packet(Opcode::kUcSendLast);
  h.expect_completion();
}

TEST(UcWait, AsksAgainWhenNothingComesBack) {
  Harness h({.type = QpType::kUc});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kUcCreditRequest);
  h.pass(Duration::from_us(60));
  h.expect_packet(Opcode::kUcCreditRequest);
  h.expect_silence();
}

TEST(UcWait, CreditOfAnEarlierConnectionIsIgnored) {
  Harness h({.type = QpType::kUc});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kUcCreditRequest);
  auto stale = credit(h, 100);
  stale.control[2] = kSqPsn + 1;
  h.receive(stale);
  h.expect_silence();
}

TEST(UcWait, AnswersARequestAtOnceIfAReceiveIsPostedAndLaterIfNot) {
  Harness h({.type = QpType::kUc});
  auto request = h.from_peer(Opcode::kUcCreditRequest, 0);
  request.src_qp = kPeerQpn;
  request.control = {0, 0, kRqPsn};
  h.receive(request);
  h.expect_silence();
  h.post_recv(1, 0, 64);
  EXPECT_EQ(h.expect_packet(Opcode::kUcCredit).headers.control[0], 1u);
  h.receive(request);
  EXPECT_EQ(h.expect_packet(Opcode::kUcCredit).headers.control[0], 1u);
}

TEST(UcWait, ALostMessageDoesNotCostItsCredit) {
  Harness h({.type = QpType::kUc});
  h.post_recv(1, 0, 64);
  auto request = h.from_peer(Opcode::kUcCreditRequest, 0);
  request.src_qp = kPeerQpn;
  request.control = {5, 0, kRqPsn};  // five were sent, none came
  h.receive(request);
  EXPECT_EQ(h.expect_packet(Opcode::kUcCredit).headers.control[0], 6u);
}

// Pairs of a SRQ beside the one of the harness; all of them have been asked for credit.
class SharedUc : public testing::Test {
 protected:
  QueuePair* add(QpType type, verbs::SharedReceiveQueue& srq) {
    const QpConfig config{next_++, 0,     type, {4, 0, 1, 0, 0}, false, &h.pd,
                          &h.cq,   &h.cq, &srq, nullptr};
    QueuePair* qp = *h.endpoint->create_qp(config);
    QpAttr attr = h.qp->attr;
    attr.qp_state = QpState::kInit;
    modify(*qp, attr, kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags);
    attr.qp_state = QpState::kRtr;
    const uint32_t rc = type == QpType::kRc ? kQpMaxDestRdAtomic | kQpMinRnrTimer : 0u;
    modify(*qp, attr, kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | rc);
    if (type == QpType::kUc) ask(*qp);
    return qp;
  }
  void modify(QueuePair& qp, const QpAttr& attr, uint32_t mask) {
    ASSERT_TRUE(h.endpoint->modify_qp(h.now, qp, attr, mask).ok());
  }
  void ask(const QueuePair& qp) {
    auto request = h.from_peer(Opcode::kUcCreditRequest, 0);
    request.src_qp = kPeerQpn;
    request.dest_qp = qp.number;
    request.control = {0, 0, kRqPsn};
    h.receive(request);
  }
  // The pairs that tell of credit now.
  std::multiset<uint32_t> told() {
    std::multiset<uint32_t> numbers;
    TxPacket packet;
    while (h.endpoint->poll_transmit(h.now, 0, packet)) {
      if (packet.headers.opcode == static_cast<uint8_t>(Opcode::kUcCredit))
        numbers.insert(packet.headers.src_qp);
    }
    return numbers;
  }
  [[nodiscard]] std::multiset<uint32_t> listeners(const verbs::SharedReceiveQueue& srq) const {
    std::multiset<uint32_t> numbers;
    for (auto* at = srq.listeners; at != nullptr; at = at->srq_next)
      numbers.insert(static_cast<const QueuePair*>(at)->number);
    return numbers;
  }

  Harness h{{.type = QpType::kUc, .with_srq = true}};
  verbs::SharedReceiveQueue other{&h.pd, 16, 4, nullptr};

 private:
  uint32_t next_ = kLocalQpn + 1;
};

TEST_F(SharedUc, AReceiveIsOfferedByThePairsOfItsQueueOnly) {
  ask(*h.qp);
  QueuePair* const first = add(QpType::kUc, *h.srq);
  const QueuePair* const reliable = add(QpType::kRc, *h.srq);
  const QueuePair* const stranger = add(QpType::kUc, other);
  EXPECT_TRUE(told().empty()) << "nothing is posted";
  EXPECT_EQ(listeners(*h.srq), (std::multiset{h.qp->number, first->number}));
  EXPECT_EQ(listeners(other), (std::multiset{stranger->number}));
  h.post_recv(1, 0, 64);
  EXPECT_EQ(told(), (std::multiset{h.qp->number, first->number}));
  const Sge sge{h.address(0), 64, h.key};
  ASSERT_TRUE(h.endpoint->post_srq_recv(h.now, other, {2, &sge, 1}).ok());
  EXPECT_EQ(told(), (std::multiset{stranger->number}));
  EXPECT_EQ(reliable->srq_place, nullptr);
}

TEST_F(SharedUc, ADestroyedPairIsToldNothing) {
  std::multiset<uint32_t> living{h.qp->number};
  std::vector<QueuePair*> pairs;
  for (int i = 0; i < 5; ++i) pairs.push_back(add(QpType::kUc, *h.srq));
  for (QueuePair* qp : pairs) living.insert(qp->number);
  ask(*h.qp);
  for (const size_t gone : {2, 4, 0, 3, 1}) {  // from the middle and from both ends
    living.erase(pairs[gone]->number);
    h.endpoint->destroy_qp(h.now, *pairs[gone]);
    EXPECT_EQ(listeners(*h.srq), living);
    h.post_recv(gone, 0, 64);
    EXPECT_EQ(told(), living);
  }
}

TEST(UcWait, WritesNeedNoCredit) {
  Harness h({.type = QpType::kUc});
  h.post(WrOpcode::kRdmaWrite, 1, 0, 8);
  h.expect_packet(Opcode::kUcWriteOnly);
  h.expect_completion();
}

TEST(UcDrop, SendsAtOnce) {
  Harness h({.type = QpType::kUc, .uc_drop = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kUcSendOnly);
  h.expect_completion();
}

TEST(Uc, AGapLosesTheMessageAndTheNextStartResynchronises) {
  Harness h({.type = QpType::kUc});
  h.post_recv(1, 0, 4096);
  h.receive(h.from_peer(Opcode::kUcSendFirst, kRqPsn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kUcSendLast, kRqPsn + 2), bytes(8));
  h.expect_no_completion();
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn + 9), bytes(8, 77));
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.wr_id, 1u) << "the receive of the lost message is used again";
  EXPECT_EQ(wc.byte_len, 8u);
  EXPECT_EQ(h.memory[0], std::byte{77});
}

TEST(Uc, ARepeatedPacketIsNotDeliveredTwice) {
  Harness h({.type = QpType::kUc});
  h.post_recv(1, 0, 64);
  h.post_recv(2, 0, 64);
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn), bytes(8));
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn), bytes(8));
  h.expect_completion();
  h.expect_no_completion();
}

TEST(Uc, AWriteWithABadKeyIsDroppedSilently) {
  Harness h({.type = QpType::kUc});
  auto headers = h.from_peer(Opcode::kUcWriteOnly, kRqPsn);
  headers.rkey = h.key + 1;
  headers.dma_length = 8;
  h.receive(headers, bytes(8));
  EXPECT_EQ(h.memory[0], std::byte{0});
  EXPECT_EQ(h.qp->state, QpState::kRts);
  EXPECT_EQ(h.endpoint->stats().rx_uc_dropped, 1u);
}

TEST(Uc, AStrayCreditRequestIsAnsweredWithAResetButNotWithoutLimit) {
  Harness h({.type = QpType::kUc});
  auto request = h.from_peer(Opcode::kUcCreditRequest, 0);
  request.dest_qp = 0x50000;
  request.src_qp = kPeerQpn;
  for (int i = 0; i < 100; ++i) h.receive(request);
  int resets = 0;
  TxPacket packet;
  while (h.endpoint->poll_transmit(h.now, 0, packet)) ++resets;
  EXPECT_GT(resets, 0);
  EXPECT_LE(resets, 16);
}

struct UdTest : testing::Test {
  UdTest() : h({.type = QpType::kUd}) {
    ah.pd = &h.pd;
    ah.has_path = true;
    ah.path.slid = kLocalLid;
    ah.path.dlid = kPeerLid;
  }
  wire::PacketHeaders datagram(uint32_t qkey = 0x1234) {
    auto headers = h.from_peer(Opcode::kUdSendOnly, 0);
    headers.qkey = qkey;
    headers.src_qp = kPeerQpn;
    return headers;
  }
  Harness h;
  AddressHandle ah;
};

TEST_F(UdTest, SendsToTheAddressHandle) {
  const Sge sge{h.address(0), 8, h.key};
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.flags = kSendSignaled;
  wr.remote_qpn = 77;
  wr.remote_qkey = 0x80000000;
  EXPECT_EQ(h.try_post(wr, nullptr).code(), EINVAL);
  ASSERT_TRUE(h.try_post(wr, &ah).ok());
  const Sent sent = h.expect_packet(Opcode::kUdSendOnly);
  EXPECT_EQ(sent.headers.dest_qp, 77u);
  EXPECT_EQ(sent.headers.src_qp, kLocalQpn);
  EXPECT_EQ(sent.headers.qkey, 0x1234u) << "the queue pair's own, because the high bit was set";
  h.expect_completion();
}

TEST_F(UdTest, ADatagramAboveTheMtuIsRefused) {
  const Sge sge{h.address(0), 4097, h.key};
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  EXPECT_EQ(h.try_post(wr, &ah).code(), EINVAL);
}

TEST_F(UdTest, LeavesFortyBytesForTheGrh) {
  h.post_recv(1, 0, 128);
  h.receive(datagram(), bytes(8, 60));
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.byte_len, 48u);
  EXPECT_EQ(wc.src_qp, kPeerQpn);
  EXPECT_EQ(wc.slid, kPeerLid);
  EXPECT_EQ(wc.flags, 0u);
  EXPECT_EQ(h.memory[40], std::byte{60});
}

TEST_F(UdTest, TheGrhStandsAsOnTheWire) {
  h.post_recv(1, 0, 128);
  auto headers = datagram();
  headers.has_grh = true;
  headers.grh.hop_limit = 3;
  headers.grh.sgid.fill(0x11);
  headers.grh.dgid.fill(0x22);
  h.receive(headers, bytes(8));
  EXPECT_EQ(h.expect_completion().flags, uint32_t{kWcGrh});
  EXPECT_EQ(h.memory[0], std::byte{0x60});
  EXPECT_EQ(h.memory[6], std::byte{0x1b});
  EXPECT_EQ(h.memory[7], std::byte{3});
  EXPECT_EQ(h.memory[8], std::byte{0x11});
  EXPECT_EQ(h.memory[39], std::byte{0x22});
}

TEST_F(UdTest, WrongKeysMissingAndShortReceivesAreDroppedAndCounted) {
  h.receive(datagram(), bytes(8));
  h.post_recv(1, 0, 47);
  h.receive(datagram(0x999), bytes(8));
  h.receive(datagram(), bytes(8));
  h.expect_no_completion();
  EXPECT_EQ(h.endpoint->stats().rx_ud_no_receive, 1u);
  EXPECT_EQ(h.endpoint->stats().rx_bad_qkey, 1u);
  EXPECT_EQ(h.endpoint->stats().rx_ud_too_long, 1u);
  h.receive(datagram(), bytes(7));
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
}

TEST_F(UdTest, AReceiveWhoseKeyHasGoneEndsTheQueuePair) {
  h.post_recv(1, 0, 128);
  ASSERT_TRUE(h.endpoint->regions().erase(h.key));
  h.receive(datagram(), bytes(8));
  EXPECT_EQ(h.expect_completion(WcStatus::kLocProt).vendor_err, uint32_t{kVendorLocalKey});
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

TEST(UcReceive, OneWhoseKeyHasGoneFailsAndTheQueuePairWithIt) {
  Pair pair({.type = QpType::kUc});
  ASSERT_TRUE(pair.b.post_recv(1, 0, 64).ok());
  ASSERT_TRUE(pair.b.endpoint.regions().erase(pair.b.key));
  pair.post(WrOpcode::kSend, 2, 0, 64);
  pair.carry();
  const Wc wc = pair.b.completion();
  EXPECT_EQ(wc.status, WcStatus::kLocProt);
  EXPECT_EQ(wc.vendor_err, uint32_t{kVendorLocalKey});
  EXPECT_EQ(pair.b.qp->state, QpState::kErr);
  EXPECT_EQ(pair.a.completion().status, WcStatus::kSuccess) << "the sender of UC hears nothing";
}

TEST(Uc, AWriteOfSeveralPacketsLandsWhole) {
  Pair pair({.type = QpType::kUc});
  for (size_t i = 0; i < 700; ++i) pair.a.memory[i] = static_cast<std::byte>(i * 7 + 1);
  pair.post(WrOpcode::kRdmaWrite, 1, 0, 700, 1000);
  pair.carry();
  EXPECT_EQ(pair.a.completion().status, WcStatus::kSuccess);
  EXPECT_EQ(std::memcmp(pair.b.memory.data() + 1000, pair.a.memory.data(), 700), 0);
  EXPECT_EQ(pair.b.memory[999], std::byte{0});
  EXPECT_EQ(pair.b.memory[1700], std::byte{0});
}

// What has landed stays; the rest, and the completion of the immediate, do not come.
TEST(Uc, AWriteWhoseKeyGoesAwayMidwayIsDropped) {
  Pair pair({.type = QpType::kUc});
  std::fill_n(pair.a.memory.begin(), 700, std::byte{5});
  pair.post(WrOpcode::kRdmaWrite, 1, 0, 700, 1000);
  EXPECT_EQ(pair.carry(1), 1u);
  ASSERT_TRUE(pair.b.endpoint.regions().erase(pair.b.key));
  pair.carry();
  EXPECT_EQ(pair.b.memory[1000 + 255], std::byte{5});
  EXPECT_EQ(pair.b.memory[1000 + 256], std::byte{0});
  EXPECT_EQ(pair.b.endpoint.stats().rx_uc_dropped, 1u);
  EXPECT_EQ(pair.b.qp->state, QpState::kRts);
}

}  // namespace
}  // namespace tbt::engine
