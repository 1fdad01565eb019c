// Completions, flushing and events as the engine makes them: numbers C-016, C-040 to C-049 and
// C-130 to C-137 of docs/conformance.md.
#include <set>

#include "pair.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

bool completion_event(Endpoint& endpoint) {
  bool found = false;
  Event event;
  while (endpoint.poll_event(event)) found |= event.kind == Event::Kind::kCompletion;
  return found;
}

TEST(Completions, OfADestroyedPairAreGoneAndThoseOfOthersStay) {
  Pair pair;
  for (uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(pair.b.post_recv(id, 0, 64).ok());
  QueuePair* const other = pair.b.qp;
  pair.b.create({}, 0x80021);  // on the same CQ
  QpAttr attr;
  attr.port_num = 1;
  attr.qp_state = QpState::kInit;
  ASSERT_TRUE(pair.b.endpoint
                  .modify_qp(pair.b.now, *pair.b.qp, attr,
                             kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags)
                  .ok());
  ASSERT_TRUE(pair.b.post_recv(50, 0, 64).ok());
  pair.b.modify(QpState::kErr);
  pair.post(WrOpcode::kSend, 1, 0, 8);
  pair.carry();
  ASSERT_EQ(pair.b.cq.queued(), 2u);
  pair.b.endpoint.destroy_qp(pair.b.now, *other);
  ASSERT_EQ(pair.b.cq.queued(), 1u);
  EXPECT_EQ(pair.b.completion().wr_id, 50u);
}

// man ibv_poll_cq: of a failed request only wr_id, status, qp_num and vendor_err mean anything. The
// opcode tells at least which queue it was in, for programs that sort by its high bit first.
TEST(Completions, AnErrorCarriesNothingOfEarlierSuccess) {
  Harness h;
  for (uint64_t id = 1; id <= 3; ++id) h.post_recv(id, 0, 16);
  auto good = h.from_peer(Opcode::kRcSendOnlyImm, kRqPsn);
  good.imm_be = 0xabcd;
  h.receive(good, bytes(8));
  EXPECT_EQ(h.expect_completion().imm_be, 0xabcdu);
  h.post(WrOpcode::kRdmaRead, 4, 0, 8);
  auto bad = h.from_peer(Opcode::kRcSendOnlyImm, kRqPsn + 1);
  bad.imm_be = 0x1234;
  h.receive(bad, bytes(17));
  for (uint64_t id : {2, 4, 3}) {
    const Wc wc = h.expect_completion(id == 2 ? WcStatus::kLocLen : WcStatus::kWrFlush);
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.qp_num, kLocalQpn);
    EXPECT_EQ(wc.opcode, id == 4 ? WcOpcode::kSend : WcOpcode::kRecv);
    EXPECT_EQ(wc.vendor_err != 0, id == 2);
    EXPECT_EQ(wc.byte_len + wc.imm_be + wc.src_qp + wc.flags + wc.slid + wc.sl, 0u) << id;
  }
}

TEST(Completions, AnUnsignaledRequestThatFailsIsReportedWithItsCause) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8, 0);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, 0x63);
  EXPECT_EQ(h.expect_completion(WcStatus::kRemOp).wr_id, 1u);
}

TEST(Completions, MissingPacketsThatUseUpTheRetriesAreToldFromSilence) {
  Harness h({.retry_cnt = 0, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, 0x60);  // NAK: PSN sequence error
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, uint32_t{kVendorPsnRetry});

  Harness lost({.retry_cnt = 0, .go_back_n = true});
  lost.post(WrOpcode::kSend, 1, 0, 8);
  lost.expect_packet(Opcode::kRcSendOnly);
  lost.pass(Duration::from_ms(5));
  EXPECT_EQ(lost.expect_completion(WcStatus::kRetryExc).vendor_err, uint32_t{kVendorRetryTimeout});
}

