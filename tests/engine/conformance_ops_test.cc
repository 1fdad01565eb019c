// Operations and memory: numbers C-100 to C-126 of docs/conformance.md, as far as the engine
// decides them.
#include "pair.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

void expect_nak(Harness& h, wire::NakCode code) {
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(nak.headers.syndrome,
            wire::aeth_syndrome(wire::AethKind::kNak, static_cast<uint8_t>(code)));
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

wire::PacketHeaders request(Harness& h, Opcode opcode, uint32_t length) {
  auto headers = h.from_peer(opcode, kRqPsn);
  headers.dma_length = length;
  return headers;
}

// Each way to have no right to the memory, for each operation.
TEST(RemoteAccess, WithoutTheRightToTheMemoryIsRefusedAndTouchesNothing) {
  enum { kWrongKey, kOtherDomain, kNoRight, kBefore, kBehind, kWrap, kGone, kCount };
  for (Opcode opcode : {Opcode::kRcWriteOnly, Opcode::kRcReadRequest, Opcode::kRcFetchAdd}) {
    for (int fault = 0; fault < kCount; ++fault) {
      SCOPED_TRACE(testing::Message()
                   << wire::opcode_info(static_cast<uint8_t>(opcode)).name << " fault " << fault);
      Harness h;
      const uint32_t all = h.endpoint->regions().find(h.key)->access;
      verbs::MemoryRegion region{0, all, &h.pd, h.address(64), 64, h.memory.data() + 64};
      if (fault == kOtherDomain) region.pd = &h.other_pd;
      if (fault == kNoRight) region.access = kAccessLocalWrite;
      auto headers = request(h, opcode, 8);
      headers.rkey = h.endpoint->register_memory(region)->key;
      headers.va = region.iova;
      headers.swap_add = 1;
      if (fault == kWrongKey) headers.rkey ^= 0x100;
      if (fault == kBefore) headers.va -= 8;
      if (fault == kBehind) headers.va += 64;
      if (fault == kWrap) headers.va = UINT64_MAX - 7;  // ends at 0
      if (fault == kGone) h.endpoint->regions().erase(headers.rkey);
      h.receive(headers, opcode == Opcode::kRcWriteOnly ? bytes(8) : std::vector<std::byte>{});
      expect_nak(h, wire::NakCode::kRemoteAccessError);
      h.expect_silence();
      h.expect_event(AsyncEventType::kQpAccessErr);
      EXPECT_EQ(std::count(h.memory.begin(), h.memory.end(), std::byte{0}),
                static_cast<ptrdiff_t>(h.memory.size()));
    }
  }
}

TEST(RemoteAccess, OfNoLengthNeedsNoKey) {
  Harness h;
  auto read = request(h, Opcode::kRcReadRequest, 0);
  read.rkey = 1;
  read.va = 3;
  h.receive(read);
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadResponseOnly).payload.size(), 0u);
  auto write = h.from_peer(Opcode::kRcWriteOnly, kRqPsn + 1);
  write.rkey = 1;
  h.receive(write);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn + 1);
  EXPECT_EQ(h.qp->state, QpState::kRts);
}

TEST(RemoteAccess, WithoutTheRightOfTheQueuePairIsAnInvalidRequest) {
  const struct {
    Opcode opcode;
    uint32_t right;
  } kCases[] = {{Opcode::kRcWriteOnly, kAccessRemoteWrite},
                {Opcode::kRcWriteOnlyImm, kAccessRemoteWrite},
                {Opcode::kRcReadRequest, kAccessRemoteRead},
                {Opcode::kRcCmpSwap, kAccessRemoteAtomic},
                {Opcode::kRcFetchAdd, kAccessRemoteAtomic}};
  const uint32_t all = kAccessRemoteWrite | kAccessRemoteRead | kAccessRemoteAtomic;
  for (const auto& c : kCases) {
    SCOPED_TRACE(wire::opcode_info(static_cast<uint8_t>(c.opcode)).name);
    const bool payload = c.right == kAccessRemoteWrite;
    Harness h({.access = all & ~c.right});
    h.receive(request(h, c.opcode, 8), payload ? bytes(8) : std::vector<std::byte>{});
    expect_nak(h, wire::NakCode::kInvalidRequest);
    h.expect_event(AsyncEventType::kQpReqErr);
    EXPECT_EQ(h.memory[0], std::byte{0});
    Harness allowed({.access = c.right});
    allowed.post_recv(1, 512, 0);
    allowed.receive(request(allowed, c.opcode, 8), payload ? bytes(8) : std::vector<std::byte>{});
    EXPECT_EQ(allowed.qp->state, QpState::kRts);
  }
}

