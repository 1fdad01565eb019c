// Memory windows: binding, what it opens and to whom, and what ends it (IBTA vol. 1, 10.6.7).
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::NakCode;
using wire::Opcode;

constexpr uint32_t kAll = kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic;

struct WindowTest : ::testing::Test {
  Harness h;
  verbs::MrTable& table = h.endpoint->regions();
  uint32_t region = add_region(kAccessLocalWrite | kAccessMwBind, h.pd);
  uint32_t window = h.endpoint->add_window(MwType::kType2, &h.pd);

  uint32_t add_region(uint32_t access, verbs::ProtectionDomain& pd) {
    return h.endpoint->register_memory({0, access, &pd, h.address(0), 4096, h.memory.data()})->key;
  }
  SendWr bind_of(uint32_t key, uint64_t offset, uint64_t length, uint32_t access) const {
    SendWr wr;
    wr.wr_id = 70;
    wr.opcode = WrOpcode::kBindMw;
    wr.flags = kSendSignaled;
    wr.rkey = key;
    wr.imm_be = region;
    wr.remote_addr = h.address(0) + offset;
    wr.compare_add = length;
    wr.swap = access;
    return wr;
  }
  // Executes at once when nothing is before it.
  Wc bind(uint32_t key, uint64_t offset = 0, uint64_t length = 256, uint32_t access = kAll,
          WcStatus status = WcStatus::kSuccess) {
    EXPECT_TRUE(h.try_post(bind_of(key, offset, length, access)).ok());
    h.expect_silence();
    return h.expect_completion(status);
  }
  Wc local_invalidate(uint32_t key, WcStatus status = WcStatus::kSuccess) {
    SendWr wr;
    wr.wr_id = 71;
    wr.opcode = WrOpcode::kLocalInv;
    wr.flags = kSendSignaled;
    wr.rkey = key;
    EXPECT_TRUE(h.try_post(wr).ok());
    h.expect_silence();
    return h.expect_completion(status);
  }
  bool opens(uint32_t key, uint64_t va, uint64_t length, uint32_t access) const {
    verbs::KeyError why{};
    return table.translate(key, h.qp->accessor(), va, length, access, why) != nullptr;
  }
  bool opens(uint32_t key) const { return opens(key, h.address(0), 1, kAccessRemoteWrite); }
  void receive_send_inv(uint32_t psn, uint32_t key) {
    auto headers = h.from_peer(Opcode::kRcSendOnlyInv, psn);
    headers.rkey = key;
    headers.ack_req = true;
    h.receive(headers, bytes(8));
  }
  void expect_access_nak() {
    const Sent nak = h.expect_packet(Opcode::kRcAck);
    EXPECT_EQ(wire::aeth_kind(nak.headers.syndrome), wire::AethKind::kNak);
    EXPECT_EQ(wire::aeth_value(nak.headers.syndrome),
              static_cast<uint8_t>(NakCode::kRemoteAccessError));
  }
};

using Window = WindowTest;
using WindowInvalidation = WindowTest;

TEST_F(Window, ABoundOneOpensItsRangeWithItsRightsUnderTheNewKey) {
  const uint32_t key = window ^ 5;
  EXPECT_FALSE(opens(window)) << "not bound yet";
  const Wc done = bind(key, 128, 64, kAccessRemoteWrite);
  EXPECT_EQ(done.opcode, WcOpcode::kBindMw);
  EXPECT_EQ(done.wr_id, 70u);
  EXPECT_TRUE(opens(key, h.address(128), 64, kAccessRemoteWrite));
  EXPECT_FALSE(opens(key, h.address(127), 1, kAccessRemoteWrite));
  EXPECT_FALSE(opens(key, h.address(128), 65, kAccessRemoteWrite));
  EXPECT_FALSE(opens(key, h.address(128), 8, kAccessRemoteRead));
  EXPECT_FALSE(opens(window, h.address(128), 8, kAccessRemoteWrite)) << "the old key";
}

