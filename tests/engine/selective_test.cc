// Selective repeat: what comes after a gap is kept, and only what is missing is sent again.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

// What a SACK of the peer says: everything up to `psn`, and the packets of `bits` from psn + 2 on.
void receive_sack(Harness& h, uint32_t psn, uint32_t bits) {
  wire::PacketHeaders sack = h.from_peer(Opcode::kRcSack, psn);
  sack.src_qp = kPeerQpn;
  sack.syndrome = 0x1f;
  sack.control = {bits, 0, 0};
  h.receive(sack);
}

void send_five_packets(Harness& h) {
  h.post(WrOpcode::kSend, 1, 0, 5 * kMtu);
  h.expect_packet(Opcode::kRcSendFirst);
  for (int i = 0; i < 3; ++i) h.expect_packet(Opcode::kRcSendMiddle);
  h.expect_packet(Opcode::kRcSendLast);
  h.expect_silence();
}

TEST(Selective, KeepsWhatComesAfterAGapAndSaysSo) {
  Harness h;
  h.post_recv(7, 100, 4 * kMtu);
  h.receive(h.from_peer(Opcode::kRcSendFirst, kRqPsn), bytes(kMtu, 1));
  h.receive(h.from_peer(Opcode::kRcSendMiddle, kRqPsn + 2), bytes(kMtu, 3));
  Sent sack = h.expect_packet(Opcode::kRcSack);
  EXPECT_EQ(sack.headers.psn, kRqPsn);
  EXPECT_EQ(sack.headers.control[0], 1u);
  h.receive(h.from_peer(Opcode::kRcSendLast, kRqPsn + 3), bytes(kMtu, 4));
  sack = h.expect_packet(Opcode::kRcSack);
  EXPECT_EQ(sack.headers.control[0], 3u);
  h.expect_no_completion();
  EXPECT_EQ(h.memory[100 + 2 * kMtu], std::byte{0}) << "placed before its turn";

  h.receive(h.from_peer(Opcode::kRcSendMiddle, kRqPsn + 1), bytes(kMtu, 2));
  EXPECT_EQ(h.expect_completion().byte_len, 4 * kMtu);
  for (uint32_t i = 0; i < 4; ++i)
    EXPECT_EQ(h.memory[100 + i * kMtu], std::byte(1 + i)) << "packet " << i;
}

TEST(Selective, AKeptPacketIsExecutedOnce) {
  Harness h;
  h.post_recv(7, 100, kMtu);
  h.post_recv(8, 100 + kMtu, kMtu);
  for (int i = 0; i < 2; ++i) h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8, 2));
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8, 1));
  EXPECT_EQ(h.expect_completion().wr_id, 7u);
  EXPECT_EQ(h.expect_completion().wr_id, 8u);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8, 9));
  h.expect_no_completion();
  EXPECT_EQ(h.memory[100 + kMtu], std::byte{2});
}

TEST(Selective, KeptPacketsWaitForAReceiveLikeOthers) {
  Harness h;
  h.post_recv(7, 100, kMtu);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8, 2));
  h.expect_packet(Opcode::kRcSack);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8, 1));
  h.expect_completion();
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kRnrNak);
  EXPECT_EQ(nak.headers.psn, kRqPsn + 1);
  h.post_recv(8, 100, kMtu);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8, 2));
  EXPECT_EQ(h.expect_completion().wr_id, 8u);
}

// A READ may take the number of a packet that was kept: then that packet is nobody's any more.
TEST(Selective, AKeptPacketUnderTheAnswersOfAReadIsNeverExecuted) {
  Harness h;
  h.post_recv(7, 8192, kMtu);
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 1), bytes(8, 9));
  auto read = h.from_peer(Opcode::kRcReadRequest, kRqPsn);
  read.dma_length = 4 * kMtu;
  h.receive(read);
  for (uint32_t psn = kRqPsn + 4; psn != kRqPsn + 1 + kReorderPackets; ++psn) {
    auto write = h.from_peer(Opcode::kRcWriteOnly, psn);
    h.receive(write);
  }
  h.expect_no_completion();
  EXPECT_EQ(h.qp->resp.expected_psn, kRqPsn + 1 + kReorderPackets);
}

TEST(Selective, WhatIsTooFarAheadIsNotKept) {
  Harness h;
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + kReorderPackets), bytes(8));
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kNak);
}

