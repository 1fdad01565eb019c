// Responder, one packet at a time: effect per (state x packet).
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::AethKind;
using wire::Opcode;

void expect_nak(Harness& h, uint8_t code, uint32_t psn) {
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), AethKind::kNak);
  EXPECT_EQ(wire::aeth_value(nak.headers.syndrome), code);
  EXPECT_EQ(nak.headers.psn, psn);
}

void expect_ack(Harness& h, uint32_t psn) {
  const Sent ack = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(ack.headers.syndrome), AethKind::kAck);
  EXPECT_EQ(ack.headers.psn, psn);
}

TEST(Responder, PlacesASendAndAcknowledges) {
  Harness h;
  h.post_recv(7, 100, 600);
  h.receive(h.from_peer(Opcode::kRcSendFirst, kRqPsn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcSendLast, kRqPsn + 1), bytes(44, 9));
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.wr_id, 7u);
  EXPECT_EQ(wc.byte_len, 300u);
  EXPECT_EQ(wc.opcode, WcOpcode::kRecv);
  EXPECT_EQ(h.memory[100 + kMtu], std::byte{9});
  expect_ack(h, kRqPsn + 1);
}

TEST(Responder, DuplicateSendIsAcknowledgedNotReapplied) {
  Harness h;
  h.post_recv(1, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.expect_completion();
  expect_ack(h, kRqPsn);
  h.memory[0] = std::byte{0};
  h.post_recv(2, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.expect_no_completion();
  EXPECT_EQ(h.memory[0], std::byte{0});
  expect_ack(h, kRqPsn);
}

TEST(Responder, OneNakPerGap) {
  Harness h({.go_back_n = true});
  for (uint64_t i = 0; i < 4; ++i) h.post_recv(i, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 2), bytes(8));
  expect_nak(h, 0, kRqPsn);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  expect_ack(h, kRqPsn);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 2), bytes(8));
  expect_nak(h, 0, kRqPsn + 1);
}

TEST(Responder, NoReceivePostedIsRnrOnceUntilThePeerComesAgain) {
  Harness h;
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), AethKind::kRnrNak);
  EXPECT_EQ(wire::aeth_value(nak.headers.syndrome), 12);
  h.expect_silence();
  h.post_recv(1, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.expect_completion();
}

TEST(Responder, AcknowledgesManyWithOne) {
  Harness h;
  for (uint64_t i = 0; i < 4; ++i) h.post_recv(i, 0, 64);
  for (uint32_t i = 0; i < 4; ++i)
    h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + i), bytes(8));
  const Sent ack = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(ack.headers.psn, kRqPsn + 3);
  EXPECT_EQ(ack.headers.msn, 4u);
  h.expect_silence();
}

TEST(Responder, ReportsCreditsOfItsReceiveQueue) {
  Harness h;
  for (uint64_t i = 0; i < 6; ++i) h.post_recv(i, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_EQ(wire::aeth_value(h.expect_packet(Opcode::kRcAck).headers.syndrome),
            4);  // 5 posted: code of 4
}

TEST(Responder, WriteNeedsNoReceiveAndMakesNoCompletion) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  headers.va = h.address(32);
  headers.dma_length = 8;
  h.receive(headers, bytes(8, 40));
  EXPECT_EQ(h.memory[32], std::byte{40});
  h.expect_no_completion();
  expect_ack(h, kRqPsn);
}

TEST(Responder, WriteWithImmediateConsumesOneReceive) {
  Harness h;
  h.post_recv(5, 0, 0);
  auto headers = h.from_peer(Opcode::kRcWriteOnlyImm, kRqPsn);
  headers.va = h.address(32);
  headers.dma_length = 8;
  headers.imm_be = 0xabcd;
  h.receive(headers, bytes(8));
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.opcode, WcOpcode::kRecvRdmaImm);
  EXPECT_EQ(wc.byte_len, 8u);
  EXPECT_EQ(wc.imm_be, 0xabcdu);
  EXPECT_EQ(wc.flags, uint32_t{kWcWithImm});
}

