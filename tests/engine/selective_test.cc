// Selective repeat: what comes after a gap is kept, and only what is missing is sent again.
#include "base/bytes.h"
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

// Three words are in the headers; what is further ahead is in words behind them.
TEST(Selective, ASackReachesAsFarAsPacketsAreKept) {
  Harness h;
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + 95), bytes(8));
  EXPECT_TRUE(h.expect_packet(Opcode::kRcSack).payload.empty());
  for (const uint32_t ahead : {150u, kReorderPackets - 1}) {
    h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn + ahead), bytes(8));
    const Sent sack = h.expect_packet(Opcode::kRcSack);
    EXPECT_EQ(sack.headers.control, (std::array<uint32_t, 3>{0, 0, 1u << 30}));
    const uint32_t bit = ahead - 1;
    ASSERT_EQ(sack.payload.size(), 4 * (bit / 32 + 1 - 3));
    EXPECT_EQ(base::load_be<uint32_t>(&sack.payload[sack.payload.size() - 4]), 1u << bit % 32);
    EXPECT_EQ(base::load_be<uint32_t>(&sack.payload[4]), 1u << 149 % 32) << "of the one at 150";
  }
}

TEST(Selective, ALongSackIsUnderstood) {
  Harness h({.caps = {256, 16, 4, 4, 64}});
  for (uint32_t i = 0; i < 200; ++i) {
    h.post(WrOpcode::kRdmaWrite, i, 0, 8);
    h.expect_packet(Opcode::kRcWriteOnly);
  }
  wire::PacketHeaders sack = h.from_peer(Opcode::kRcSack, kSqPsn);
  sack.src_qp = kPeerQpn;
  sack.syndrome = 0x1f;
  sack.control.fill(0xffffffff);
  std::vector<std::byte> tail(8);
  base::store_be<uint32_t>(tail.data(), 0xffffffff);
  base::store_be<uint32_t>(tail.data() + 4, 0b101);  // packets 130 and 132, not 131
  h.receive(sack, tail);
  h.expect_completion();
  EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.psn, kSqPsn + 1);
  EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.psn, kSqPsn + 131);
  h.expect_silence();
  for (size_t cut = 1; cut < 4; ++cut) {  // words that are not whole say nothing
    sack.control.fill(0);
    h.receive(sack, std::vector<std::byte>(cut, std::byte{0xff}));
    h.expect_silence();
  }
}

// The window counts what is on its way, and what has arrived behind a gap is not.
TEST(Selective, AGapDoesNotHoldUpNewPackets) {
  Harness h({.caps = {512, 16, 4, 4, 64}});
  for (uint32_t i = 0; i < 400; ++i) h.post(WrOpcode::kRdmaWrite, i, 0, 8, 0);
  uint32_t psn = kSqPsn;
  for (; psn < kSqPsn + 256; ++psn)
    EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.psn, psn);
  h.expect_silence();
  const auto has = [&](uint32_t words) {  // all of so many words behind the first packet
    wire::PacketHeaders sack = h.from_peer(Opcode::kRcSack, kSqPsn - 1);
    sack.src_qp = kPeerQpn;
    sack.syndrome = 0x1f;
    sack.control.fill(0xffffffff);
    h.receive(sack, std::vector<std::byte>(4 * (words - 3), std::byte{0xff}));
  };
  has(3);
  EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.psn, kSqPsn) << "what is missing";
  h.expect_silence();  // the loss has halved the window, and more than that is on its way
  has(6);
  for (; psn < kSqPsn + 128 + 6 * 32; ++psn)
    EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.psn, psn);
  h.expect_silence();
}

// As long as the peer hears anything new, silence is not what holds up the missing packet.
TEST(Selective, NewsOfArrivalsPutOffTheMeasuredTimer) {
  Harness h({.timeout = 0});
  h.post(WrOpcode::kRdmaWrite, 1, 0, 8);
  h.expect_packet(Opcode::kRcWriteOnly);
  h.pass(Duration::from_us(100));
  h.receive_ack(kSqPsn);
  h.expect_completion();  // a round trip takes 100 us
  for (uint32_t i = 0; i < 8; ++i) {
    h.post(WrOpcode::kRdmaWrite, 2 + i, 0, 8);
    h.expect_packet(Opcode::kRcWriteOnly);
  }
  for (uint32_t arrived = 1; arrived < 7; ++arrived) {
    h.pass(Duration::from_us(200));
    receive_sack(h, kSqPsn, (1u << arrived) - 1);
    if (arrived == 1) h.expect_packet(Opcode::kRcWriteOnly);
    h.expect_silence();
  }
  EXPECT_EQ(h.endpoint->stats().probes, 0u);
  h.pass(Duration::from_ms(1));
  h.expect_packet(Opcode::kRcWriteOnly);
  EXPECT_EQ(h.endpoint->stats().probes, 1u);
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
  h.pass(Duration::from_ms(1));  // the SACK was something
  h.expect_packet(Opcode::kRcSendMiddle);
  h.expect_silence();
  h.pass(Duration::from_ms(1));
  for (uint32_t i = 1; i < 4; ++i)
    EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, kSqPsn + i);
  h.expect_packet(Opcode::kRcSendLast);
}

// retry_cnt is for a peer from which nothing comes any more.
TEST(Selective, AnAckTimeoutInWhichSomethingArrivedCostsNoRetry) {
  Harness h({.retry_cnt = 0, .timeout = 10});  // 4.2 ms
  send_five_packets(h);
  for (const uint32_t bits : {0b1u, 0b11u}) {
    h.pass(Duration::from_us(4000));
    receive_sack(h, kSqPsn - 1, bits);
    h.pass(Duration::from_us(300));
    h.expect_no_completion();
  }
  receive_sack(h, kSqPsn - 1, 0b11);  // no news
  h.pass(Duration::from_us(4300));
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, kVendorRetryTimeout);
}

TEST(Selective, TheMeasuredTimerBeginsAnewAfterAnAckTimeout) {
  Harness h({.timeout = 14});  // 67 ms
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  const Duration first = h.endpoint->next_deadline() - h.now;
  while (h.qp->req.retries_left == 2) h.pass(h.endpoint->next_deadline() - h.now);
  EXPECT_EQ((h.endpoint->next_deadline() - h.now).ns, first.ns);
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
