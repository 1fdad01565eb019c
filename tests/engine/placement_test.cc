// ATOMIC WRITE and FLUSH (IBTA vol. 1, annex A19): requests that are answered like a READ of no
// bytes.
#include "harness.h"
#include "pair.h"

namespace tbt::engine {
namespace {

using wire::FlushSelectivity;
using wire::NakCode;
using wire::Opcode;

constexpr uint64_t kRemote = 0x10000;
constexpr uint32_t kGlobalRange = wire::feth(wire::kFlushGlobal, FlushSelectivity::kRange);

SendWr flush_wr(uint64_t wr_id, uint64_t length = 64, uint64_t kind = kGlobalRange) {
  SendWr wr;
  wr.wr_id = wr_id;
  wr.opcode = WrOpcode::kFlush;
  wr.flags = kSendSignaled;
  wr.remote_addr = kRemote;
  wr.rkey = 0x77;
  wr.compare_add = length;
  wr.swap = kind;
  return wr;
}

wire::PacketHeaders atomic_write(const Harness& h, uint32_t psn, uint32_t offset) {
  auto headers = h.from_peer(Opcode::kRcAtomicWrite, psn);
  headers.va = h.address(offset);
  headers.dma_length = 8;
  return headers;
}

wire::PacketHeaders flush(const Harness& h, uint32_t psn, uint32_t kind = kGlobalRange) {
  auto headers = h.from_peer(Opcode::kRcFlush, psn);
  headers.va = h.address(0);
  headers.dma_length = 64;
  headers.flush = kind;
  return headers;
}

void answer(Harness& h, uint32_t psn, std::vector<std::byte> data = {}) {
  auto headers = h.from_peer(Opcode::kRcReadResponseOnly, psn);
  headers.syndrome = 0x1f;
  h.receive(headers, std::move(data));
}

void expect_answer(Harness& h, uint32_t psn) {
  const Sent sent = h.expect_packet(Opcode::kRcReadResponseOnly);
  EXPECT_EQ(sent.headers.psn, psn);
  EXPECT_TRUE(sent.payload.empty());
}

void expect_refused(Harness& h, NakCode code) {
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kNak);
  EXPECT_EQ(wire::aeth_value(nak.headers.syndrome), static_cast<uint8_t>(code));
  EXPECT_EQ(h.qp->state, QpState::kErr);
  h.expect_event(code == NakCode::kRemoteAccessError ? AsyncEventType::kQpAccessErr
                                                     : AsyncEventType::kQpReqErr);
}

TEST(AtomicWrite, SendsEightBytesAndCompletesOnItsAnswer) {
  Harness h;
  for (uint32_t i = 0; i < 8; ++i) h.memory[32 + i] = std::byte(0xa0 + i);
  h.post(WrOpcode::kAtomicWrite, 5, 32, 8);
  const Sent sent = h.expect_packet(Opcode::kRcAtomicWrite);
  h.expect_silence();
  EXPECT_EQ(sent.headers.psn, kSqPsn);
  EXPECT_EQ(sent.headers.va, kRemote);
  EXPECT_EQ(sent.headers.rkey, 0x77u);
  EXPECT_EQ(sent.headers.dma_length, 8u);
  EXPECT_EQ(sent.payload, bytes(8, 0xa0));
  answer(h, kSqPsn);
  const Wc wc = h.expect_completion();
  EXPECT_EQ(wc.wr_id, 5u);
  EXPECT_EQ(wc.opcode, WcOpcode::kAtomicWrite);
  EXPECT_EQ(wc.byte_len, 0u);
}

TEST(AtomicWrite, MayBeInlineWhereNothingElseMay) {
  Harness h({.caps = {16, 16, 4, 4, 0}});
  h.post(WrOpcode::kAtomicWrite, 1, 32, 8, kSendSignaled | kSendInline);
  h.memory[32] = std::byte{0xff};
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicWrite).payload, std::vector<std::byte>(8));
}

TEST(AtomicWrite, AnAcknowledgeIsNotItsAnswer) {
  Harness h;
  h.post(WrOpcode::kAtomicWrite, 1, 0, 8);
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcAtomicWrite);
  h.expect_packet(Opcode::kRcSendOnly);
  h.receive_ack(kSqPsn + 1);
  h.expect_no_completion();
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicWrite).headers.psn, kSqPsn) << "its answer was lost";
}