TEST(Notify, AnErrorCountsAsSolicited) {
  Harness h;
  h.cq.arm(/*solicited_only=*/true);
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn);
  h.expect_completion();
  EXPECT_FALSE(completion_event(*h.endpoint)) << "a success of the send queue never is";
  h.receive_ack(kSqPsn + 1, 0x62);
  h.expect_completion(WcStatus::kRemAccess);
  EXPECT_TRUE(completion_event(*h.endpoint));
}

TEST(Notify, WhatWasQueuedBeforeTheArmingGivesNoEvent) {
  Harness h;
  h.post_recv(1, 0, 64);
  h.post_recv(2, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.cq.arm(false);
  EXPECT_FALSE(completion_event(*h.endpoint));
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  EXPECT_TRUE(completion_event(*h.endpoint));
  EXPECT_FALSE(completion_event(*h.endpoint));
}

TEST(Notify, TheSolicitedBitIsOnTheLastPacketOfWhatTakesAReceive) {
  const uint32_t flags = kSendSignaled | kSendSolicited;
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 3 * kMtu, flags);
  EXPECT_FALSE(h.expect_packet(Opcode::kRcSendFirst).headers.solicited);
  EXPECT_FALSE(h.expect_packet(Opcode::kRcSendMiddle).headers.solicited);
  EXPECT_TRUE(h.expect_packet(Opcode::kRcSendLast).headers.solicited);
  h.post(WrOpcode::kRdmaWriteImm, 2, 0, 2 * kMtu, flags);
  EXPECT_FALSE(h.expect_packet(Opcode::kRcWriteFirst).headers.solicited);
  EXPECT_TRUE(h.expect_packet(Opcode::kRcWriteLastImm).headers.solicited);
  h.post(WrOpcode::kRdmaWrite, 3, 0, 2 * kMtu, flags);
  EXPECT_FALSE(h.expect_packet(Opcode::kRcWriteFirst).headers.solicited);
  EXPECT_FALSE(h.expect_packet(Opcode::kRcWriteLast).headers.solicited);
  h.post(WrOpcode::kRdmaRead, 4, 0, 8, flags);
  EXPECT_FALSE(h.expect_packet(Opcode::kRcReadRequest).headers.solicited);
}

TEST(Overflow, ABrokenQueueTakesNothingMoreAfterItWasPolled) {
  Harness h;
  for (int i = 0; i < 64; ++i) h.cq.push({}, {}, nullptr);
  h.post_recv(1, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  std::array<Wc, 64> out;
  EXPECT_EQ(h.cq.pop(out), 64u) << "what was there can still be read";
  h.post(WrOpcode::kSend, 2, 0, 8);  // is flushed: its completion must not follow a lost one
  h.post_recv(3, 0, 64);
  h.expect_no_completion();
  h.expect_event(AsyncEventType::kCqErr);
  EXPECT_EQ(h.endpoint->stats().cq_overflows, 3u);
}

TEST(Signaling, OneSignaledRequestInAsManyAsTheQueueHoldsIsEnough) {
  Pair pair;
  uint64_t id = 0;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 16; ++i) {
      pair.post(WrOpcode::kRdmaWrite, ++id, 0, 8, 0, i == 15 ? kSendSignaled : 0u);
      if (i % 5 == 0) pair.carry();
    }
    pair.carry();
    const Sge sge{pair.a.address(0), 8, pair.a.key};
    SendWr more;
    more.sg_list = &sge;
    more.num_sge = 1;
    EXPECT_EQ(pair.a.post(more).code(), ENOMEM) << "slots are given back by polling only";
    EXPECT_EQ(pair.a.completion().wr_id, id);
    ASSERT_EQ(pair.a.cq.queued(), 0u);
  }
}

TEST(Signaling, ByTheQueuePairEveryRequestIsSignaled) {
  Pair pair({.sq_sig_all = true});
  for (uint64_t id = 1; id <= 3; ++id) pair.post(WrOpcode::kRdmaWrite, id, 0, 8, 0, 0);
  pair.carry();
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(pair.a.completion().wr_id, id);
}

