// Posting errors, local errors, flushing, overflow, and peers that go away.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

void to_error(Harness& h) {
  QpAttr attr;
  attr.qp_state = QpState::kErr;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
}

SendWr send_of(const Sge& sge, WrOpcode opcode, uint32_t flags = kSendSignaled) {
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.flags = flags;
  return wr;
}

TEST(Post, RefusesWhatTheQueuePairCannotDo) {
  Harness rc;
  const Sge sge{rc.address(0), 65, rc.key};
  EXPECT_EQ(rc.try_post(send_of(sge, WrOpcode::kSend, kSendInline)).code(), EINVAL)
      << "inline above the cap";
  EXPECT_EQ(rc.try_post(send_of(sge, WrOpcode::kRdmaRead, kSendInline)).code(), EINVAL);
  EXPECT_EQ(rc.try_post(send_of(sge, WrOpcode::kFetchAdd)).code(), EINVAL) << "not 8 bytes";
  const Sge word{rc.address(0), 8, rc.key};
  SendWr odd = send_of(word, WrOpcode::kFetchAdd);
  odd.remote_addr = 4;
  EXPECT_EQ(rc.try_post(odd).code(), EINVAL) << "remote address not aligned";
  Sge many[5] = {};
  SendWr wide = send_of(sge, WrOpcode::kSend);
  wide.sg_list = many;
  wide.num_sge = 5;
  EXPECT_EQ(rc.try_post(wide).code(), EINVAL);
  Harness uc({.type = QpType::kUc});
  EXPECT_EQ(uc.try_post(send_of(word, WrOpcode::kRdmaRead)).code(), EINVAL);
  Harness none({.rd_atomic = 0});
  EXPECT_EQ(none.try_post(send_of(word, WrOpcode::kRdmaRead)).code(), EINVAL) << "max_rd_atomic 0";
}

TEST(Post, StatesThatCannotSendSaySo) {
  for (QpState state : {QpState::kReset, QpState::kInit, QpState::kRtr}) {
    Harness h({.state = state});
    const Sge sge{h.address(0), 8, h.key};
    EXPECT_EQ(h.try_post(send_of(sge, WrOpcode::kSend)).code(), EINVAL) << qp_state_name(state);
  }
}

TEST(Post, AReceiveIsTakenInEveryStateButReset) {
  Harness reset({.state = QpState::kReset});
  EXPECT_EQ(reset.endpoint->post_recv(reset.now, *reset.qp, {}).code(), EINVAL);
  Harness init({.state = QpState::kInit});
  EXPECT_TRUE(init.endpoint->post_recv(init.now, *init.qp, {}).ok());
}

TEST(Post, AFullQueueIsEnomemUntilCompletionsArePolled) {
  Harness h;
  for (uint64_t i = 0; i < 16; ++i) h.post(WrOpcode::kSend, i, 0, 8);
  const Sge sge{h.address(0), 8, h.key};
  EXPECT_EQ(h.try_post(send_of(sge, WrOpcode::kSend)).code(), ENOMEM);
  for (int i = 0; i < 16; ++i) h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 15);
  EXPECT_EQ(h.try_post(send_of(sge, WrOpcode::kSend)).code(), ENOMEM);
  h.expect_completion();
  EXPECT_TRUE(h.try_post(send_of(sge, WrOpcode::kSend)).ok());
}

TEST(Post, InlineDataMayBeReusedAtOnce) {
  Harness h;
  h.memory[0] = std::byte{1};
  h.post(WrOpcode::kSend, 1, 0, 8, kSendInline);
  h.memory[0] = std::byte{2};
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).payload[0], std::byte{1});
}

TEST(LocalError, ABadSendKeyFailsItsOwnRequestAfterTheEarlierOnes) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  const Sge bad{h.address(0), 8, h.key + 1};
  SendWr wr = send_of(bad, WrOpcode::kSend);
  wr.wr_id = 2;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.post(WrOpcode::kSend, 3, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_silence();
  h.expect_no_completion();
  h.receive_ack(kSqPsn);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  const Wc failed = h.expect_completion(WcStatus::kLocProt);
  EXPECT_EQ(failed.wr_id, 2u);
  EXPECT_EQ(failed.vendor_err, kVendorLocalKey);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 3u);
}

