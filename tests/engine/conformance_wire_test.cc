// Sequence, acknowledges, timers: numbers C-060 to C-097 of docs/conformance.md that need a packet
// at a time.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::AethKind;
using wire::Opcode;

constexpr uint8_t kNakSequence = 0x60;

uint8_t rnr(uint8_t code) { return wire::aeth_syndrome(AethKind::kRnrNak, code); }

void expect_invalid_request(Harness& h) {
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(
      nak.headers.syndrome,
      wire::aeth_syndrome(AethKind::kNak, static_cast<uint8_t>(wire::NakCode::kInvalidRequest)));
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

TEST(Sequence, ANakAcknowledgesWhatIsBeforeIt) {
  for (uint8_t syndrome : {kNakSequence, rnr(12)}) {
    Harness h;
    for (uint64_t id = 1; id <= 3; ++id) h.post(WrOpcode::kSend, id, 0, 8);
    for (int i = 0; i < 3; ++i) h.expect_packet(Opcode::kRcSendOnly);
    h.receive_ack(kSqPsn + 2, syndrome);
    EXPECT_EQ(h.expect_completion().wr_id, 1u);
    EXPECT_EQ(h.expect_completion().wr_id, 2u);
    h.expect_no_completion();
  }
  Harness h;
  for (uint64_t id = 1; id <= 2; ++id) h.post(WrOpcode::kSend, id, 0, 8);
  for (int i = 0; i < 2; ++i) h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 1, 0x62);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.expect_completion(WcStatus::kRemAccess).wr_id, 2u);
}

TEST(Sequence, ALongMessageAsksForAnAcknowledgeOnTheWay) {
  Harness h;
  h.post(WrOpcode::kRdmaWrite, 1, 0, 60 * kMtu);
  uint32_t since = 0;
  uint32_t longest = 0;
  for (uint32_t i = 0; i < 60; ++i) {
    const Sent sent = h.expect_packet(i == 0    ? Opcode::kRcWriteFirst
                                      : i == 59 ? Opcode::kRcWriteLast
                                                : Opcode::kRcWriteMiddle);
    since = sent.headers.ack_req ? 0 : since + 1;
    longest = std::max(longest, since);
    EXPECT_TRUE(i != 59 || sent.headers.ack_req);
  }
  EXPECT_LT(longest, Options{}.ack_req_every);
}

TEST(Sequence, AnAcknowledgeThatIsAskedForIsTheNextPacket) {
  Harness h;
  auto write = h.from_peer(Opcode::kRcWriteFirst, kRqPsn);
  write.dma_length = 3 * kMtu;
  write.ack_req = false;
  h.receive(write, bytes(kMtu));
  h.expect_silence();
  h.receive(h.from_peer(Opcode::kRcWriteMiddle, kRqPsn + 1), bytes(kMtu));
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn + 1);
}

TEST(Sequence, TheMsnCountsMessagesAndAReadWhenItIsAccepted) {
  Harness h;
  h.post_recv(1, 0, 1024);
  h.receive(h.from_peer(Opcode::kRcSendFirst, kRqPsn), bytes(kMtu));
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.msn, 0u) << "not complete";
  h.receive(h.from_peer(Opcode::kRcSendLast, kRqPsn + 1), bytes(8));
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.msn, 1u);
  auto read = h.from_peer(Opcode::kRcReadRequest, kRqPsn + 2);
  read.dma_length = 2 * kMtu;
  h.receive(read);
  auto write = h.from_peer(Opcode::kRcWriteOnly, kRqPsn + 4);
  h.receive(write);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseFirst).headers.msn, 2u);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseLast).headers.msn, 2u);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.msn, 3u);
}

