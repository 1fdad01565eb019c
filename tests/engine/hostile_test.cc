// States that only a bad cable, a careless application or a hostile peer brings about. Each test is
// something that the fuzzer (tests/fuzz/fuzz_engine.cc), or reading the code for it, has found.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

void receive_sack(Harness& h, uint32_t psn, uint32_t bits) {
  wire::PacketHeaders sack = h.from_peer(Opcode::kRcSack, psn);
  sack.src_qp = kPeerQpn;
  sack.syndrome = 0x1f;
  sack.control = {bits, 0, 0};
  h.receive(sack);
}

SendWr send_of(const Sge& sge, uint64_t wr_id, uint32_t flags = kSendSignaled) {
  SendWr wr;
  wr.wr_id = wr_id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.flags = flags;
  return wr;
}

// The half of all first PSNs that lie "before" 0 must not keep a repair from starting.
TEST(Hostile, AGapIsRepairedWhateverTheFirstPsn) {
  for (uint32_t first : {0u, 0x7fffffu, 0x800001u, 0xa00000u, 0xfffffeu}) {
    Harness h({.sq_psn = first});
    h.post(WrOpcode::kSend, 1, 0, 4 * kMtu);
    h.expect_packet(Opcode::kRcSendFirst);
    for (int i = 0; i < 2; ++i) h.expect_packet(Opcode::kRcSendMiddle);
    h.expect_packet(Opcode::kRcSendLast);
    receive_sack(h, first, 1);  // the second is missing, the third is there
    EXPECT_EQ(h.expect_packet(Opcode::kRcSendMiddle).headers.psn, wire::psn_add(first, 1)) << first;
    h.expect_silence();
  }
}

// PSNs come round: what was repaired long ago must not look like what is being repaired.
TEST(Hostile, ARepairOfLongAgoIsForgotten) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 3 * kMtu);
  h.expect_packet(Opcode::kRcSendFirst);
  h.expect_packet(Opcode::kRcSendMiddle);
  h.expect_packet(Opcode::kRcSendLast);
  receive_sack(h, kSqPsn, 1);
  h.expect_packet(Opcode::kRcSendMiddle);
  h.receive_ack(kSqPsn + 2);
  h.post(WrOpcode::kSend, 2, 0, 8 * kMtu);
  for (int i = 0; i < 8; ++i) {
    TxPacket packet;
    ASSERT_TRUE(h.endpoint->poll_transmit(h.now, 0, packet));
  }
  h.receive_ack(kSqPsn + 8);
  const RequesterState& req = h.qp->req;
  for (const uint32_t psn : {req.requests_to, req.answers_to, req.oldest_mark, req.loss_mark})
    EXPECT_GE(wire::psn_diff(psn, req.una_psn), 0);
}

TEST(Hostile, ALostRequestBeforeOneThatCannotBeSentIsRepeated) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  const Sge bad{h.address(0), 8, h.key + 1};
  ASSERT_TRUE(h.try_post(send_of(bad, 2)).ok());
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_silence();
  h.pass(Duration::from_ms(5));  // it was lost
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn);
  h.expect_silence();
  h.receive_ack(kSqPsn);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.expect_completion(WcStatus::kLocProt).wr_id, 2u);
}

TEST(Hostile, ARequestThatCannotBeSentDoesNotFailAnother) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 3 * kMtu);
  const Sge bad{h.address(0), 8, h.key + 1};
  ASSERT_TRUE(h.try_post(send_of(bad, 2)).ok());
  h.expect_packet(Opcode::kRcSendFirst);
  h.expect_packet(Opcode::kRcSendMiddle);
  h.expect_packet(Opcode::kRcSendLast);
  h.expect_silence();
  h.pass(Duration::from_ms(5));
  h.receive_ack(kSqPsn);  // one of its packets, late
  h.expect_no_completion();
  EXPECT_EQ(h.qp->state, QpState::kRts);
}

// A completion queue that overflows while an acknowledge is taken leaves no timer behind.
TEST(Hostile, AnOverflowStopsTheTimers) {
  Harness h;
  verbs::CompletionQueue tiny(1, nullptr);
  h.qp->send_cq = &tiny;
  ++tiny.users;
  for (uint64_t i = 1; i <= 3; ++i) h.post(WrOpcode::kSend, i, 0, 8);
  for (int i = 0; i < 3; ++i) h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 1);
  ASSERT_EQ(h.qp->state, QpState::kErr);
  EXPECT_TRUE(h.qp->req.ack_deadline.is_never());
  EXPECT_TRUE(h.qp->req.probe_deadline.is_never());
  for (int i = 0; i < 8; ++i) h.pass(Duration::from_ms(50));
  EXPECT_TRUE(h.qp->sq.empty()) << "a request was completed twice";
}