TEST(Responder, AWriteThatEndsOutsideItsRegionPlacesNoByte) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcWriteFirst, kRqPsn);
  headers.va = h.address(static_cast<uint32_t>(h.memory.size()) - 300);
  headers.dma_length = 301;
  h.receive(headers, bytes(kMtu));
  EXPECT_EQ(h.memory[h.memory.size() - 300], std::byte{0});
  expect_nak(h, 2, kRqPsn);
  EXPECT_EQ(h.qp->state, QpState::kErr);
  h.expect_event(AsyncEventType::kQpAccessErr);
}

TEST(Responder, ZeroLengthWriteIgnoresTheKey) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  headers.rkey = 1;
  h.receive(headers);
  expect_ack(h, kRqPsn);
}

TEST(Responder, RightsOfTheQueuePairComeFirst) {
  Harness h({.access = kAccessLocalWrite});
  auto headers = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  headers.dma_length = 8;
  h.receive(headers, bytes(8));
  expect_nak(h, 1, kRqPsn);
  h.expect_event(AsyncEventType::kQpReqErr);
}

TEST(Responder, OpcodeOutOfOrderIsAnInvalidRequest) {
  for (Opcode opcode : {Opcode::kRcSendMiddle, Opcode::kRcSendLast, Opcode::kRcWriteLast}) {
    Harness h;
    h.post_recv(1, 0, 4096);
    h.receive(h.from_peer(opcode, kRqPsn), bytes(kMtu));
    expect_nak(h, 1, kRqPsn);
    h.expect_completion(WcStatus::kWrFlush);
  }
}

TEST(Responder, AFirstInsideAMessageIsAnInvalidRequest) {
  Harness h;
  h.post_recv(1, 0, 4096);
  h.receive(h.from_peer(Opcode::kRcSendFirst, kRqPsn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  expect_nak(h, 1, kRqPsn + 1);
}

TEST(Responder, LengthsThatDoNotFitTheOpcodeAreRefused) {
  const struct {
    Opcode opcode;
    uint32_t bytes;
  } kCases[] = {{Opcode::kRcSendFirst, kMtu - 4}, {Opcode::kRcSendOnly, kMtu + 4}};
  for (const auto& c : kCases) {
    Harness h;
    h.post_recv(1, 0, 4096);
    h.receive(h.from_peer(c.opcode, kRqPsn), bytes(c.bytes));
    expect_nak(h, 1, kRqPsn);
  }
}

TEST(Responder, AMessageLargerThanItsReceiveFailsBothSides) {
  Harness h;
  h.post_recv(3, 0, 16);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(17));
  EXPECT_EQ(h.expect_completion(WcStatus::kLocLen).wr_id, 3u);
  expect_nak(h, 1, kRqPsn);
}

TEST(Responder, ABadReceiveKeyIsItsOwnFault) {
  Harness h;
  const Sge sge{h.address(0), 64, h.key + 1};
  ASSERT_TRUE(h.endpoint->post_recv(h.now, *h.qp, {4, &sge, 1}).ok());
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_EQ(h.expect_completion(WcStatus::kLocProt).vendor_err, kVendorLocalKey);
  expect_nak(h, 3, kRqPsn);
}

TEST(Responder, ReadResponsesCarryTheMemoryInOrder) {
  Harness h;
  for (uint32_t i = 0; i < 600; ++i) h.memory[i] = std::byte(i);
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 600;
  h.receive(headers);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseFirst).payload[1], std::byte{1});
  h.expect_packet(Opcode::kRcReadResponseMiddle);
  const Sent last = h.expect_packet(Opcode::kRcReadResponseLast);
  EXPECT_EQ(last.payload.size(), 88u);
  EXPECT_EQ(last.headers.psn, kRqPsn + 2);
  h.expect_silence();
}

TEST(Responder, ARepeatedReadIsAnsweredFromWhereItAsks) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 600;
  h.receive(headers);
  for (int i = 0; i < 3; ++i) {
    TxPacket packet;
    ASSERT_TRUE(h.endpoint->poll_transmit(h.now, 0, packet));
  }
  headers.psn = kRqPsn + 1;
  headers.va += kMtu;
  headers.dma_length -= kMtu;
  h.receive(headers);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseFirst).headers.psn, kRqPsn + 1);
  h.expect_packet(Opcode::kRcReadResponseLast);
  headers.va += 1;  // not the request that was made
  h.receive(headers);
  h.expect_silence();
}