TEST(Sequence, ARepeatedAtomicOlderThanWhatIsKeptIsDropped) {
  Harness h({.rd_atomic = 1});
  auto first = h.from_peer(Opcode::kRcFetchAdd, kRqPsn);
  first.swap_add = 5;
  h.receive(first);
  h.expect_packet(Opcode::kRcAtomicAck);
  auto later = h.from_peer(Opcode::kRcFetchAdd, kRqPsn);
  later.swap_add = 7;
  for (uint32_t i = 1; i <= kAnswersPerAgreed; ++i) {
    later.psn = kRqPsn + i;
    h.receive(later);
    h.expect_packet(Opcode::kRcAtomicAck);
  }
  h.receive(first);
  h.expect_silence();
  EXPECT_EQ(h.memory[0], std::byte{5 + 7 * kAnswersPerAgreed}) << "each executed once";
  later.psn = kRqPsn + 1;
  h.receive(later);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicAck).headers.atomic_result, 5u);
}

TEST(ReadResponses, OutOfTheirOrderAreABadResponse) {
  const struct {
    Opcode opcode;
    uint32_t index;
    uint32_t bytes;
  } kCases[] = {{Opcode::kRcReadResponseMiddle, 0, kMtu}, {Opcode::kRcReadResponseLast, 0, kMtu},
                {Opcode::kRcReadResponseOnly, 0, kMtu},   {Opcode::kRcReadResponseFirst, 1, kMtu},
                {Opcode::kRcReadResponseLast, 1, kMtu},   {Opcode::kRcReadResponseFirst, 2, 88},
                {Opcode::kRcReadResponseMiddle, 2, 88},   {Opcode::kRcReadResponseLast, 2, 87},
                {Opcode::kRcReadResponseLast, 2, kMtu},   {Opcode::kRcReadResponseFirst, 0, 255}};
  for (const auto& c : kCases) {
    Harness h;
    h.post(WrOpcode::kRdmaRead, 1, 0, 600);
    h.expect_packet(Opcode::kRcReadRequest);
    for (uint32_t i = 0; i < c.index; ++i) {
      h.receive(h.from_peer(i == 0 ? Opcode::kRcReadResponseFirst : Opcode::kRcReadResponseMiddle,
                            kSqPsn + i),
                bytes(kMtu));
    }
    h.expect_no_completion();
    h.receive(h.from_peer(c.opcode, kSqPsn + c.index), bytes(c.bytes));
    const Wc wc = h.expect_completion(WcStatus::kBadResp);
    EXPECT_EQ(wc.vendor_err, uint32_t{kVendorBadResponse}) << c.index;
  }
}

// A part that was asked for again may begin and end anywhere, but the first response of all begins
// one, and the last ends one.
TEST(ReadResponses, AfterARepetitionTheEndsOfTheReadMustStillFit) {
  const struct {
    Opcode opcode;
    uint32_t index;
    bool fits;
  } kCases[] = {
      {Opcode::kRcReadResponseFirst, 0, true},   {Opcode::kRcReadResponseOnly, 0, true},
      {Opcode::kRcReadResponseMiddle, 0, false}, {Opcode::kRcReadResponseLast, 0, false},
      {Opcode::kRcReadResponseFirst, 1, true},   {Opcode::kRcReadResponseMiddle, 1, true},
      {Opcode::kRcReadResponseLast, 2, true},    {Opcode::kRcReadResponseOnly, 2, true},
      {Opcode::kRcReadResponseFirst, 2, false},  {Opcode::kRcReadResponseMiddle, 2, false}};
  for (const auto& c : kCases) {
    Harness h({.go_back_n = true});
    h.post(WrOpcode::kRdmaRead, 1, 0, 600);
    h.expect_packet(Opcode::kRcReadRequest);
    h.pass(Duration::from_ms(5));
    h.expect_packet(Opcode::kRcReadRequest);
    for (uint32_t i = 0; i < c.index; ++i) {
      h.receive(h.from_peer(i == 0 ? Opcode::kRcReadResponseFirst : Opcode::kRcReadResponseMiddle,
                            kSqPsn + i),
                bytes(kMtu));
    }
    h.receive(h.from_peer(c.opcode, kSqPsn + c.index), bytes(c.index == 2 ? 88 : kMtu));
    EXPECT_EQ(h.qp->state == QpState::kRts, c.fits)
        << wire::opcode_info(static_cast<uint8_t>(c.opcode)).name << " at " << c.index;
  }
}