TEST_F(Window, AWriteThroughItLandsInTheRegion) {
  const uint32_t key = window + 1;
  bind(key, 256, 64);
  auto headers = h.from_peer(Opcode::kRcWriteOnly, kRqPsn);
  headers.rkey = key;
  headers.va = h.address(256);
  headers.dma_length = 8;
  headers.ack_req = true;
  h.receive(headers, bytes(8));
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn);
  EXPECT_EQ(h.memory[256], std::byte{1});
  EXPECT_EQ(h.memory[263], std::byte{8});
}

TEST_F(Window, AZeroBasedOneCountsFromItsBeginning) {
  bind(window, 512, 64, kAccessRemoteRead | kAccessZeroBased);
  verbs::KeyError why{};
  EXPECT_EQ(table.translate(window, h.qp->accessor(), 4, 60, kAccessRemoteRead, why),
            h.memory.data() + 516);
  EXPECT_FALSE(opens(window, h.address(512), 8, kAccessRemoteRead));
}

TEST_F(Window, ItsKeyIsNoLkey) {
  const uint32_t first = h.endpoint->add_window(MwType::kType1, &h.pd);
  bind(first);
  bind(window);
  for (const uint32_t key : {first, window}) {
    EXPECT_FALSE(opens(key, h.address(0), 8, verbs::kAccessLocalRead));
    EXPECT_FALSE(opens(key, h.address(0), 8, kAccessLocalWrite));
  }
  const Sge sge{h.address(0), 8, first};
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_silence();
  h.expect_completion(WcStatus::kLocProt);
}

TEST_F(Window, OfType2OpensToTheQueuePairThatBoundItOnly) {
  bind(window);
  verbs::KeyError why{};
  EXPECT_EQ(
      table.translate(window, {&h.pd, kLocalQpn + 1}, h.address(0), 8, kAccessRemoteRead, why),
      nullptr);
  EXPECT_EQ(why, verbs::KeyError::kWrongPd);
}

TEST_F(Window, OfType1OpensToTheWholeDomainAndIsReboundAtWill) {
  const uint32_t first = h.endpoint->add_window(MwType::kType1, &h.pd);
  bind(first, 0, 64);
  bind(first + 1 - (first % 256 == 255 ? 256 : 0), 64, 64);
  verbs::KeyError why{};
  const uint32_t now = table.window_key(first);
  EXPECT_NE(table.translate(now, {&h.pd, 12345}, h.address(64), 64, kAccessRemoteRead, why),
            nullptr);
  EXPECT_EQ(table.translate(now, {&h.other_pd, 12345}, h.address(64), 64, kAccessRemoteRead, why),
            nullptr);
  EXPECT_EQ(table.translate(now, {&h.other_pd}, h.address(64), 64, kAccessRemoteRead, why),
            nullptr);
  EXPECT_FALSE(opens(first, h.address(0), 8, kAccessRemoteRead)) << "the key before";
  bind(now, 0, 0);  // of no length: unbinds
  EXPECT_FALSE(opens(now, h.address(64), 8, kAccessRemoteRead));
  EXPECT_TRUE(table.erase(region)) << "no window is bound to it any more";
}

TEST_F(Window, ABoundRegionStaysUntilTheWindowIsGone) {
  bind(window);
  EXPECT_FALSE(table.erase(region));
  EXPECT_FALSE(table.replace(region, {0, 0, &h.pd, h.address(0), 16, h.memory.data()}));
  table.remove_window(window);
  EXPECT_FALSE(opens(window));
  EXPECT_TRUE(table.erase(region));
}

TEST_F(Window, BoundBehindARequestItWaitsForItsAcknowledge) {
  h.post(WrOpcode::kRdmaWrite, 1, 0, 8);
  ASSERT_TRUE(h.try_post(bind_of(window, 0, 64, kAll)).ok());
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcWriteOnly);
  h.expect_silence();
  EXPECT_FALSE(opens(window));
  h.receive_ack(kSqPsn);
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendOnly).headers.psn, kSqPsn + 1);
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kBindMw);
  EXPECT_TRUE(opens(window));
}