TEST(LocalError, ReadIntoMemoryWithoutLocalWriteIsALocalFault) {
  Harness h;
  const uint32_t read_only =
      h.endpoint->register_memory({0, 0, &h.pd, h.address(0), 64, h.memory.data()})->key;
  const Sge sge{h.address(0), 8, read_only};
  ASSERT_TRUE(h.try_post(send_of(sge, WrOpcode::kRdmaRead)).ok());
  h.expect_silence();
  h.expect_completion(WcStatus::kLocProt);
}

TEST(LocalError, KeysOfAnotherDomainAreRefused) {
  Harness h;
  const uint32_t foreign =
      h.endpoint->register_memory({0, 0, &h.other_pd, h.address(0), 64, h.memory.data()})->key;
  const Sge sge{h.address(0), 8, foreign};
  ASSERT_TRUE(h.try_post(send_of(sge, WrOpcode::kSend)).ok());
  h.expect_silence();
  h.expect_completion(WcStatus::kLocProt);
}

TEST(Flush, EverythingOutstandingComesOutInOrder) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8, 0);  // unsignaled, and still reported
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.post_recv(10, 0, 8);
  h.post_recv(11, 0, 8);
  to_error(h);
  for (uint64_t id : {1, 2, 10, 11}) EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, id);
  h.post(WrOpcode::kSend, 3, 0, 8);
  h.post_recv(12, 0, 8);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 3u);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 12u);
}

TEST(Flush, SharedReceivesStayAndTheLastWqeEventComes) {
  Harness h({.with_srq = true});
  h.post_recv(10, 0, 8);
  to_error(h);
  h.expect_no_completion();
  EXPECT_EQ(h.srq->queue.posted(), 1u);
  h.expect_event(AsyncEventType::kQpLastWqeReached);
}

TEST(Flush, ResetDiscardsWithoutCompletions) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.post_recv(10, 0, 8);
  QpAttr attr;
  attr.qp_state = QpState::kReset;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  h.expect_no_completion();
  h.expect_silence();
  EXPECT_TRUE(h.qp->sq.empty());
}

TEST(Flush, AnErrorEntryCarriesNoStaleData) {
  Harness h;
  h.post_recv(10, 0, 8);
  to_error(h);
  const Wc wc = h.expect_completion(WcStatus::kWrFlush);
  EXPECT_EQ(wc.byte_len, 0u);
  EXPECT_EQ(wc.imm_be, 0u);
  EXPECT_EQ(wc.qp_num, kLocalQpn);
}

TEST(Overflow, TheQueueAndItsPairsFailOnce) {
  Harness h;
  for (int i = 0; i < 64; ++i) h.cq.push({}, {}, nullptr);
  h.post_recv(1, 0, 64);
  h.post_recv(2, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_TRUE(h.cq.overflowed());
  EXPECT_EQ(h.qp->state, QpState::kErr);
  h.expect_event(AsyncEventType::kCqErr);
}

TEST(Srq, LimitEventFiresOnceAndDisarms) {
  Harness h({.with_srq = true});
  h.srq->limit = 2;
  for (uint64_t i = 0; i < 3; ++i) h.post_recv(i, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_TRUE(h.events().empty());
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  h.expect_event(AsyncEventType::kSrqLimitReached);
  EXPECT_EQ(h.srq->limit, 0u);
}

TEST(PeerGone, ADeadProcessEndsItsConnectionsOnly) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.post_recv(10, 0, 8);
  const uint16_t lids[] = {kPeerLid};
  h.endpoint->handle_process_gone(h.now, {lids, 3, 0, 100});     // another slot
  h.endpoint->handle_process_gone(h.now, {lids, 2, 0x21, 100});  // other numbers
  EXPECT_EQ(h.qp->state, QpState::kRts);
  h.endpoint->handle_process_gone(h.now, {lids, 2, 0x3fff0, 0x31});  // modulo 2^18
  const Wc wc = h.expect_completion(WcStatus::kRetryExc);
  EXPECT_EQ(wc.vendor_err, kVendorPeerProcess);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 10u);
  h.expect_event(AsyncEventType::kQpFatal);
}