// UC: what comes after a message that could not be sent to its end.
TEST(Hostile, UcGoesOnAfterAMessageThatBrokeOff) {
  Harness h({.type = QpType::kUc, .uc_drop = true});
  const uint32_t key =
      h.endpoint->register_memory({0, 0, &h.pd, h.address(0), 4096, h.memory.data()})->key;
  const Sge sge{h.address(0), 3 * kMtu, key};
  ASSERT_TRUE(h.try_post(send_of(sge, 1)).ok());
  h.expect_packet(Opcode::kUcSendFirst);
  h.endpoint->regions().erase(key);
  h.expect_silence();
  h.expect_completion(WcStatus::kLocProt);
  ASSERT_EQ(h.qp->state, QpState::kSqe);
  QpAttr attr;
  attr.qp_state = QpState::kRts;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  h.memory[0] = std::byte{0x5a};
  h.post(WrOpcode::kSend, 2, 0, 8, kSendSignaled | kSendInline);
  const Sent sent = h.expect_packet(Opcode::kUcSendOnly);
  ASSERT_EQ(sent.payload.size(), 8u);
  EXPECT_EQ(sent.payload[0], std::byte{0x5a});
  h.expect_completion();
}

// What one peer makes us keep is at most a window's worth of packets, and the same place is used
// for the next one.
TEST(Hostile, WhatIsKeptAfterGapsHasAnEnd) {
  Harness h;
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t i = 1; i < 2000; ++i) {
      wire::PacketHeaders packet = h.from_peer(Opcode::kRcSendMiddle, kRqPsn + i);
      h.receive(packet, bytes(kMtu));
    }
  }
  EXPECT_EQ(h.qp->resp.early->count(), kReorderPackets - 1);
}

// Guessing keys over RC costs a connection a guess (T1).
TEST(Hostile, AWrongKeyEndsTheConnectionAtOnce) {
  for (Opcode opcode : {Opcode::kRcWriteOnly, Opcode::kRcReadRequest, Opcode::kRcFetchAdd}) {
    Harness h;
    wire::PacketHeaders guess = h.from_peer(opcode, kRqPsn);
    guess.rkey = h.key + 1;
    guess.dma_length = 8;
    h.receive(guess, opcode == Opcode::kRcWriteOnly ? bytes(8) : std::vector<std::byte>{});
    EXPECT_EQ(h.qp->state, QpState::kErr);
    wire::PacketHeaders right = h.from_peer(Opcode::kRcWriteOnly, kRqPsn + 1);
    right.dma_length = 8;
    h.receive(right, bytes(8));
    EXPECT_EQ(h.memory[0], std::byte{0});
  }
}

// A domain is a wall: the right key on a queue pair of another domain opens nothing (T1).
TEST(Hostile, AKeyOfAnotherDomainIsAWrongKey) {
  Harness h;
  const uint32_t all = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite;
  const uint32_t foreign =
      h.endpoint->register_memory({0, all, &h.other_pd, h.address(0), 64, h.memory.data()})->key;
  wire::PacketHeaders write = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  write.rkey = foreign;
  write.dma_length = 8;
  h.receive(write, bytes(8));
  EXPECT_EQ(h.qp->state, QpState::kErr);
  EXPECT_EQ(h.memory[0], std::byte{0});
}

// PSNs come round after 2^24 packets; an atomic of the time before may still be kept.
TEST(Hostile, ARepeatedAtomicIsNotTakenForOneOfLongAgo) {
  Harness h;
  auto request = h.from_peer(Opcode::kRcFetchAdd, kRqPsn);
  request.swap_add = 5;
  h.receive(request);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 0u);
  h.qp->resp.expected_psn = kRqPsn;  // 2^24 - 1 SENDs later
  h.receive(request);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 5u);
  h.receive(request);  // its answer was lost
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 5u);
}

// The ring of READs and atomics goes on after 2^32 of them, whatever its size.
TEST(Hostile, TheRingOfReadsOutlivesItsCounter) {
  Harness h({.rd_atomic = 3});
  h.qp->resp.resource_tail = 0xffffffff;
  for (uint32_t i = 0; i < 3; ++i) {
    auto request = h.from_peer(Opcode::kRcReadRequest, kRqPsn + i);
    request.dma_length = 8;
    h.receive(request);
  }
  for (uint32_t i = 0; i < 3; ++i)
    EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseOnly).headers.psn, kRqPsn + i);
  EXPECT_EQ(h.qp->state, QpState::kRts);
}

}  // namespace
}  // namespace tbt::engine