TEST_F(Window, UnderRetransmissionTheBindIsDoneOnce) {
  const uint32_t first = h.endpoint->add_window(MwType::kType1, &h.pd);
  ASSERT_TRUE(h.try_post(bind_of(first, 0, 64, kAll)).ok());
  h.post(WrOpcode::kSend, 2, 0, 8);
  h.expect_packet(Opcode::kRcSendOnly);
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kBindMw);
  h.pass(Duration::from_ms(2));  // the measured timer
  h.expect_packet(Opcode::kRcSendOnly);
  h.expect_no_completion();
  h.receive_ack(kSqPsn);
  EXPECT_EQ(h.expect_completion().wr_id, 2u);
  h.expect_no_completion();
}

TEST_F(Window, ADrainedSendQueueHoldsABindBack) {
  QpAttr attr;
  attr.qp_state = QpState::kSqd;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  ASSERT_TRUE(h.try_post(bind_of(window, 0, 64, kAll)).ok());
  h.expect_silence();
  h.expect_no_completion();
  attr.qp_state = QpState::kRts;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  h.expect_silence();
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kBindMw);
}

struct BadBind {
  const char* what;
  uint32_t region_access;
  bool other_domain;
  uint64_t offset, length;
  uint32_t access;
};

class BadBindTest : public ::testing::TestWithParam<BadBind> {};

TEST_P(BadBindTest, EndsInAnErrorThatSaysSoAndOpensNothing) {
  const BadBind& bad = GetParam();
  Harness h;
  auto& table = h.endpoint->regions();
  const uint32_t region =
      h.endpoint
          ->register_memory({0, bad.region_access, bad.other_domain ? &h.other_pd : &h.pd,
                             h.address(0), 256, h.memory.data()})
          ->key;
  const uint32_t window = h.endpoint->add_window(MwType::kType2, &h.pd);
  SendWr wr;
  wr.opcode = WrOpcode::kBindMw;
  wr.rkey = window;
  wr.imm_be = region;
  wr.remote_addr = h.address(0) + bad.offset;
  wr.compare_add = bad.length;
  wr.swap = bad.access;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_silence();
  const Wc failed = h.expect_completion(WcStatus::kMwBind);
  EXPECT_EQ(failed.vendor_err, kVendorWindow);
  EXPECT_EQ(h.qp->state, QpState::kErr);
  verbs::KeyError why{};
  EXPECT_EQ(table.translate(window, h.qp->accessor(), h.address(0), 1, bad.access, why), nullptr);
  EXPECT_TRUE(table.erase(region)) << "nothing is bound to it";
}

constexpr uint32_t kBindable = kAccessLocalWrite | kAccessMwBind;
INSTANTIATE_TEST_SUITE_P(
    Window, BadBindTest,
    ::testing::Values(
        BadBind{"region without the right", kAccessLocalWrite, false, 0, 64, kAccessRemoteRead},
        BadBind{"region of another domain", kBindable, true, 0, 64, kAccessRemoteRead},
        BadBind{"beyond its end", kBindable, false, 200, 57, kAccessRemoteRead},
        BadBind{"before its beginning", kBindable, false, ~uint64_t{0}, 8, kAccessRemoteRead},
        BadBind{"wraps", kBindable, false, 8, ~uint64_t{0}, kAccessRemoteRead},
        BadBind{"write to a read-only region", kAccessMwBind, false, 0, 64, kAccessRemoteWrite},
        BadBind{"atomic on a read-only region", kAccessMwBind, false, 0, 64, kAccessRemoteAtomic}));

TEST_F(Window, OfType2CannotBeBoundTwice) {
  bind(window, 0, 64);
  EXPECT_EQ(bind(window ^ 1, 0, 64, kAll, WcStatus::kMwBind).vendor_err, kVendorWindow);
  EXPECT_TRUE(opens(window)) << "the first binding stands";
}

