// Requester and completer, one packet at a time.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

constexpr uint8_t kNakSequence = 0x60;
constexpr uint8_t kNakAccess = 0x62;
constexpr uint8_t kRnr = 0x2c;  // timer code 12: 0.64 ms

TEST(Requester, CutsAMessageAtTheMtu) {
  Harness h;
  for (uint32_t i = 0; i < 600; ++i) h.memory[i] = std::byte(i * 7);
  h.post(WrOpcode::kSend, 1, 0, 600);
  const Sent first = h.expect_packet(Opcode::kRcSendFirst);
  const Sent middle = h.expect_packet(Opcode::kRcSendMiddle);
  const Sent last = h.expect_packet(Opcode::kRcSendLast);
  h.expect_silence();
  EXPECT_EQ(first.headers.psn, kSqPsn);
  EXPECT_EQ(last.headers.psn, kSqPsn + 2);
  EXPECT_EQ(first.payload.size(), kMtu);
  EXPECT_EQ(last.payload.size(), 600 - 2 * kMtu);
  EXPECT_FALSE(middle.headers.ack_req);
  EXPECT_TRUE(last.headers.ack_req);
  EXPECT_EQ(std::memcmp(last.payload.data(), &h.memory[512], 88), 0);
}

TEST(Requester, CompletesOnAcknowledgeAndNotBefore) {
  Harness h;
  h.post(WrOpcode::kRdmaWrite, 9, 0, 300);
  const Sent first = h.expect_packet(Opcode::kRcWriteFirst);
  EXPECT_EQ(first.headers.va, 0x10000u);
  EXPECT_EQ(first.headers.dma_length, 300u);
  h.expect_packet(Opcode::kRcWriteLast);
  h.receive_ack(kSqPsn);
  h.expect_no_completion();
  h.receive_ack(kSqPsn + 1);
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.wr_id, 9u);
  EXPECT_EQ(wc.opcode, WcOpcode::kRdmaWrite);
}

TEST(Requester, OneAcknowledgeCoversMany) {
  Harness h;
  for (uint64_t i = 0; i < 4; ++i) h.post(WrOpcode::kSend, i, 0, 8);
  for (int i = 0; i < 4; ++i) h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 3);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(h.expect_completion().wr_id, i);
}

TEST(Requester, UnsignaledCompletesSilently) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8, 0);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 1);
  EXPECT_EQ(h.expect_completion().wr_id, 2u);
  h.expect_no_completion();
}

TEST(Requester, GoesBackOnASequenceNak) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 600);
  for (Opcode o : {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendLast})
    h.expect_packet(o);
  h.receive_ack(kSqPsn + 1, kNakSequence);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + 1);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendLast).headers.psn, kSqPsn + 2);
  h.receive_ack(kSqPsn + 2);
  h.expect_completion();
}

TEST(Requester, RepeatsOnTimeoutAndFailsAfterRetryCntOfThem) {
  Harness h({.go_back_n = true});  // retry_cnt 2, 4.2 ms
  h.post(WrOpcode::kSend, 5, 0, 8);
  h.post(WrOpcode::kSend, 6, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_packet(Opcode::kRcSendOnly);
  for (int i = 0; i < 2; ++i) {
    h.pass(Duration::from_us(4100));
    h.expect_silence();
    h.pass(Duration::from_us(100));
    h.expect_packet(Opcode::kRcSendOnly);
    h.expect_packet(Opcode::kRcSendOnly);
    h.expect_no_completion();
  }
  h.pass(Duration::from_us(4200));
  const Wc wc = h.expect_completion(WcStatus::kRetryExc);
  EXPECT_EQ(wc.wr_id, 5u);
  EXPECT_EQ(wc.vendor_err, kVendorRetryTimeout);
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 6u);
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

TEST(Requester, SevenRetriesAreSevenAndNotForEver) {
  Harness h({.retry_cnt = 7});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  for (int i = 0; i < 7; ++i) {
    h.pass(Duration::from_ms(5));
    h.expect_packet(Opcode::kRcSendOnly);
  }
  h.pass(Duration::from_ms(5));
  h.expect_completion(WcStatus::kRetryExc);
}

TEST(Requester, ProgressRestoresTheRetries) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 600);
  for (Opcode o : {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendLast})
    h.expect_packet(o);
  for (uint32_t i = 0; i < 3; ++i) {
    for (int k = 0; k < 2; ++k) {
      h.pass(Duration::from_ms(5));
      h.expect_packet(i == 0   ? Opcode::kRcSendFirst
                      : i == 1 ? Opcode::kRcSendMiddle
                               : Opcode::kRcSendLast);
      while (h.endpoint->has_transmit(0)) {
        TxPacket packet;
        if (!h.endpoint->poll_transmit(h.now, 0, packet)) break;
      }
    }
    h.receive_ack(kSqPsn + i);
  }
  h.expect_completion();
}