TEST(AtomicWrite, AnAnswerWithBytesIsABadResponse) {
  Harness h;
  h.post(WrOpcode::kAtomicWrite, 1, 0, 8);
  h.expect_packet(Opcode::kRcAtomicWrite);
  answer(h, kSqPsn, bytes(8));
  h.expect_completion(WcStatus::kBadResp);
}

TEST(AtomicWrite, ABadLocalKeyIsALocalFault) {
  Harness h;
  const Sge sge{h.address(0), 8, h.key + 0x100};
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = WrOpcode::kAtomicWrite;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_silence();
  h.expect_completion(WcStatus::kLocProt);
}

TEST(AtomicWrite, IsPlacedOnceAndAnsweredAsOftenAsAsked) {
  Harness h;
  h.receive(atomic_write(h, kRqPsn, 64), bytes(8, 7));
  EXPECT_EQ(std::memcmp(&h.memory[64], bytes(8, 7).data(), 8), 0);
  expect_answer(h, kRqPsn);
  h.memory[64] = std::byte{0};
  h.receive(atomic_write(h, kRqPsn, 64), bytes(8, 7));
  EXPECT_EQ(h.memory[64], std::byte{0});
  expect_answer(h, kRqPsn);
  h.expect_silence();
}

// what is not eight bytes is refused before anything is read.
TEST(AtomicWrite, OfAnotherLengthOrAlignmentIsRefused) {
  for (const uint32_t length : {0u, 4u, 7u, 9u, 16u}) {
    Harness h;
    h.receive(atomic_write(h, kRqPsn, 64), bytes(length));
    expect_refused(h, NakCode::kInvalidRequest);
    EXPECT_EQ(h.memory[64], std::byte{0}) << length;
  }
  Harness announced;
  auto headers = atomic_write(announced, kRqPsn, 64);
  headers.dma_length = 16;
  announced.receive(headers, bytes(8));
  expect_refused(announced, NakCode::kInvalidRequest);
  Harness crooked;
  crooked.receive(atomic_write(crooked, kRqPsn, 68), bytes(8));
  expect_refused(crooked, NakCode::kInvalidRequest);
}

TEST(AtomicWrite, NeedsTheRightToWrite) {
  Harness pair({.access = kAccessRemoteRead | kAccessRemoteAtomic});
  pair.receive(atomic_write(pair, kRqPsn, 64), bytes(8));
  expect_refused(pair, NakCode::kInvalidRequest);
  Harness key;
  auto headers = atomic_write(key, kRqPsn, 64);
  headers.rkey += 0x100;
  key.receive(headers, bytes(8));
  expect_refused(key, NakCode::kRemoteAccessError);
}

TEST(AtomicWrite, UsesThePlacesOfReadsAtBothEnds) {
  Harness h;
  for (uint64_t i = 0; i < 3; ++i) h.post(WrOpcode::kAtomicWrite, i, 0, 8);
  h.expect_packet(Opcode::kRcAtomicWrite);
  h.expect_packet(Opcode::kRcAtomicWrite);
  h.expect_silence();
  answer(h, kSqPsn);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAtomicWrite).headers.psn, kSqPsn + 2);
  Harness responder;
  for (uint32_t i = 0; i < 3; ++i)
    responder.receive(atomic_write(responder, kRqPsn + i, 64), bytes(8));
  EXPECT_EQ(responder.qp->state, QpState::kErr);
  responder.expect_event(AsyncEventType::kQpReqErr);
}

TEST(Flush, NamesItsRangeAndKindAndCompletesOnItsAnswer) {
  Harness h;
  ASSERT_TRUE(h.try_post(flush_wr(9, 4096)).ok());
  const Sent sent = h.expect_packet(Opcode::kRcFlush);
  EXPECT_EQ(sent.headers.va, kRemote);
  EXPECT_EQ(sent.headers.rkey, 0x77u);
  EXPECT_EQ(sent.headers.dma_length, 4096u);
  EXPECT_EQ(sent.headers.flush, kGlobalRange);
  EXPECT_TRUE(sent.payload.empty());
  answer(h, kSqPsn);
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kFlush);
}

TEST(Flush, IsRepeatedByTheTimer) {
  Harness h;
  ASSERT_TRUE(h.try_post(flush_wr(1)).ok());
  h.expect_packet(Opcode::kRcFlush);
  h.pass(Duration::from_ms(5));
  EXPECT_EQ(h.expect_packet(Opcode::kRcFlush).headers.psn, kSqPsn);
}