TEST_F(Window, OfAnotherDomainCannotBeBound) {
  const uint32_t foreign = h.endpoint->add_window(MwType::kType2, &h.other_pd);
  bind(foreign, 0, 64, kAll, WcStatus::kMwBind);
}

TEST_F(Window, TheKeyOfARegionIsNoWindow) { bind(h.key, 0, 64, kAll, WcStatus::kMwBind); }

TEST_F(Window, OfType2EndsWithItsQueuePair) {
  bind(window);
  h.endpoint->destroy_qp(h.now, *h.qp);
  EXPECT_TRUE(table.erase(region));
}

TEST_F(Window, OfType1OutlivesTheQueuePair) {
  const uint32_t first = h.endpoint->add_window(MwType::kType1, &h.pd);
  bind(first);
  h.endpoint->destroy_qp(h.now, *h.qp);
  EXPECT_FALSE(table.erase(region));
  verbs::KeyError why{};
  EXPECT_NE(table.translate(first, {&h.pd, 77}, h.address(0), 8, kAccessRemoteRead, why), nullptr);
}

TEST_F(Window, OfType2EndsWhenItsQueuePairIsReset) {
  bind(window);
  QpAttr attr;
  attr.qp_state = QpState::kReset;
  ASSERT_TRUE(h.endpoint->modify_qp(h.now, *h.qp, attr, kQpState).ok());
  EXPECT_FALSE(opens(window));
  EXPECT_TRUE(table.erase(region));
}

TEST_F(Window, PostsThatCannotBeMeantAreRefusedAtOnce) {
  SendWr wr = bind_of(window, 0, 64, kAccessMwBind);
  EXPECT_EQ(h.try_post(wr).code(), EINVAL) << "not a right of windows";
  const Sge sge{h.address(0), 8, h.key};
  wr = bind_of(window, 0, 64, kAll);
  wr.sg_list = &sge;
  wr.num_sge = 1;
  EXPECT_EQ(h.try_post(wr).code(), EINVAL) << "data";
  Harness uc({.type = QpType::kUc}), ud({.type = QpType::kUd});
  SendWr plain;
  plain.opcode = WrOpcode::kSendInv;
  EXPECT_EQ(uc.try_post(plain).code(), EINVAL);
  plain.opcode = WrOpcode::kLocalInv;
  EXPECT_EQ(ud.try_post(plain).code(), EINVAL);
}

TEST_F(Window, AUcPairBindsToo) {
  Harness uc({.type = QpType::kUc, .uc_drop = true});
  const uint32_t mr =
      uc.endpoint->register_memory({0, kBindable, &uc.pd, uc.address(0), 256, uc.memory.data()})
          ->key;
  SendWr wr = bind_of(uc.endpoint->add_window(MwType::kType2, &uc.pd), 0, 0, kAccessRemoteWrite);
  wr.imm_be = mr;
  wr.remote_addr = uc.address(0);
  wr.compare_add = 64;
  uc.post(WrOpcode::kSend, 1, 0, 8);
  ASSERT_TRUE(uc.try_post(wr).ok());
  uc.post(WrOpcode::kSend, 2, 0, 8);
  uc.expect_packet(Opcode::kUcSendOnly);
  uc.expect_packet(Opcode::kUcSendOnly);
  EXPECT_EQ(uc.expect_completion().wr_id, 1u);
  EXPECT_EQ(uc.expect_completion().opcode, WcOpcode::kBindMw);
  EXPECT_EQ(uc.expect_completion().wr_id, 2u);
}

TEST_F(WindowInvalidation, LocalClosesItAndAllowsANewBinding) {
  bind(window);
  EXPECT_EQ(local_invalidate(window).opcode, WcOpcode::kLocalInv);
  EXPECT_FALSE(opens(window));
  EXPECT_TRUE(table.replace(region, {0, kBindable, &h.pd, h.address(0), 4096, h.memory.data()}));
  bind(window ^ 3);
  EXPECT_TRUE(opens(window ^ 3));
}

