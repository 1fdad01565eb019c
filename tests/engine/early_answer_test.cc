// Answers of READs that come before their turn.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

// Two READs under way: 1 to `key` of the harness, 2 through a key that goes away.
void post_two(Harness& h) {
  verbs::MemoryRegion region = *h.endpoint->regions().find(h.key);
  const uint32_t second = h.endpoint->register_memory(region)->key;
  h.post(WrOpcode::kRdmaRead, 1, 0, kMtu);
  const Sge sge{h.address(kMtu), kMtu, second};
  SendWr wr;
  wr.wr_id = 2;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = WrOpcode::kRdmaRead;
  wr.flags = kSendSignaled;
  wr.remote_addr = 0x10000;
  wr.rkey = 0x77;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_packet(Opcode::kRcReadRequest);
  h.expect_packet(Opcode::kRcReadRequest);
  h.endpoint->regions().erase(second);
}

TEST(EarlyAnswer, ThatCannotBePlacedFailsItsOwnReadAndNotTheOldest) {
  Harness h;
  post_two(h);
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn + 1), bytes(kMtu, 2));
  h.expect_no_completion();
  // What is missing before it is asked for, though it was not taken itself.
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadRequest).headers.psn, kSqPsn);
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn), bytes(kMtu, 1));
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.memory[0], std::byte{1});
  // In its turn it is the oldest one, and fails for itself.
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn + 1), bytes(kMtu, 2));
  const Wc wc = h.expect_completion(WcStatus::kLocProt);
  EXPECT_EQ(wc.wr_id, 2u);
  EXPECT_EQ(wc.vendor_err, kVendorLocalKey);
}

void expect_request(Harness& h, uint32_t psn) {
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadRequest).headers.psn, psn);
}

void send_everything(Harness& h) {
  TxPacket packet;
  while (h.endpoint->poll_transmit(h.now, h.qp->path.rail, packet)) {
  }
}

TEST(EarlyAnswer, MakesRoomForAnotherRead) {
  Harness h;  // 2
  for (uint32_t i = 0; i < 4; ++i) h.post(WrOpcode::kRdmaRead, i, i * 2 * kMtu, 2 * kMtu);
  expect_request(h, kSqPsn);
  expect_request(h, kSqPsn + 2);
  h.expect_silence();
  // Half of the second is not enough, and the first's is asked for again.
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn + 2), bytes(kMtu));
  expect_request(h, kSqPsn);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 3), bytes(kMtu));
  expect_request(h, kSqPsn + 4);
  h.expect_silence();
  h.expect_no_completion();
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 1), bytes(kMtu));
  EXPECT_EQ(h.expect_completion().wr_id, 0u);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  expect_request(h, kSqPsn + 6);
  h.expect_silence();
}

TEST(EarlyAnswer, PutsOffTheMeasuredTimer) {
  Harness h({.timeout = 0});
  h.post(WrOpcode::kRdmaRead, 1, 0, 4 * kMtu);
  expect_request(h, kSqPsn);
  const Duration interval = h.endpoint->next_deadline() - h.now;
  for (uint32_t i = 1; i < 3; ++i) {
    h.pass(Duration{interval.ns - 1});
    h.receive(h.from_peer(Opcode::kRcReadResponseMiddle, kSqPsn + i), bytes(kMtu));
  }
  expect_request(h, kSqPsn);  // what they show to be lost, once
  h.expect_silence();
  h.pass(interval);
  expect_request(h, kSqPsn);
}

// The responder keeps no more of them.
TEST(EarlyAnswer, MakesRoomForSoManyReadsOnly) {
  Harness h({.timeout = 0});
  const uint32_t most = 2 * kAnswersPerAgreed;
  for (uint32_t i = 0; i < most + 1; ++i) h.post(WrOpcode::kRdmaRead, i, 0, kMtu);
  send_everything(h);
  for (uint32_t i = 1; i < most; ++i) {
    EXPECT_EQ(h.qp->req.answers_due, i + 1);
    h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn + i), bytes(kMtu));
    send_everything(h);
  }
  EXPECT_EQ(h.qp->req.answers_due, most);
  EXPECT_EQ(h.qp->req.answers_whole, most - 1);
  EXPECT_EQ(h.qp->req.next_psn, kSqPsn + most) << "the last one was not started";
}

constexpr uint32_t kPackets = 64;