TEST(Selective, SendsAgainOnlyWhatIsMissing) {
  Harness h;
  send_five_packets(h);
  receive_sack(h, kSqPsn, 0b101);  // has +2 and +4
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + 1);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + 3);
  h.expect_silence();
  receive_sack(h, kSqPsn, 0b101);  // the same news, on its way before the repair
  h.expect_silence();
  h.receive_ack(kSqPsn + 4);
  h.expect_completion();
}

TEST(Selective, GoesOnWithNewWorkAfterTheRepair) {
  Harness h;
  send_five_packets(h);
  receive_sack(h, kSqPsn, 0b1);
  h.post(WrOpcode::kSend, 2, 0, 8);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + 1);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn + 5);
  // The repair was lost too: what was sent after it has arrived.
  receive_sack(h, kSqPsn, 0b1111);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + 1);
  h.receive_ack(kSqPsn + 5);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.expect_completion().wr_id, 2u);
}

TEST(Selective, ASackOfWhatWasNeverSentIsNotBelieved) {
  Harness h;
  send_five_packets(h);
  receive_sack(h, kSqPsn, 0xffffffff);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + 1);
  h.expect_silence();
  receive_sack(h, kSqPsn + 50, 0xffffffff);
  h.expect_silence();
  h.expect_no_completion();
}

TEST(Selective, ASackOfWhatWasNotSentYetDoesNotKeepItFromBeingRepeated) {
  Harness h;
  send_five_packets(h);
  receive_sack(h, kSqPsn, 0xffffffff);
  h.expect_packet(Opcode::kRcSendMiddle);
  h.receive_ack(kSqPsn + 4);
  h.expect_completion();
  for (uint32_t i = 0; i < 2; ++i) {
    h.post(WrOpcode::kSend, 2 + i, 0, 8);
    h.expect_packet(Opcode::kRcSendOnly);
  }
  h.pass(Duration::from_ms(2));
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn + 5);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn + 6);
}

TEST(Selective, TheMeasuredTimerSlowsDownWhileNothingComesBack) {
  Harness h({.timeout = 0});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  const Duration first = h.endpoint->next_deadline() - h.now;
  Duration last = first;
  for (int i = 0; i < 8; ++i) {
    last = h.endpoint->next_deadline() - h.now;
    h.pass(last);
    h.expect_packet(Opcode::kRcSendOnly);
  }
  EXPECT_GE(last, first * 16);
}

TEST(Selective, AfterTheAckTimeoutNothingIsTakenForGranted) {
  Harness h({.timeout = 5});  // 0.13 ms: before the measured timer
  send_five_packets(h);
  receive_sack(h, kSqPsn, 0b111);
  h.expect_packet(Opcode::kRcSendMiddle);
  h.pass(Duration::from_ms(1));
  for (uint32_t i = 1; i < 4; ++i)
    EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + i);
  h.expect_packet(Opcode::kRcSendLast);
}

TEST(Selective, AReadIsAskedForAgainOnlyWhereAnswersAreMissing) {
  Harness h;
  h.post(WrOpcode::kRdmaRead, 3, 0, 4 * kMtu);
  h.expect_packet(Opcode::kRcReadRequest);
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(kMtu, 1));
  h.receive(h.from_peer(Opcode::kRcReadResponseMiddle, kSqPsn + 2), bytes(kMtu, 3));
  const Sent again = h.expect_packet(Opcode::kRcReadRequest);
  EXPECT_EQ(again.headers.psn, kSqPsn + 1);
  EXPECT_EQ(again.headers.va, 0x10000u + kMtu);
  EXPECT_EQ(again.headers.dma_length, kMtu);
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 3), bytes(kMtu, 4));
  h.expect_silence();
  h.expect_no_completion();
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn + 1), bytes(kMtu, 2));
  EXPECT_EQ(h.expect_completion().byte_len, 4 * kMtu);
  for (uint32_t i = 0; i < 4; ++i)
    EXPECT_EQ(h.memory[i * kMtu], std::byte(1 + i)) << "packet " << i;
}

TEST(Selective, TheMeasuredTimerRepeatsBeforeTheAckTimeoutAndCostsNoRetry) {
  Harness h({.retry_cnt = 0, .timeout = 14});  // 67 ms
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_us(20));
  h.receive_ack(kSqPsn);
  h.expect_completion();
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  for (int i = 0; i < 5; ++i) {
    h.pass(Duration::from_ms(2));
    h.expect_packet(Opcode::kRcSendOnly);
  }
  h.expect_no_completion();
  h.pass(Duration::from_ms(70));
  h.expect_completion(WcStatus::kRetryExc);
}

}  // namespace
}  // namespace tbt::engine