TEST(PeerGone, AHostThatCameBackHasNoneOfItsConnections) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.post_recv(10, 0, 8);
  const uint16_t others[] = {kLocalLid, kPeerLid + 1};
  h.endpoint->handle_host_gone(h.now, others);
  EXPECT_EQ(h.qp->state, QpState::kRts);
  const uint16_t lids[] = {kPeerLid - 1, kPeerLid};
  h.endpoint->handle_host_gone(h.now, lids);
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, kVendorPeerProcess);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 10u);
  h.expect_event(AsyncEventType::kQpFatal);
  h.endpoint->handle_host_gone(h.now, lids);
  EXPECT_TRUE(h.events().empty()) << "said once";
}

TEST(PeerGone, TheLastRouteGoneIsALinkError) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.route_exists = false;
  h.endpoint->handle_routes_changed(h.now);
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, kVendorLinkDown);
}

TEST(PeerGone, APeerThatIsOnlySilentIsWaitedForAsLongAsTheTimersSay) {
  Harness h({.retry_cnt = 1, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.route_exists = false;
  h.route_lasts = true;
  h.endpoint->handle_routes_changed(h.now);
  h.expect_no_completion();
  h.receive_ack(kSqPsn);  // it was on its way
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_us(4200));
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_us(4200));
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, kVendorRetryTimeout);
}

constexpr Duration kGrace = Options{}.farewell_grace;

wire::PacketHeaders farewell_of(const Harness& h, uint32_t from) {
  auto reset = h.from_peer(Opcode::kQpReset, 0);
  reset.src_qp = from;
  return reset;
}

TEST(PeerGone, AfterAFarewellWhatIsOutFailsWhenTheGraceIsOver) {
  Harness h({.timeout = 20});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive(farewell_of(h, kPeerQpn + 1));  // somebody else's
  h.pass(kGrace + Duration::from_ms(10));
  h.expect_no_completion();
  h.receive(farewell_of(h, kPeerQpn));
  h.pass(kGrace - Duration::from_ms(10));
  h.expect_no_completion();
  h.pass(Duration::from_ms(20));
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, kVendorPeerProcess);
}

TEST(PeerGone, AnAcknowledgeThatCameBeforeTheFarewellStillCounts) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn);
  h.receive(farewell_of(h, kPeerQpn));
  h.pass(kGrace * 2);
  h.expect_completion();
  h.expect_no_completion();
}

TEST(PeerGone, ASendAfterTheFarewellFailsAfterTheGrace) {
  Harness h;
  h.receive(farewell_of(h, kPeerQpn));
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(kGrace + Duration::from_ms(10));
  h.expect_completion(WcStatus::kRetryExc);
}

TEST(PeerGone, AProcessThatEndsAfterItsFarewellLeavesTheGraceToo) {
  Harness h;
  h.post_recv(10, 0, 8);
  h.receive(farewell_of(h, kPeerQpn));
  const uint16_t lids[] = {kPeerLid};
  h.endpoint->handle_process_gone(h.now, {lids, 2, 0, 100});
  h.expect_no_completion();
  h.pass(kGrace + Duration::from_ms(10));
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 10u);
  h.expect_event(AsyncEventType::kQpFatal);
}

TEST(PeerGone, AWaitingUcSenderFailsAfterTheFarewell) {
  Harness h({.type = QpType::kUc});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kUcCreditRequest);
  h.receive(farewell_of(h, kPeerQpn));
  h.pass(kGrace + Duration::from_ms(10));
  h.expect_completion(WcStatus::kRetryExc);
}

TEST(PeerGone, DestroyingAPairTellsThePeer) {
  Harness h;
  h.endpoint->destroy_qp(h.now, *h.qp);
  const Sent farewell = h.expect_packet(Opcode::kQpReset);
  EXPECT_EQ(farewell.headers.dest_qp, kPeerQpn);
  EXPECT_EQ(farewell.headers.src_qp, kLocalQpn);
}

}  // namespace
}  // namespace tbt::engine