TEST(Lengths, OfEveryOpcodeAreChecked) {
  const struct {
    Opcode start;  // of a message, or kRcAck: none
    Opcode opcode;
    uint32_t bytes;
    uint32_t dma_length;
  } kCases[] = {{Opcode::kRcAck, Opcode::kRcSendFirst, kMtu + 4, 0},
                {Opcode::kRcAck, Opcode::kRcSendFirst, 0, 0},
                {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, kMtu - 4, 0},
                {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, kMtu + 4, 0},
                {Opcode::kRcSendFirst, Opcode::kRcSendLast, 0, 0},
                {Opcode::kRcSendFirst, Opcode::kRcSendLast, kMtu + 4, 0},
                {Opcode::kRcAck, Opcode::kRcWriteFirst, kMtu, kMtu},  // all of it: no FIRST
                {Opcode::kRcAck, Opcode::kRcWriteOnly, 8, 9},
                {Opcode::kRcAck, Opcode::kRcWriteOnly, 8, 7},
                {Opcode::kRcWriteFirst, Opcode::kRcWriteLast, 8, 0},  // 2 * kMtu were announced
                {Opcode::kRcWriteFirst, Opcode::kRcWriteMiddle, kMtu, 0},
                {Opcode::kRcAck, Opcode::kRcWriteFirst, kMtu, 0x80000001},
                {Opcode::kRcAck, Opcode::kRcReadRequest, 0, 0x80000001}};
  for (const auto& c : kCases) {
    Harness h;
    h.post_recv(1, 0, 4096);
    uint32_t psn = kRqPsn;
    if (c.start != Opcode::kRcAck) {
      auto start = h.from_peer(c.start, psn++);
      start.dma_length = 2 * kMtu;
      h.receive(start, bytes(kMtu));
      h.expect_packet(Opcode::kRcAck);
      ASSERT_EQ(h.qp->state, QpState::kRts);
    }
    auto headers = h.from_peer(c.opcode, psn);
    headers.dma_length = c.dma_length;
    h.receive(headers, bytes(c.bytes));
    SCOPED_TRACE(testing::Message() << wire::opcode_info(headers.opcode).name << ' ' << c.bytes);
    expect_invalid_request(h);
  }
}

// C-093, IBTA vol. 1, table 45, in units of 10 us.
TEST(Rnr, EachCodeIsWaitedOutAndNotMuchLonger) {
  const int64_t kTens[32] = {65536, 1,    2,    3,    4,    6,     8,     12,    16,    24,   32,
                             48,    64,   96,   128,  192,  256,   384,   512,   768,   1024, 1536,
                             2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152};
  for (uint8_t code = 0; code < 32; ++code) {
    Harness h({.timeout = 0});
    h.post(WrOpcode::kSend, 1, 0, 8);
    h.expect_packet(Opcode::kRcSendOnly);
    h.receive_ack(kSqPsn, rnr(code));
    h.pass(Duration::from_us(kTens[code] * 10 - 1));
    h.expect_silence();
    h.pass(Duration::from_us(1));
    h.expect_packet(Opcode::kRcSendOnly);
  }
}

TEST(Rnr, TheResponderSendsTheCodeOfItsAttribute) {
  Harness h({.state = QpState::kInit});
  QpAttr attr;
  attr.qp_state = QpState::kRtr;
  attr.path_mtu = 1;
  attr.dest_qpn = kPeerQpn;
  attr.rq_psn = kRqPsn;
  attr.av.dlid = kPeerLid;
  attr.min_rnr_timer = 27;
  const uint32_t mask =
      kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic | kQpMinRnrTimer;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, mask).ok());
  h.receive(h.from_peer(Opcode::kRcSendOnly, kRqPsn), bytes(8));
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.syndrome, rnr(27));
}

