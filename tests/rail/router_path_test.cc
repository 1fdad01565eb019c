// Path entries of the router model: written as connection managers write them, read as the data
// plane does.
#include "router_world.h"

namespace tbt::rail::emulated {
namespace {

using namespace testing;  // NOLINT

constexpr ConfigSpace kPath = ConfigSpace::kPath;

uint32_t low(uint32_t next, uint32_t egress, uint32_t credits) {
  return next | egress << kEgressShift | credits << kCreditsShift | 1u << 31;
}
constexpr uint32_t kFlow = 3u << 24;  // ingress and egress

TEST(RouterPaths, AnEntryLeadsWhereItWasWritten) {
  World w({.ports = 2, .hop_count = 12});
  EXPECT_FALSE(w.a.model().path(1, 8).enabled);
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(3, 5, 14), kFlow | 5u << 8 | 1}));
  const PathEntry expected{.enabled = true,
                           .egress_adapter = 5,
                           .next_hop = 3,
                           .credits = 14,
                           .drop = false,
                           .ingress_fc = true,
                           .egress_fc = true};
  EXPECT_EQ(w.a.model().path(1, 8), expected);
  EXPECT_EQ(w.a.read(kPath, 1, 16, 2), (std::vector<uint32_t>{low(3, 5, 14), kFlow | 0x501}));
  for (const uint32_t hop : {0u, 7u, 9u, 31u}) EXPECT_FALSE(w.a.model().path(1, hop).enabled);
  EXPECT_FALSE(w.a.model().path(3, 8).enabled);
  EXPECT_FALSE(w.a.model().path(5, 8).enabled);
}

TEST(RouterPaths, BothDirectionsOfATunnel) {
  World w({.ports = 1, .hop_count = 12});
  ASSERT_TRUE(w.a.write(kPath, 3, 2, {low(8, 1, 0), kFlow}));
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 14), kFlow}));
  EXPECT_EQ(w.a.model().path(3, 1).egress_adapter, 1);
  EXPECT_EQ(w.a.model().path(3, 1).next_hop, 8);
  EXPECT_EQ(w.a.model().path(1, 8).egress_adapter, 3);
  EXPECT_EQ(w.a.model().path(1, 8).next_hop, 1);
}

TEST(RouterPaths, EachDwordCanBeWrittenAlone) {
  World w;
  ASSERT_TRUE(w.a.write(kPath, 1, 17, {kFlow}));
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7)}));
  EXPECT_EQ(w.a.read(kPath, 1, 16, 2), (std::vector<uint32_t>{low(1, 3, 7), kFlow}));
  // Several entries by one write.
  ASSERT_TRUE(w.a.write(kPath, 1, 18, {low(2, 3, 1), 0, low(3, 3, 1)}));
  EXPECT_EQ(w.a.model().path(1, 9).next_hop, 2);
  EXPECT_EQ(w.a.model().path(1, 10).next_hop, 3);
}

TEST(RouterPaths, ReservedBitsReadZero) {
  World w;
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {~0u, ~0u}));
  EXPECT_EQ(w.a.read(kPath, 1, 16, 2), (std::vector<uint32_t>{0x81ffffff, 0x0fffff0f}));
}

TEST(RouterPaths, AnEntryThatLeadsNowhereIsNotEnabled) {
  World w({.ports = 2, .hop_count = 12});
  const auto enabled = [&](uint32_t next, uint32_t egress) {
    EXPECT_TRUE(w.a.write(kPath, 1, 16, {low(next, egress, 1)}));
    return w.a.model().path(1, 8).enabled;
  };
  EXPECT_TRUE(enabled(11, 5));
  EXPECT_FALSE(enabled(12, 5));  // the NHI has no ring 12
  EXPECT_TRUE(enabled(31, 3));
  EXPECT_FALSE(enabled(32, 3));
  EXPECT_FALSE(enabled(8, 4));  // lane 1
  EXPECT_FALSE(enabled(8, 0));
  EXPECT_FALSE(enabled(8, 6));
  EXPECT_FALSE(enabled(8, 63));
  EXPECT_EQ(w.a.model().path(63, 8), PathEntry{});
  EXPECT_EQ(w.a.model().path(0, 8), PathEntry{});
  EXPECT_EQ(w.a.model().path(1, 32), PathEntry{});
  EXPECT_EQ(w.a.model().path(5, 12), PathEntry{});
}