TEST(RemoteAccess, ReadsAndAtomicsNeedMaxDestRdAtomic) {
  for (Opcode opcode : {Opcode::kRcReadRequest, Opcode::kRcCmpSwap, Opcode::kRcFetchAdd}) {
    Harness h({.rd_atomic = 0});
    h.receive(request(h, opcode, 8));
    expect_nak(h, wire::NakCode::kInvalidRequest);
    h.expect_event(AsyncEventType::kQpReqErr);
  }
}

TEST(Immediate, AMessageOfNoBytesCompletesWithNone) {
  Pair pair;
  for (uint64_t id = 1; id <= 2; ++id) ASSERT_TRUE(pair.b.post_recv(id, 0, 64).ok());
  pair.post(WrOpcode::kSend, 5, 0, 0);
  pair.post(WrOpcode::kSendImm, 6, 0, 0);
  pair.carry();
  EXPECT_EQ(pair.a.completion().wr_id, 5u);
  EXPECT_EQ(pair.a.completion().wr_id, 6u);
  for (uint64_t id = 1; id <= 2; ++id) {
    const Wc wc = pair.b.completion();
    EXPECT_EQ(wc.wr_id, id);
    EXPECT_EQ(wc.byte_len, 0u);
    EXPECT_EQ(wc.flags, id == 2 ? uint32_t{kWcWithImm} : 0u);
  }
}

TEST(Immediate, OfAWriteTakesOneReceiveWhateverTheLengthAndLeavesItsBufferAlone) {
  for (uint32_t length : {0u, 8u, 3 * kMtu}) {
    Pair pair;
    ASSERT_TRUE(pair.b.post_recv(1, 0, 1024).ok());
    ASSERT_TRUE(pair.b.post_recv(2, 0, 1024).ok());
    std::fill_n(pair.a.memory.begin(), 1024, std::byte{9});
    const Sge sge{pair.a.address(0), length, pair.a.key};
    SendWr wr;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = WrOpcode::kRdmaWriteImm;
    wr.imm_be = 0x12345678;
    wr.remote_addr = pair.b.address(4096);
    wr.rkey = length == 0 ? 1 : pair.b.key;
    ASSERT_TRUE(pair.a.post(wr).ok());
    pair.carry();
    const Wc wc = pair.b.completion();
    EXPECT_EQ(wc.wr_id, 1u);
    EXPECT_EQ(wc.opcode, WcOpcode::kRecvRdmaImm);
    EXPECT_EQ(wc.byte_len, length);
    EXPECT_EQ(wc.imm_be, 0x12345678u);
    EXPECT_EQ(pair.b.cq.queued(), 0u);
    EXPECT_EQ(pair.b.qp->rq.posted(), 1u);
    EXPECT_EQ(pair.b.memory[0], std::byte{0});
    EXPECT_EQ(pair.b.memory[4096], length == 0 ? std::byte{0} : std::byte{9});
  }
}

TEST(Immediate, OfAWriteWithoutAReceiveIsReceiverNotReady) {
  Harness h;
  h.receive(request(h, Opcode::kRcWriteOnlyImm, 8), bytes(8));
  const Sent nak = h.expect_packet(Opcode::kRcAck);
  EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kRnrNak);
  EXPECT_EQ(nak.headers.psn, kRqPsn);
  h.post_recv(1, 512, 0);
  h.receive(request(h, Opcode::kRcWriteOnlyImm, 8), bytes(8));
  h.expect_completion();
}

TEST(Immediate, OfAWriteWithABadKeyFailsTheReceiveWithItsCause) {
  Harness h;
  h.post_recv(1, 512, 0);
  h.post_recv(2, 512, 0);
  auto headers = request(h, Opcode::kRcWriteOnlyImm, 8);
  headers.rkey ^= 0x100;
  h.receive(headers, bytes(8));
  const Wc wc = h.expect_completion(WcStatus::kLocAccess);
  EXPECT_EQ(wc.wr_id, 1u);
  EXPECT_EQ(wc.vendor_err, uint32_t{kVendorRemoteKey});
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 2u);
  expect_nak(h, wire::NakCode::kRemoteAccessError);
  EXPECT_TRUE(h.events().empty()) << "the receive has the cause";
}