TEST(Rnr, ProgressRestoresItsRetries) {
  Harness h;  // rnr_retry 1
  for (uint64_t id = 1; id <= 4; ++id) h.post(WrOpcode::kSend, id, 0, 8);
  for (int i = 0; i < 4; ++i) h.expect_packet(Opcode::kRcSendOnly);
  for (uint32_t i = 0; i < 4; ++i) {
    h.receive_ack(kSqPsn + i, rnr(12));
    h.pass(Duration::from_ms(1));
    for (uint32_t k = i; k < 4; ++k) h.expect_packet(Opcode::kRcSendOnly);
    h.receive_ack(kSqPsn + i);
    EXPECT_EQ(h.expect_completion().wr_id, i + 1);
  }
}

TEST(Rnr, TheWholeSendQueueWaits) {
  Harness h;
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, rnr(12));
  h.post(WrOpcode::kRdmaWrite, 2, 0, 8);
  h.post(WrOpcode::kRdmaRead, 3, 0, 8);
  h.expect_silence();
  h.pass(Duration::from_ms(1));
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_packet(Opcode::kRcWriteOnly);
  h.expect_packet(Opcode::kRcReadRequest);
}

TEST(Rnr, TheAckTimerStandsStillMeanwhile) {
  Harness h({.retry_cnt = 0, .timeout = 1});  // 8 us
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, rnr(30));  // 327 ms
  h.pass(Duration::from_ms(300));
  h.expect_no_completion();
  h.pass(Duration::from_ms(28));
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn);
  h.expect_completion();
}

// One NAK in two is lost, for longer than the retries of silence last.
TEST(Rnr, AnAnswerRestoresTheRetriesOfSilence) {
  Harness h({.retry_cnt = 1, .rnr_retry = 7, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  for (int i = 0; i < 20; ++i) {
    h.expect_packet(Opcode::kRcSendOnly);
    h.pass(Duration::from_ms(5));  // silence
    h.expect_packet(Opcode::kRcSendOnly);
    h.receive_ack(kSqPsn, 0x21);
    h.pass(Duration::from_us(11));
  }
  EXPECT_EQ(h.endpoint->stats().timeouts, 20u);
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_ms(5));
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_ms(5));
  EXPECT_EQ(h.expect_completion(WcStatus::kRetryExc).vendor_err, uint32_t{kVendorRetryTimeout});
}

TEST(Rnr, SilenceInBetweenRestoresNoRnrRetries) {
  Harness h({.retry_cnt = 7, .rnr_retry = 1, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, 0x21);
  h.pass(Duration::from_us(11));
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_ms(5));
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn, 0x21);
  EXPECT_EQ(h.expect_completion(WcStatus::kRnrRetryExc).vendor_err, uint32_t{kVendorRnr});
}

// A clock that jumps, as it does for a process that was stopped, is one silence and not many.
TEST(Clock, AJumpCostsOneRetryAtMost) {
  Harness h({.retry_cnt = 1, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.pass(Duration::from_s(100));
  h.expect_no_completion();
  h.expect_packet(Opcode::kRcSendOnly);
  EXPECT_GE((h.endpoint->next_deadline() - h.now).ns, Duration::from_us(4194).ns)
      << "less than a whole period until the next";
  h.receive_ack(kSqPsn);
  h.expect_completion();
}

TEST(Clock, AnAcknowledgeThatWaitedThroughTheJumpCounts) {
  Harness h({.retry_cnt = 0, .go_back_n = true});
  h.post(WrOpcode::kSend, 1, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  h.now = h.now + Duration::from_s(100);
  h.receive_ack(kSqPsn);  // as Process::step does: first what has arrived, then the timers
  h.pass(Duration{});
  h.expect_completion();
  EXPECT_EQ(h.qp->state, QpState::kRts);
}

}  // namespace
}  // namespace tbt::engine