TEST(RouterPaths, TheGenerationCountsChanges) {
  World w;
  uint32_t last = w.a.model().path_generation();
  const auto changed = [&] { return std::exchange(last, w.a.model().path_generation()) != last; };
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7), kFlow}));
  EXPECT_TRUE(changed());
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7), kFlow}));  // nothing new
  w.a.read(kPath, 1, 16, 2);
  EXPECT_FALSE(changed());
  ASSERT_TRUE(w.a.write(kPath, 3, 2, {low(8, 1, 0)}));
  EXPECT_TRUE(changed());
  w.plug(0);
  EXPECT_TRUE(changed());
  w.pull(0);
  EXPECT_TRUE(changed());
  w.a.model().recover();
  EXPECT_TRUE(changed());
  RouterOutput out;
  w.a.model().reset(out);
  EXPECT_TRUE(changed());
  EXPECT_FALSE(w.a.model().path(1, 8).enabled);
}

TEST(RouterPaths, PendingIsClearOnceDisabledUnlessATestWantsItStuck) {
  World w;
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7), kFlow}));
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7) & ~(1u << 31)}));
  EXPECT_EQ(w.a.read(kPath, 1, 17).at(0) >> 28 & 1, 0u);
  w.a.model().set_stuck_pending_reads(3);
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7), kFlow}));
  EXPECT_EQ(w.a.read(kPath, 1, 17).at(0) >> 28 & 1, 0u);  // enabled: nothing to wait for
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 7) & ~(1u << 31)}));
  for (int i = 0; i < 3; ++i) {
    const auto entry = w.a.read(kPath, 1, 16, 2);
    EXPECT_EQ(entry.at(1) >> 28 & 1, 1u) << i;
    EXPECT_EQ(entry.at(0) >> 31, 0u);
  }
  EXPECT_EQ(w.a.read(kPath, 1, 17).at(0) >> 28 & 1, 0u);
  // Writing back what was read does not make it stick.
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {0, 1u << 28}));
  EXPECT_EQ(w.a.read(kPath, 1, 17).at(0) >> 28 & 1, 0u);
}

TEST(RouterPaths, AManagerThatDoesNotKeepTheVendorsBitsIsNoticed) {
  World w;
  const auto before = w.a.read(kPath, 3, 2, 2);
  ASSERT_EQ(before.size(), 2u);
  ASSERT_NE((uint64_t{before[1]} << 32 | before[0]) & kVendorDefined, 0u);
  const auto vendor_low = static_cast<uint32_t>(kVendorDefined);
  const auto vendor_high = static_cast<uint32_t>(kVendorDefined >> 32);
  ASSERT_TRUE(
      w.a.write(kPath, 3, 2,
                {(before[0] & vendor_low) | low(8, 1, 0), (before[1] & vendor_high) | 2u << 24}));
  EXPECT_EQ(w.a.model().counters().vendor_bits_changed, 0u);
  EXPECT_TRUE(w.a.model().path(3, 1).enabled);
  ASSERT_TRUE(w.a.write(kPath, 3, 2, {low(8, 1, 14), kFlow}));
  EXPECT_EQ(w.a.model().counters().vendor_bits_changed, 2u);  // in either dword
  // In a lane adapter they are the manager's.
  ASSERT_TRUE(w.a.write(kPath, 1, 16, {low(1, 3, 14), kFlow}));
  EXPECT_EQ(w.a.model().counters().vendor_bits_changed, 2u);
}

TEST(RouterPaths, TheControlChannelHasCreditsInEveryPort) {
  World w({.ports = 2});
  for (const uint32_t adapter : {1u, 3u}) {
    EXPECT_EQ(w.a.read(kPath, adapter, 0, 2).at(0) >> kCreditsShift & kCreditsMask, 2u);
  }
}

}  // namespace
}  // namespace tbt::rail::emulated