TEST(Responder, APartOfAReadIsRepeatedAlone) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 4 * kMtu;
  h.receive(headers);
  h.expect_packet(Opcode::kRcReadResponseFirst);
  for (int i = 0; i < 2; ++i) h.expect_packet(Opcode::kRcReadResponseMiddle);
  h.expect_packet(Opcode::kRcReadResponseLast);
  headers.psn = kRqPsn + 1;
  headers.va += kMtu;
  headers.dma_length = kMtu;
  h.receive(headers);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseOnly).headers.psn, kRqPsn + 1);
  h.expect_silence();
  headers.dma_length = kMtu + 1;  // ends within a packet
  h.receive(headers);
  headers.dma_length = 4 * kMtu;  // ends outside
  h.receive(headers);
  h.expect_silence();
}

// Only the last response of what was expected last says what an acknowledge would.
TEST(Responder, APartOfAReadDoesNotStandForAnAcknowledge) {
  Harness h;
  h.post_recv(7, 100, 64);
  auto send = h.from_peer(Opcode::kRcSendOnly, kRqPsn);
  h.receive(send, bytes(8));
  auto read = h.from_peer(Opcode::kRcReadRequest, kRqPsn + 1);
  read.dma_length = 2 * kMtu;
  h.receive(read);
  h.expect_packet(Opcode::kRcReadResponseFirst);
  h.expect_packet(Opcode::kRcReadResponseLast);
  h.expect_silence();
  h.receive(send, bytes(8));  // its acknowledge is owed once more
  read.dma_length = kMtu;
  h.receive(read);
  h.expect_packet(Opcode::kRcReadResponseOnly);
  expect_ack(h, kRqPsn + 2);
}

// The requester had all it asked for before the repetition came: it goes on, and is not refused.
TEST(Responder, ANewReadTakesThePlaceOfARepetitionThatWasNotSentYet) {
  Harness h({.rd_atomic = 1});
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 8;
  for (uint32_t i = 0; i < kAnswersPerAgreed; ++i) {
    headers.psn = kRqPsn + i;
    h.receive(headers);
    h.expect_packet(Opcode::kRcReadResponseOnly);
  }
  headers.psn = kRqPsn;
  h.receive(headers);
  headers.psn = kRqPsn + kAnswersPerAgreed;
  h.receive(headers);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseOnly).headers.psn, kRqPsn + kAnswersPerAgreed);
  h.expect_silence();
}

// The oldest of two repetitions gives up its place; the other one still comes before the new READ.
TEST(Responder, RepetitionsAndNewReadsAreAnsweredInOrder) {
  Harness h({.rd_atomic = 1});
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 8;
  for (uint32_t i = 0; i < kAnswersPerAgreed; ++i) {
    headers.psn = kRqPsn + i;
    h.receive(headers);
    h.expect_packet(Opcode::kRcReadResponseOnly);
  }
  for (uint32_t psn : {kRqPsn, kRqPsn + 1, kRqPsn + kAnswersPerAgreed}) {
    headers.psn = psn;
    h.receive(headers);
  }
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseOnly).headers.psn, kRqPsn + 1);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseOnly).headers.psn, kRqPsn + kAnswersPerAgreed);
  h.expect_silence();
}

// More were allowed after the ring was made for none: refused, as there is nothing to keep them in.
TEST(Responder, ReadsAllowedTooLateAreRefused) {
  Harness h({.rd_atomic = 0});
  h.qp->attr.max_dest_rd_atomic = 4;
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 8;
  h.receive(headers);
  expect_nak(h, 1, kRqPsn);
}

TEST(Responder, ARepeatedAtomicReturnsTheSavedResult) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcFetchAdd, kRqPsn);
  headers.swap_add = 5;
  h.receive(headers);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 0u);
  h.receive(headers);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 0u);
  EXPECT_EQ(h.memory[0], std::byte{5}) << "executed once";
}

TEST(Responder, AtomicsMustBeAligned) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcFetchAdd, kRqPsn);
  headers.va += 4;
  h.receive(headers);
  expect_nak(h, 1, kRqPsn);
}

