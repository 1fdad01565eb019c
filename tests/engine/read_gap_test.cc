// A gap among requests that want an answer: what is behind it is kept, and only what was lost is
// asked for again.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

constexpr Setup kFour{.rd_atomic = 4};

// ---- Responder

wire::PacketHeaders read_request(const Harness& h, uint32_t psn, uint32_t packets) {
  auto read = h.from_peer(Opcode::kRcReadRequest, psn);
  read.va = h.address(psn % 16 * kMtu);
  read.rkey = h.key;
  read.dma_length = packets * kMtu;
  return read;
}

TEST(ReadGap, AReadBehindItIsKeptAndAnsweredInItsTurn) {
  Harness h(kFour);
  h.receive(read_request(h, kRqPsn + 2, 1));
  const Sent sack = h.expect_packet(Opcode::kRcSack);
  EXPECT_EQ(sack.headers.psn, kRqPsn - 1);
  EXPECT_EQ(sack.headers.control[0], 0b10u);
  h.expect_silence();
  h.receive(read_request(h, kRqPsn, 2));
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseFirst).headers.psn, kRqPsn);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseLast).headers.psn, kRqPsn + 1);
  const Sent kept = h.expect_packet(Opcode::kRcReadResponseOnly);
  EXPECT_EQ(kept.headers.psn, kRqPsn + 2);
  EXPECT_EQ(kept.headers.msn, 2u);
  h.expect_silence();
}

TEST(ReadGap, AnAtomicBehindItIsExecutedOnceAndInItsTurn) {
  Harness h(kFour);
  auto add = h.from_peer(Opcode::kRcFetchAdd, kRqPsn + 1);
  add.va = h.address(0);
  add.rkey = h.key;
  add.swap_add = 5;
  for (int i = 0; i < 2; ++i) {
    h.receive(add);
    h.expect_packet(Opcode::kRcSack);
  }
  EXPECT_EQ(h.memory[0], std::byte{0}) << "before its turn";
  h.receive(read_request(h, kRqPsn, 1));
  EXPECT_EQ(h.memory[0], std::byte{5});
  h.expect_packet(Opcode::kRcReadResponseOnly);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.psn, kRqPsn + 1);
}

// What the peer may ask for is judged when its turn comes.
TEST(ReadGap, MoreKeptReadsThanAgreedAreRefused) {
  Harness h({.rd_atomic = 1});
  h.receive(read_request(h, kRqPsn + 1, 1));
  h.expect_packet(Opcode::kRcSack);
  h.receive(read_request(h, kRqPsn, 1));
  const Sent nak = h.expect_packet(Opcode::kRcReadResponseOnly);
  EXPECT_EQ(nak.headers.psn, kRqPsn);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.syndrome, 0x61) << "invalid request";
}

TEST(ReadGap, IsToldBeforeTheAnswersThatAreOwed) {
  Harness h(kFour);
  h.receive(read_request(h, kRqPsn, 2));
  h.receive(read_request(h, kRqPsn + 3, 1));
  const Sent sack = h.expect_packet(Opcode::kRcSack);
  EXPECT_EQ(sack.headers.psn, kRqPsn + 1);
  EXPECT_EQ(sack.headers.control[0], 1u);
  h.expect_packet(Opcode::kRcReadResponseFirst);
  h.expect_packet(Opcode::kRcReadResponseLast);
  h.expect_silence();
}

// ---- Requester

void receive_sack(Harness& h, uint32_t psn, uint32_t bits) {
  wire::PacketHeaders sack = h.from_peer(Opcode::kRcSack, psn);
  sack.src_qp = kPeerQpn;
  sack.syndrome = 0x1f;
  sack.control = {bits, 0, 0};
  h.receive(sack);
}

void expect_request(Harness& h, uint32_t psn, uint32_t packets) {
  const Sent request = h.expect_packet(Opcode::kRcReadRequest);
  EXPECT_EQ(request.headers.psn, psn);
  EXPECT_EQ(request.headers.dma_length, packets * kMtu);
}

// READs 0 to 3 of two packets each, from kSqPsn on.
void post_four(Harness& h) {
  for (uint32_t i = 0; i < 4; ++i) {
    h.post(WrOpcode::kRdmaRead, i, i * 2 * kMtu, 2 * kMtu);
    expect_request(h, kSqPsn + 2 * i, 2);
  }
}

void answer(Harness& h, uint32_t psn) {
  h.receive(h.from_peer(Opcode::kRcReadResponseFirst, psn), bytes(kMtu));
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, psn + 1), bytes(kMtu));
}