TEST_F(WindowInvalidation, LocalOfWhatIsNotBoundIsAnError) {
  EXPECT_EQ(local_invalidate(window, WcStatus::kMwBind).vendor_err, kVendorWindow);
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

TEST_F(WindowInvalidation, LocalOfARegionOrOfType1IsAnError) {
  EXPECT_FALSE(table.may_invalidate(h.key, h.qp->accessor()));
  const uint32_t first = h.endpoint->add_window(MwType::kType1, &h.pd);
  bind(first);
  local_invalidate(first, WcStatus::kMwBind);
}

TEST_F(WindowInvalidation, ASendWithInvalidateSaysTheKeyInItsLastPacketOnly) {
  const Sge sge{h.address(0), 300, h.key};
  SendWr wr;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = WrOpcode::kSendInv;
  wr.rkey = 0x1234;
  wr.flags = kSendSignaled;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_packet(Opcode::kRcSendFirst);
  EXPECT_EQ(h.expect_packet(Opcode::kRcSendLastInv).headers.rkey, 0x1234u);
  h.receive_ack(kSqPsn + 1);
  EXPECT_EQ(h.expect_completion().opcode, WcOpcode::kSend);
}

TEST_F(WindowInvalidation, ByThePeerClosesItBeforeTheReceiveCompletes) {
  bind(window);
  h.post_recv(9, 1024, 64);
  receive_send_inv(kRqPsn, window);
  const Wc done = h.expect_completion();
  EXPECT_EQ(done.opcode, WcOpcode::kRecv);
  EXPECT_EQ(done.flags, static_cast<uint32_t>(kWcWithInv));
  EXPECT_EQ(done.imm_be, window);
  EXPECT_EQ(done.byte_len, 8u);
  EXPECT_EQ(h.memory[1024], std::byte{1});
  EXPECT_FALSE(opens(window));
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn);
}

TEST_F(WindowInvalidation, ByThePeerWaitsForAReceive) {
  bind(window);
  receive_send_inv(kRqPsn, window);
  EXPECT_EQ(wire::aeth_kind(h.expect_packet(Opcode::kRcAck).headers.syndrome),
            wire::AethKind::kRnrNak);
  EXPECT_TRUE(opens(window));
  h.post_recv(9, 1024, 64);
  receive_send_inv(kRqPsn, window);
  h.expect_completion();
  EXPECT_FALSE(opens(window));
}

TEST_F(WindowInvalidation, ADuplicateOfItIsAcknowledgedAndNothingElse) {
  bind(window);
  h.post_recv(9, 1024, 64);
  receive_send_inv(kRqPsn, window);
  h.expect_completion();
  h.expect_packet(Opcode::kRcAck);
  bind(window);  // the same key again
  receive_send_inv(kRqPsn, window);
  EXPECT_EQ(h.expect_packet(Opcode::kRcAck).headers.psn, kRqPsn);
  EXPECT_TRUE(opens(window));
  EXPECT_EQ(h.qp->state, QpState::kRts);
}

TEST_F(WindowInvalidation, ByThePeerOfAnUnboundOneIsRefusedOnBothSides) {
  h.post_recv(9, 1024, 64);
  receive_send_inv(kRqPsn, window);
  EXPECT_EQ(h.expect_completion(WcStatus::kLocAccess).vendor_err, kVendorRemoteKey);
  expect_access_nak();
  EXPECT_EQ(h.qp->state, QpState::kErr);
}

TEST_F(WindowInvalidation, ByThePeerOfARegionIsRefusedAndTheRegionStays) {
  h.post_recv(9, 1024, 64);
  receive_send_inv(kRqPsn, h.key);
  h.expect_completion(WcStatus::kLocAccess);
  expect_access_nak();
  EXPECT_TRUE(opens(h.key));
}

}  // namespace
}  // namespace tbt::engine