TEST(Responder, MoreReadsThanAgreedAreRefused) {
  Harness h;  // 2
  for (uint32_t i = 0; i < 3; ++i) {
    auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn + i);
    headers.dma_length = 8;
    h.receive(headers);
  }
  h.expect_packet(Opcode::kRcReadResponseOnly);
  h.expect_packet(Opcode::kRcReadResponseOnly);
  expect_nak(h, 1, kRqPsn + 2);
}

TEST(Responder, AReadWhoseRegionGoesAwayIsRefusedMidway) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 600;
  h.receive(headers);
  h.expect_packet(Opcode::kRcReadResponseFirst);
  h.endpoint->regions().erase(h.key);
  expect_nak(h, 2, kRqPsn + 1);
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

// A copy of the request may come late, long after its peer has seen the answer and the key was
// given up for good reason.
TEST(Responder, ALateCopyOfAReadWhoseKeyIsGoneEndsNothing) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  headers.dma_length = 8;
  const uint32_t key = h.key;
  h.receive(headers);
  h.expect_packet(Opcode::kRcReadResponseOnly);
  verbs::MemoryRegion region = *h.endpoint->regions().find(key);
  h.key = h.endpoint->register_memory(region)->key;
  h.post_recv(1, 0, 64);
  h.endpoint->regions().erase(key);
  h.receive(headers);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  expect_nak(h, 2, kRqPsn);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn + 1) << "taken after it";
  h.expect_silence();
  h.expect_completion();
  EXPECT_TRUE(h.events().empty());
  EXPECT_EQ(h.qp->state, QpState::kRts);
}

// Its loss must not hide the cause behind a time-out.
TEST(Responder, TheNakThatEndedTheConnectionIsSaidAgainToWhoComesAgain) {
  Harness h;
  auto headers = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  headers.rkey = h.key + 1;
  headers.va = h.address(0);
  headers.dma_length = 8;
  h.receive(headers, bytes(8));
  expect_nak(h, 2, kRqPsn);  // lost
  EXPECT_EQ(h.events().size(), 1u);
  for (int repetition = 0; repetition < 2; ++repetition) {
    h.receive(headers, bytes(8));
    h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
    expect_nak(h, 2, kRqPsn);
    h.expect_silence();
  }
  EXPECT_TRUE(h.events().empty());
  auto stranger = headers;
  stranger.slid = 999;
  h.receive(stranger, bytes(8));
  h.expect_silence();
}

TEST(Responder, AQueuePairThatTheApplicationEndedSaysNothing) {
  Harness h;
  QpAttr attr;
  attr.qp_state = QpState::kErr;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.expect_silence();
}

TEST(Responder, StrangersAndWrongServicesAreDroppedAndCounted) {
  Harness h;
  auto stranger = h.from_peer(Opcode::kRcSendOnly, kRqPsn);
  stranger.slid = 999;
  h.receive(stranger, bytes(8));
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn), bytes(8));
  auto lost = h.from_peer(Opcode::kRcSendOnly, kRqPsn);
  lost.dest_qp = 0x50000;
  h.receive(lost, bytes(8));
  h.expect_silence();
  EXPECT_EQ(h.qp->state, QpState::kRts);
  EXPECT_EQ(h.endpoint->stats().rx_wrong_peer, 1u);
  EXPECT_EQ(h.endpoint->stats().rx_wrong_service, 1u);
  EXPECT_EQ(h.endpoint->stats().rx_unknown_qp, 1u);
}

TEST(Responder_Rtr, FirstPacketRaisesCommEstablishedOnce) {
  Harness h({.state = QpState::kRtr});
  h.post_recv(1, 0, 64);
  h.post_recv(2, 0, 64);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8));
  h.expect_event(AsyncEventType::kCommEst);
}

TEST(Responder_Init, RequestsAreSilentlyDropped) {
  Harness h({.state = QpState::kInit});
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.expect_silence();
}

TEST(Responder_Err, RequestsAreSilentlyDropped) {
  Harness h;
  QpAttr attr;
  attr.qp_state = QpState::kErr;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  h.expect_silence();
}

}  // namespace
}  // namespace tbt::engine