TEST(Requester, TimeoutZeroWaitsForEver) {
  Harness h({.timeout = 0, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  EXPECT_TRUE(h.endpoint->next_deadline().is_never());
}

TEST(Requester, WaitsOutAnRnrNakAndDoesNotCountItAsARetry) {
  Harness h({.retry_cnt = 0});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, kRnr);
  h.expect_silence();
  h.pass(Duration::from_us(600));
  h.expect_silence();
  h.pass(Duration::from_us(50));
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn);
  h.expect_completion();
}

TEST(Requester, FailsWhenRnrRetriesAreUsedUp) {
  Harness h;  // rnr_retry 1
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, kRnr);
  h.pass(Duration::from_ms(1));
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, kRnr);
  EXPECT_EQ(h.expect_completion(WcStatus::kRnrRetryExc).vendor_err, kVendorRnr);
}

TEST(Requester, RnrRetrySevenIsForEver) {
  Harness h({.rnr_retry = 7});
  h.post(WrOpcode::kSend, 1, 0, 8);
  for (int i = 0; i < 50; ++i) {
    h.expect_packet(Opcode::kRcSendOnly);
    h.receive_ack(kSqPsn, kRnr);
    h.pass(Duration::from_ms(1));
  }
  h.expect_no_completion();
}

TEST(Requester, GhostAcknowledgesAreIgnoredAndCounted) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 1);         // never sent
  h.receive_ack(kSqPsn - 5);         // long ago
  h.receive_ack(kSqPsn + 0x800000);  // the other half of the circle
  h.expect_no_completion();
  EXPECT_EQ(h.endpoint->stats().rx_ghost_acks, 3u);
  h.receive_ack(kSqPsn);
  h.expect_completion();
}

TEST(Requester, PsnsWrapAt24Bits) {
  Harness h({.sq_psn = 0xfffffe});
  h.post(WrOpcode::kSend, 1, 0, 4 * kMtu);
  uint32_t expected = 0xfffffe;
  for (Opcode o :
       {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendMiddle, Opcode::kRcSendLast}) {
    EXPECT_EQ(h.expect_packet(o).headers.psn, expected);
    expected = wire::psn_add(expected, 1);
  }
  h.receive_ack(1);
  h.expect_completion();
}

TEST(Requester, NakOfTheResponderIsTheStatus) {
  const struct {
    uint8_t syndrome;
    WcStatus status;
  } kCases[] = {{0x61, WcStatus::kRemInvReq},
                {kNakAccess, WcStatus::kRemAccess},
                {0x63, WcStatus::kRemOp},
                {0x65, WcStatus::kBadResp},
                {0x40, WcStatus::kBadResp}};
  for (const auto& c : kCases) {
    Harness h;
    h.post(WrOpcode::kRdmaWrite, 1, 0, 8);
    h.expect_packet(Opcode::kRcWriteOnly);
    h.receive_ack(kSqPsn, c.syndrome);
    EXPECT_NE(h.expect_completion(c.status).vendor_err, 0u);
    EXPECT_EQ(h.qp->state, QpState::kErr);
  }
}