// The answer of one READ of kPackets; PSNs at and after `psn`.
void answer(Harness& h, uint32_t psn) {
  for (uint32_t i = 0; i < kPackets; ++i) {
    const Opcode opcode = i == 0              ? Opcode::kRcReadResponseFirst
                          : i == kPackets - 1 ? Opcode::kRcReadResponseLast
                                              : Opcode::kRcReadResponseMiddle;
    h.receive(h.from_peer(opcode, psn + i), bytes(kMtu));
  }
}

TEST(EarlyAnswer, AWindowOfThemIsAskedForAtATime) {
  constexpr uint32_t kFit = Options{}.window_packets / kPackets;
  Harness h({.rd_atomic = 128});
  for (uint32_t i = 0; i < kFit + 1; ++i) h.post(WrOpcode::kRdmaRead, i, 0, kPackets * kMtu);
  for (uint32_t i = 0; i < kFit; ++i) expect_request(h, kSqPsn + i * kPackets);
  h.expect_silence();
  answer(h, kSqPsn);
  expect_request(h, kSqPsn + kFit * kPackets);
}

// Two READs as large as a window follow each other without a pause.
TEST(EarlyAnswer, ALargeReadIsAskedForWhileTheOneBeforeItArrives) {
  Harness h;
  const Sge whole{h.address(0), kPackets * kMtu, h.key};
  const std::array<Sge, Options{}.window_packets / kPackets> sges{whole, whole, whole, whole};
  SendWr wr;
  wr.sg_list = sges.data();
  wr.num_sge = sges.size();
  wr.opcode = WrOpcode::kRdmaRead;
  wr.remote_addr = 0x10000;
  wr.rkey = 0x77;
  ASSERT_TRUE(h.try_post(wr).ok());
  ASSERT_TRUE(h.try_post(wr).ok());
  expect_request(h, kSqPsn);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(kMtu));
  expect_request(h, kSqPsn + Options{}.window_packets);
}

// Of a READ that is longer than can be noted behind a gap the end is asked for as it comes nearer.
TEST(EarlyAnswer, WhatIsMissingTooFarBehindAGapIsAskedForLater) {
  constexpr uint32_t kSges = kReorderPackets / kPackets + 1;
  Harness h({.timeout = 0, .caps = {16, 16, kSges, 4, 64}});
  const std::vector<Sge> sges(kSges, Sge{h.address(0), kPackets * kMtu, h.key});
  SendWr wr;
  wr.sg_list = sges.data();
  wr.num_sge = kSges;
  wr.opcode = WrOpcode::kRdmaRead;
  wr.remote_addr = 0x10000;
  wr.rkey = 0x77;
  ASSERT_TRUE(h.try_post(wr).ok());
  expect_request(h, kSqPsn);
  h.receive(h.from_peer(Opcode::kRcReadResponseMiddle, kSqPsn + kReorderPackets + 1), bytes(kMtu));
  const Sent all = h.expect_packet(Opcode::kRcReadRequest);
  EXPECT_EQ(all.headers.psn, kSqPsn);
  EXPECT_EQ(all.headers.dma_length, kReorderPackets * kMtu);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, kSqPsn), bytes(kMtu));
  const Sent more = h.expect_packet(Opcode::kRcReadRequest);
  EXPECT_EQ(more.headers.psn, kSqPsn + kReorderPackets);
  EXPECT_EQ(more.headers.dma_length, kMtu);
  h.expect_silence();
}

// What cannot be noted behind a gap would have to be sent again.
TEST(EarlyAnswer, NoMoreIsAskedForThanCanBeNoted) {
  constexpr uint32_t kFit = kReorderPackets / kPackets;
  Harness h({.rd_atomic = 128, .timeout = 0, .caps = {2 * kFit, 16, 4, 4, 64}});
  for (uint32_t i = 0; i < kFit + 1; ++i) h.post(WrOpcode::kRdmaRead, i, 0, kPackets * kMtu);
  send_everything(h);
  for (uint32_t i = 1; i < kFit; ++i) {
    answer(h, kSqPsn + i * kPackets);
    send_everything(h);
  }
  EXPECT_EQ(h.qp->req.answers_due, kFit);
  answer(h, kSqPsn);
  expect_request(h, kSqPsn + kFit * kPackets);
}

}  // namespace
}  // namespace tbt::engine