TEST(Srq, EmptyIsReceiverNotReady) {
  Harness h({.with_srq = true});
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kRnrNak);
  h.post_recv(1, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
}

// Posted = completed + still queued, for both queues, under random posts, packets, errors, resets
// and new lives.
class Conservation : public testing::Test {
 protected:
  void check(End& end, std::set<uint64_t>& mine) {
    Wc wc;
    while (end.cq.pop({&wc, 1}) == 1) {
      ASSERT_EQ(mine.erase(wc.wr_id), 1u) << "completed twice, or never posted: " << wc.wr_id;
    }
    uint64_t queued = end.qp->rq.posted() + (end.qp->resp.have_receive ? 1u : 0u) +
                      (end.qp->sq.tail - end.qp->sq.head);
    ASSERT_EQ(mine.size(), queued);
    if (end.qp->state == QpState::kErr) {
      ASSERT_EQ(queued, 0u) << "not flushed";
    }
  }
  void start_again() {
    for (End* end : {&pair.a, &pair.b}) {
      end->modify(QpState::kReset);
      open[end == &pair.a ? 0 : 1].clear();  // discarded without completions
    }
    pair.carry();
    pair.a.connect(setup, pair.b.qp->number, 128);
    pair.b.connect(setup, pair.a.qp->number, 64);
  }
  void post_send(uint64_t id, Rng& rng) {
    static constexpr WrOpcode kOpcodes[] = {WrOpcode::kSend, WrOpcode::kRdmaWrite,
                                            WrOpcode::kRdmaWriteImm, WrOpcode::kRdmaRead,
                                            WrOpcode::kFetchAdd};
    const WrOpcode opcode = kOpcodes[rng.below(5)];
    const uint32_t length = opcode == WrOpcode::kFetchAdd ? 8 : rng.below(700);
    const bool spoiled = rng.below(200) == 0;
    const Sge sge{pair.a.address(0), length, spoiled ? 1 : pair.a.key};
    SendWr wr;
    wr.wr_id = id;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.flags = kSendSignaled;
    wr.remote_addr = pair.b.address(1024);
    wr.rkey = rng.below(200) == 0 ? 1 : pair.b.key;
    if (pair.a.post(wr).ok()) open[0].insert(id);
  }

  PairSetup setup;
  Pair pair{setup};
  std::array<std::set<uint64_t>, 2> open;
};

TEST_F(Conservation, EveryRequestCompletesOnceOrIsStillQueued) {
  Rng rng(7);
  uint64_t id = 0;
  uint64_t lives = 0;
  for (int i = 0; i < 1000000; ++i) {
    ++id;
    switch (rng.below(8)) {
      case 0:
      case 1:
        post_send(id, rng);
        break;
      case 2:
      case 3:
        if (pair.b.post_recv(id, 4096, rng.below(30) == 0 ? 100 : 700).ok()) open[1].insert(id);
        break;
      case 4:
        pair.a.now = pair.b.now = pair.a.now + Duration::from_us(rng.below(2000));
        pair.a.endpoint.handle_timeout(pair.a.now);
        break;
      case 5:
        if (rng.below(500) == 0) (rng.below(2) == 0 ? pair.a : pair.b).modify(QpState::kErr);
        break;
      default:
        pair.carry(1 + rng.below(8));
    }
    check(pair.a, open[0]);
    check(pair.b, open[1]);
    if (HasFatalFailure()) FAIL() << "step " << i;
    const bool over = pair.a.qp->state == QpState::kErr || pair.b.qp->state == QpState::kErr;
    if (!over || rng.below(50) != 0) continue;
    start_again();
    ++lives;
  }
  EXPECT_GT(lives, 1000u);
  EXPECT_GT(pair.b.endpoint.stats().rx_packets, 100000u);
}

}  // namespace
}  // namespace tbt::engine