TEST(Flush, IsAnsweredAfterWhatCameBeforeIt) {
  Harness h;
  auto write = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  write.dma_length = 8;
  h.receive(write, bytes(8, 3));
  h.receive(flush(h, kRqPsn + 1));
  EXPECT_EQ(h.memory[0], std::byte{3});
  expect_answer(h, kRqPsn + 1);
  h.expect_silence();
  h.receive(flush(h, kRqPsn + 1));
  expect_answer(h, kRqPsn + 1);
}

TEST(Flush, OfTheRegionDoesNotLookAtTheRange) {
  Harness h;
  auto headers = flush(h, kRqPsn, wire::feth(wire::kFlushGlobal, FlushSelectivity::kRegion));
  headers.va = 0;
  headers.dma_length = 1u << 30;
  h.receive(headers);
  expect_answer(h, kRqPsn);
}

TEST(Flush, WithoutTheRightIsRefused) {
  Harness range;
  auto outside = flush(range, kRqPsn);
  outside.va = range.address(16384 - 63);
  range.receive(outside);
  expect_refused(range, NakCode::kRemoteAccessError);
  // Nobody gives the right to persistence: a region that had it could not keep the promise.
  Harness persistent;
  persistent.receive(flush(persistent, kRqPsn, wire::kFlushGlobal | wire::kFlushPersistent));
  expect_refused(persistent, NakCode::kRemoteAccessError);
  Harness unknown;
  auto stranger = flush(unknown, kRqPsn, wire::feth(wire::kFlushGlobal, FlushSelectivity::kRegion));
  stranger.rkey += 0x100;
  unknown.receive(stranger);
  expect_refused(unknown, NakCode::kRemoteAccessError);
  Harness pair({.access = kAccessRemoteRead | kAccessRemoteWrite});
  pair.receive(flush(pair, kRqPsn));
  expect_refused(pair, NakCode::kInvalidRequest);
}

TEST(Flush, OfNoKnownKindIsRefused) {
  for (const uint32_t kind : {0u, 4u, 0x21u, 0x30u, 0x101u}) {
    Harness h;
    h.receive(flush(h, kRqPsn, kind));
    expect_refused(h, NakCode::kInvalidRequest);
    EXPECT_EQ(h.try_post(flush_wr(1, 64, kind)).code(), EINVAL) << kind;
  }
}

int refused(const Setup& setup, SendWr wr) {
  Harness h(setup);
  const Sge sge{h.address(0), 8, h.key};
  if (wr.num_sge != 0) wr.sg_list = &sge;
  return h.try_post(wr).code();
}

TEST(Placement, PostsThatCannotBeAreRefused) {
  SendWr write;
  write.opcode = WrOpcode::kAtomicWrite;
  write.remote_addr = kRemote;
  EXPECT_EQ(refused({}, write), EINVAL) << "no bytes";
  write.num_sge = 1;
  EXPECT_EQ(refused({}, write), 0);
  EXPECT_EQ(refused({.type = QpType::kUc}, write), EINVAL);
  EXPECT_EQ(refused({.rd_atomic = 0}, write), EINVAL);
  write.remote_addr = kRemote + 4;
  EXPECT_EQ(refused({}, write), EINVAL);
  EXPECT_EQ(refused({.type = QpType::kUc}, flush_wr(1)), EINVAL);
  EXPECT_EQ(refused({.rd_atomic = 0}, flush_wr(1)), EINVAL);
  EXPECT_EQ(refused({}, flush_wr(1, uint64_t{1} << 32)), EINVAL);
  SendWr with_data = flush_wr(1);
  with_data.num_sge = 1;
  EXPECT_EQ(refused({}, with_data), EINVAL);
}

TEST(Placement, AWriteAnAtomicWriteAndAFlushArriveInTheirOrder) {
  Pair pair;
  for (uint32_t i = 0; i < 64; ++i) pair.a.memory[i] = std::byte(i + 1);
  pair.post(WrOpcode::kRdmaWrite, 1, 0, 64, 128);
  pair.post(WrOpcode::kAtomicWrite, 2, 8, 8, 128);
  pair.post(WrOpcode::kRdmaRead, 3, 256, 64, 128);
  pair.carry();
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(pair.a.completion().wr_id, id);
  EXPECT_EQ(pair.b.memory[128], std::byte{9});
  EXPECT_EQ(pair.a.memory[256], std::byte{9});
}

}  // namespace
}  // namespace tbt::engine