// The FIRST of a longer one does not say that an immediate follows, so no receive is taken for it;
// its LAST does.
TEST(Immediate, OfALongWriteWithABadKeyFailsTheReceiveIfTheKeyDiesBeforeTheEnd) {
  Harness h;
  h.post_recv(1, 512, 0);
  auto first = request(h, Opcode::kRcWriteFirst, 2 * kMtu);
  first.rkey ^= 0x100;
  h.receive(first, bytes(kMtu));
  h.expect_completion(WcStatus::kWrFlush);
  h.expect_event(AsyncEventType::kQpAccessErr);

  Harness other;
  other.post_recv(1, 512, 0);
  other.receive(request(other, Opcode::kRcWriteFirst, 2 * kMtu), bytes(kMtu));
  other.expect_packet(Opcode::kRcAck);
  other.endpoint->regions().erase(other.key);
  other.receive(other.from_peer(Opcode::kRcWriteLastImm, kRqPsn + 1), bytes(kMtu));
  EXPECT_EQ(other.expect_completion(WcStatus::kLocAccess).wr_id, 1u);
  expect_nak(other, wire::NakCode::kRemoteAccessError);
  EXPECT_TRUE(other.events().empty());
}

TEST(Post, RefusesOpcodesThatTheTypeHasNot) {
  for (QpType type : {QpType::kRc, QpType::kUc, QpType::kUd}) {
    for (uint8_t code = 0; code <= 6; ++code) {
      const auto opcode = static_cast<WrOpcode>(code);
      const bool send = opcode == WrOpcode::kSend || opcode == WrOpcode::kSendImm;
      const bool write = opcode == WrOpcode::kRdmaWrite || opcode == WrOpcode::kRdmaWriteImm;
      const bool allowed = type == QpType::kRc || send || (write && type == QpType::kUc);
      Harness h({.type = type});
      AddressHandle ah;
      ah.pd = &h.pd;
      const Sge sge{h.address(0), 8, h.key};
      SendWr wr;
      wr.sg_list = &sge;
      wr.num_sge = 1;
      wr.opcode = opcode;
      EXPECT_EQ(h.try_post(wr, &ah).code(), allowed ? 0 : EINVAL)
          << "type " << int(type) << " opcode " << int(code);
    }
  }
}

TEST(Post, RefusesMessagesAboveTheLimitAndAddsUpWithoutWrapping) {
  Harness h;
  Sge sges[4];
  SendWr wr;
  wr.sg_list = sges;
  wr.num_sge = 1;
  sges[0] = {h.address(0), limits::kMaxMessageBytes, h.key};
  EXPECT_TRUE(h.try_post(wr).ok()) << "its range is checked when it is sent";
  sges[0].length = limits::kMaxMessageBytes + 1;
  EXPECT_EQ(h.try_post(wr).code(), EINVAL);
  wr.num_sge = 4;
  for (Sge& sge : sges) sge = {h.address(0), 0x40000000, h.key};  // 2^32 together
  EXPECT_EQ(h.try_post(wr).code(), EINVAL);
}

TEST(Scatter, ListsMayOverlapAndHaveEmptyParts) {
  Pair pair;
  for (uint32_t i = 0; i < 64; ++i) pair.a.memory[i] = std::byte(i + 1);
  const Sge into[4] = {{pair.b.address(0), 16, pair.b.key},
                       {0, 0, 0},
                       {pair.b.address(8), 16, pair.b.key},
                       {pair.b.address(100), 16, pair.b.key}};
  ASSERT_TRUE(pair.b.endpoint.post_recv(pair.b.now, *pair.b.qp, {1, into, 4}).ok());
  const Sge from[3] = {{pair.a.address(0), 32, pair.a.key},
                       {pair.a.address(16), 8, pair.a.key},  // again
                       {pair.a.address(0), 0, 12345}};
  SendWr wr;
  wr.sg_list = from;
  wr.num_sge = 3;
  ASSERT_TRUE(pair.a.post(wr).ok());
  pair.carry();
  EXPECT_EQ(pair.b.completion().byte_len, 40u);
  // In the order of the list: the second part lies over the end of the first.
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(pair.b.memory[i], std::byte(1 + i));
  for (uint32_t i = 0; i < 16; ++i) EXPECT_EQ(pair.b.memory[8 + i], std::byte(17 + i));
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(pair.b.memory[100 + i], std::byte(17 + i));
}

TEST(Duplicates, AWriteIsNotAppliedAgain) {
  Harness h;
  const auto write = request(h, Opcode::kRcWriteOnly, 8);
  h.receive(write, bytes(8));
  h.expect_packet(Opcode::kRcAck);
  h.memory[0] = std::byte{99};
  h.receive(write, bytes(8));
  EXPECT_EQ(h.memory[0], std::byte{99});
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn);
}