TEST(ReadGap, OnlyTheRequestThatWasLostIsRepeated) {
  Harness h(kFour);
  post_four(h);
  receive_sack(h, kSqPsn + 1, 1u << 1 | 1u << 3);  // of READs 2 and 3; 0 was taken
  expect_request(h, kSqPsn + 2, 2);
  h.expect_silence();
  receive_sack(h, kSqPsn + 1, 1u << 1 | 1u << 3);  // once
  h.expect_silence();
  h.expect_no_completion();
  for (uint32_t i = 0; i < 4; ++i) {
    answer(h, kSqPsn + 2 * i);
    EXPECT_EQ(h.expect_completion().wr_id, i);
  }
  h.expect_silence();
}

TEST(ReadGap, ARequestThatIsLostAgainIsRepeatedWhenALaterOneHasArrived) {
  Harness h({.rd_atomic = 8});
  post_four(h);
  receive_sack(h, kSqPsn - 1, 1u << 1);
  expect_request(h, kSqPsn, 2);
  h.post(WrOpcode::kRdmaRead, 4, 0, kMtu);
  expect_request(h, kSqPsn + 8, 1);
  receive_sack(h, kSqPsn - 1, 1u << 1 | 1u << 3 | 1u << 5);
  h.expect_silence();  // those were sent before the repetition
  receive_sack(h, kSqPsn - 1, 1u << 1 | 1u << 3 | 1u << 5 | 1u << 7);
  expect_request(h, kSqPsn, 2);
  h.expect_silence();
}

// A bit inside the answer's PSNs says the same of the request, and never that an answer is here.
TEST(ReadGap, ASackOfAReadIsNotItsAnswer) {
  Harness h(kFour);
  post_four(h);
  receive_sack(h, kSqPsn - 1, 0b1111110);
  expect_request(h, kSqPsn, 2);
  h.expect_silence();
  answer(h, kSqPsn);
  EXPECT_EQ(h.expect_completion().wr_id, 0u);
  h.expect_no_completion();
  EXPECT_EQ(h.qp->req.una_psn, kSqPsn + 2);
}

// The peer has all requests. Answers are another matter: a later one shows what was lost of them.
TEST(ReadGap, AnswersThatAreLostAreAskedForThoughTheRequestWasKept) {
  Harness h(kFour);
  post_four(h);
  receive_sack(h, kSqPsn - 1, 1u << 1 | 1u << 3 | 1u << 5);
  expect_request(h, kSqPsn, 2);
  answer(h, kSqPsn);
  h.expect_completion();
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 5), bytes(kMtu));
  expect_request(h, kSqPsn + 2, 2);
  expect_request(h, kSqPsn + 4, 1);
  h.expect_silence();
}

// News of lost requests does not repeat answers that are being asked for already.
TEST(ReadGap, TheTwoKindsOfNewsDoNotRepeatEachOthersWork) {
  Harness h({.rd_atomic = 8});
  post_four(h);
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 1), bytes(kMtu));
  expect_request(h, kSqPsn, 1);
  receive_sack(h, kSqPsn + 3, 1u << 1);  // READ 2 was lost
  expect_request(h, kSqPsn + 4, 2);
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcReadResponseLast, kSqPsn + 3), bytes(kMtu));
  expect_request(h, kSqPsn + 2, 1);
  h.expect_silence();
}

// The acknowledge in a SACK may have overtaken answers.
TEST(ReadGap, ASackPastAnUnansweredReadRepeatsOnlyTheGap) {
  Harness h(kFour);
  h.post(WrOpcode::kRdmaRead, 1, 0, 2 * kMtu);
  expect_request(h, kSqPsn, 2);
  for (uint32_t i = 2; i < 5; ++i) {
    h.post(WrOpcode::kRdmaWrite, i, 0, 8);
    h.expect_packet(Opcode::kRcWriteOnly);
  }
  receive_sack(h, kSqPsn + 2, 1);  // the READ and the first WRITE were taken
  EXPECT_EQ(h.expect_packet(Opcode::kRcWriteOnly).headers.psn, kSqPsn + 3);
  h.expect_silence();
  EXPECT_EQ(h.qp->req.retries_left, 2);
}

TEST(ReadGap, AfterTheAckTimeoutNothingIsTakenForGranted) {
  Harness h(kFour);
  post_four(h);
  receive_sack(h, kSqPsn - 1, 1u << 1 | 1u << 3 | 1u << 5);
  expect_request(h, kSqPsn, 2);
  h.expect_silence();
  h.pass(Duration::from_ms(50));
  for (uint32_t i = 0; i < 4; ++i) expect_request(h, kSqPsn + 2 * i, 2);
}

}  // namespace
}  // namespace tbt::engine