TEST(Requester, ReadIsOneRequestAndScattersItsResponses) {
  Harness h;
  h.post(WrOpcode::kRdmaRead, 3, 1000, 600);
  const Sent request = h.expect_packet(Opcode::kRcReadRequest);
  EXPECT_EQ(request.headers.dma_length, 600u);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcReadResponseMiddle, kSqPsn + 1), bytes(kMtu, 50));
  h.expect_no_completion();
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 2), bytes(88, 99));
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.byte_len, 600u);
  EXPECT_EQ(h.memory[1000 + 2 * kMtu], std::byte{99});
}

TEST(Requester, AsksOnlyForTheMissingTailOfARead) {
  Harness h({.go_back_n = true});
  h.post(WrOpcode::kRdmaRead, 3, 0, 600);
  h.expect_packet(Opcode::kRcReadRequest);
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 2), bytes(88));  // the middle is lost
  const Sent again = h.expect_packet(Opcode::kRcReadRequest);
  EXPECT_EQ(again.headers.psn, kSqPsn + 1);
  EXPECT_EQ(again.headers.va, 0x10000u + kMtu);
  EXPECT_EQ(again.headers.dma_length, 600 - kMtu);
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn + 1), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 2), bytes(88));
  h.expect_completion();
}

TEST(Requester, AnAcknowledgePastAReadMeansItsResponseWasLost) {
  Harness h;
  h.post(WrOpcode::kRdmaRead, 1, 0, 8);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcReadRequest);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 1);
  h.expect_no_completion();
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadRequest).headers.psn, kSqPsn);
}

TEST(Requester, AReadResponseOfTheWrongLengthIsABadResponse) {
  Harness h;
  h.post(WrOpcode::kRdmaRead, 1, 0, 600);
  h.expect_packet(Opcode::kRcReadRequest);
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(100));
  h.expect_completion(WcStatus::kBadResp);
}

TEST(Requester, NeverMoreReadsOutThanMaxRdAtomic) {
  Harness h;  // 2
  for (uint64_t i = 0; i < 3; ++i) h.post(WrOpcode::kRdmaRead, i, 0, 8);
  h.expect_packet(Opcode::kRcReadRequest);
  h.expect_packet(Opcode::kRcReadRequest);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn), bytes(8));
  h.expect_packet(Opcode::kRcReadRequest);
}

TEST(Requester, AFenceWaitsForReadsButPlainSendsDoNot) {
  Harness h;
  h.post(WrOpcode::kRdmaRead, 1, 0, 8);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.post(WrOpcode::kSend, 3, 0, 8, kSendSignaled | kSendFence);
  h.expect_packet(Opcode::kRcReadRequest);
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn), bytes(8));
  h.expect_packet(Opcode::kRcSendOnly);
}

TEST(Requester, AtomicsBringTheOldValue) {
  Harness h;
  h.post(WrOpcode::kFetchAdd, 1, 64, 8);
  h.expect_packet(Opcode::kRcFetchAdd);
  auto answer = h.from_peer(Opcode::kRcAtomicAck, kSqPsn);
  answer.atomic_result = 0x1122334455667788;
  h.receive(answer);
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kFetchAdd);
  uint64_t value = 0;
  std::memcpy(&value, &h.memory[64], 8);
  EXPECT_EQ(value, 0x1122334455667788u);
}

TEST(Requester, CreditsHoldBackWhatTheReceiverCannotTake) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, /*one credit*/ 0x01, /*msn*/ 1);
  h.expect_completion();
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.post(WrOpcode::kSend, 3, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_silence();
  h.receive_ack(kSqPsn + 1, 0x02, 2);
  h.expect_packet(Opcode::kRcSendOnly);
}

TEST(Requester, WithoutCreditsASingleMessageStillProbes) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, 0x00, 1);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
}

TEST(Requester, SqdFinishesWhatWasStartedAndSaysSo) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  QpAttr attr;
  attr.qp_state = QpState::kSqd;
  attr.en_sqd_async_notify = true;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState | kQpEnSqdAsyncNotify).ok());
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_silence();
  attr.qp_state = QpState::kRts;
  EXPECT_EQ(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).code(), EINVAL) << "still draining";
  h.receive_ack(kSqPsn);
  h.expect_event(AsyncEventType::kSqDrained);
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn + 1);
}

}  // namespace
}  // namespace tbt::engine