TEST(UcReceive, ATooSmallOneFailsAndTheQueuePairWithIt) {
  Harness h({.type = QpType::kUc});
  h.post_recv(1, 0, 7);
  h.post_recv(2, 0, 64);
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn), bytes(8));
  EXPECT_EQ(h.expect_completion(WcStatus::kLocLen).vendor_err, uint32_t{kVendorLocalLength});
  EXPECT_EQ(h.expect_completion(WcStatus::kWrFlush).wr_id, 2u);
  EXPECT_EQ(h.qp->state, QpState::kErr);
  h.expect_silence();
}

TEST(UcReceive, AMissingOneLosesTheMessageSilently) {
  Harness h({.type = QpType::kUc, .uc_drop = true});
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn), bytes(8));
  h.receive(h.from_peer(Opcode::kUcWriteOnlyImm, kRqPsn + 1));
  h.expect_no_completion();
  h.expect_silence();
  EXPECT_EQ(h.endpoint->stats().rx_uc_dropped, 2u);
  h.post_recv(1, 0, 64);
  h.receive(h.from_peer(Opcode::kUcSendOnly, kRqPsn + 2), bytes(8));
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
}

// Every size from nothing to beyond three packets, at every alignment modulo 64 in turn, with the
// list cut everywhere in turn; and the sizes around each power of two that the memory here holds.
class Sizes : public testing::TestWithParam<WrOpcode> {
 protected:
  void move(uint32_t size, uint32_t round) {
    End& a = pair.a;
    End& b = pair.b;
    const uint32_t from = 64 + round % 64;
    const uint32_t to = 64 + (round * 7 + 3) % 64;
    const bool read = GetParam() == WrOpcode::kRdmaRead;
    End& source = read ? b : a;
    End& target = read ? a : b;
    for (uint32_t i = 0; i < size; ++i) source.memory[from + i] = pattern(i + round);
    std::fill(target.memory.begin(), target.memory.begin() + to + size + 64, kGuard);
    const uint32_t local = read ? to : from;
    const uint32_t cut = size == 0 ? 0 : (round * 13) % (size + 1);
    const Sge sges[2] = {{a.address(local), cut, a.key},
                         {a.address(local + cut), size - cut, a.key}};
    SendWr wr;
    wr.sg_list = sges;
    wr.num_sge = 2;
    wr.opcode = GetParam();
    wr.flags = kSendSignaled;
    wr.remote_addr = b.address(read ? from : to);
    wr.rkey = b.key;
    if (GetParam() == WrOpcode::kSend) {
      const uint32_t split = (round * 5) % (size + 1);
      const Sge into[2] = {{b.address(to), split, b.key},
                           {b.address(to + split), size - split, b.key}};
      ASSERT_TRUE(b.endpoint.post_recv(b.now, *b.qp, {1, into, 2}).ok());
    }
    ASSERT_TRUE(a.post(wr).ok());
    pair.carry();
    ASSERT_EQ(a.completion().status, WcStatus::kSuccess);
    if (GetParam() == WrOpcode::kSend) {
      ASSERT_EQ(b.completion().byte_len, size);
    }
    for (uint32_t i = 0; i < size; ++i)
      ASSERT_EQ(target.memory[to + i], pattern(i + round)) << size << " byte " << i;
    for (uint32_t i = 0; i < to; ++i) ASSERT_EQ(target.memory[i], kGuard) << size;
    for (uint32_t i = 0; i < 64; ++i) ASSERT_EQ(target.memory[to + size + i], kGuard) << size;
  }
  static std::byte pattern(uint32_t i) { return std::byte(i * 131 + (i >> 8) * 7 + 1); }
  static constexpr std::byte kGuard{0xa5};
  Pair pair;
};

TEST_P(Sizes, ArriveByteForByteAtEveryAlignmentAndSplit) {
  for (uint32_t size = 0; size <= 3 * kMtu + 1; ++size) {
    for (uint32_t k = 0; k < 4; ++k) {
      ASSERT_NO_FATAL_FAILURE(move(size, size * 4 + k));
    }
  }
  for (uint32_t alignment = 0; alignment < 64; ++alignment)
    ASSERT_NO_FATAL_FAILURE(move(2 * kMtu + 5, alignment));
  for (uint32_t power = 1024; power <= 32768; power *= 2) {
    for (uint32_t size : {power - 1, power, power + 1}) ASSERT_NO_FATAL_FAILURE(move(size, size));
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, Sizes,
                         testing::Values(WrOpcode::kSend, WrOpcode::kRdmaWrite,
                                         WrOpcode::kRdmaRead));

}  // namespace
}  // namespace tbt::engine
