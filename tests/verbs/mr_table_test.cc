// Keys and what they allow (conformance C-100, C-101).
#include "verbs/mr_table.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <unordered_map>
#include <unordered_set>

namespace tbt::verbs {
namespace {

struct Fixture : testing::Test {
  Rng rng{1};
  MrTable table;
  ProtectionDomain pd, other_pd;
  std::byte memory[256];

  uint32_t add(uint32_t access, uint64_t iova = 0x1000, uint64_t length = 256) {
    return table.insert({0, access, &pd, iova, length, memory}, rng)->key;
  }
  KeyError look(uint32_t key, uint64_t va, uint64_t length, uint32_t access,
                ProtectionDomain* domain = nullptr) {
    KeyError why{};
    table.translate(key, {domain == nullptr ? &pd : domain}, va, length, access, why);
    return why;
  }
};

using MrTableTest = Fixture;

TEST_F(MrTableTest, TranslatesInsideTheRegion) {
  const uint32_t key = add(kAccessRemoteRead);
  KeyError why{};
  EXPECT_EQ(table.translate(key, {&pd}, 0x1010, 16, kAccessRemoteRead, why), memory + 0x10);
  EXPECT_EQ(why, KeyError::kNone);
}

TEST_F(MrTableTest, RefusesEachKindOfMisuseByName) {
  const uint32_t key = add(kAccessRemoteRead);
  EXPECT_EQ(look(key + 1, 0x1000, 1, 0), KeyError::kUnknownKey);
  EXPECT_EQ(look(key, 0x1000, 1, 0, &other_pd), KeyError::kWrongPd);
  EXPECT_EQ(look(key, 0x1000, 1, kAccessRemoteWrite), KeyError::kNoAccess);
  EXPECT_EQ(look(key, 0x0fff, 1, 0), KeyError::kOutOfRange);
  EXPECT_EQ(look(key, 0x1000, 257, 0), KeyError::kOutOfRange);
  EXPECT_EQ(look(key, 0x10ff, 2, 0), KeyError::kOutOfRange);
}

TEST_F(MrTableTest, RangeChecksDoNotWrap) {
  const uint32_t key = add(kAccessRemoteRead, UINT64_MAX - 255);
  EXPECT_EQ(look(key, UINT64_MAX, 2, 0), KeyError::kOutOfRange);
  EXPECT_EQ(look(key, UINT64_MAX - 255, UINT64_MAX, 0), KeyError::kOutOfRange);
  EXPECT_EQ(look(key, UINT64_MAX - 255, 256, 0), KeyError::kNone);
}

TEST_F(MrTableTest, AnErasedKeyIsUnknownAndItsNeighboursStay) {
  std::unordered_map<uint32_t, bool> keys;
  for (int i = 0; i < 2000; ++i) keys[add(0)] = true;
  ASSERT_EQ(keys.size(), 2000u) << "keys repeat";
  int n = 0;
  for (auto& [key, alive] : keys) {
    if (n++ % 3 != 0) continue;
    table.erase(key);
    alive = false;
  }
  for (const auto& [key, alive] : keys) EXPECT_EQ(table.find(key) != nullptr, alive);
}

// The low 8 bits are a window's user's to choose: a choice must not meet another key.
TEST_F(MrTableTest, NoTwoKeysShareTheirUpper24Bits) {
  std::unordered_set<uint32_t> blocks;
  constexpr size_t kEach = 10000;
  for (size_t i = 0; i < kEach; ++i) {
    blocks.insert(add(0) >> 8);
    blocks.insert(table.add_window(MwType::kType2, &pd, rng) >> 8);
  }
  EXPECT_EQ(blocks.size(), 2 * kEach);
}

TEST_F(MrTableTest, WindowsAreLimitedAndGiveTheirPlacesBack) {
  uint32_t last = 0;
  for (uint32_t i = 0; i < limits::kMaxMw; ++i) last = table.add_window(MwType::kType1, &pd, rng);
  EXPECT_NE(last, 0u);
  EXPECT_EQ(table.add_window(MwType::kType1, &pd, rng), 0u);
  EXPECT_NE(add(0), 0u) << "regions are counted by themselves";
  table.remove_window(last);
  EXPECT_EQ(table.window_key(last), 0u);
  EXPECT_NE(table.add_window(MwType::kType1, &pd, rng), 0u);
}

TEST_F(MrTableTest, AReplacedRegionKeepsItsKeyAndHasTheNewRangeDomainAndRights) {
  const uint32_t key = add(kAccessRemoteRead);
  table.replace(key, {0, kAccessRemoteWrite, &other_pd, 0x9000, 16, memory});
  EXPECT_EQ(look(key, 0x9000, 16, kAccessRemoteWrite, &other_pd), KeyError::kNone);
  EXPECT_EQ(look(key, 0x9000, 16, kAccessRemoteRead, &other_pd), KeyError::kNoAccess);
  EXPECT_EQ(look(key, 0x1000, 1, 0, &other_pd), KeyError::kOutOfRange);
  EXPECT_EQ(look(key, 0x9000, 1, 0), KeyError::kWrongPd);
  EXPECT_EQ(table.size(), 1u);
}

TEST(MrTableProperty, AnyAccessOutsideTheRangeFails) {
  rc::check([](uint64_t iova, uint16_t length, uint64_t va, uint16_t bytes) {
    RC_PRE(length > 0);
    iova = std::min(iova, UINT64_MAX - length);
    Rng rng(7);
    MrTable table;
    ProtectionDomain pd;
    std::byte base{};
    const uint32_t key = table.insert({0, 0, &pd, iova, length, &base}, rng)->key;
    KeyError why{};
    const bool inside =
        va >= iova && bytes <= length && va - iova <= static_cast<uint64_t>(length - bytes);
    RC_ASSERT((table.translate(key, {&pd}, va, bytes, 0, why) != nullptr) == inside);
  });
}

TEST_F(MrTableTest, SaysWhereTheControllerFindsARegion) {
  const uint32_t plain = add(kAccessLocalWrite);
  EXPECT_EQ(table.dma_of(plain, memory + 8), 0u);
  const uint32_t key =
      table.insert({0, kAccessLocalWrite, &pd, 0x1000, 256, memory, 0x100000}, rng)->key;
  EXPECT_EQ(table.dma_of(key, memory + 8), 0x100008u);
  EXPECT_EQ(table.dma_of(plain, memory + 8), 0u);
  EXPECT_EQ(table.dma_of(key ^ 1, memory + 8), 0u);
  table.set_dma(key, 0);
  EXPECT_EQ(table.dma_of(key, memory + 8), 0u);
  ASSERT_TRUE(table.replace(key, {0, 0, &pd, 0x1000, 256, memory, 0x200000}));
  EXPECT_EQ(table.dma_of(key, memory), 0x200000u);
  ASSERT_TRUE(table.erase(key));
  EXPECT_EQ(table.dma_of(key, memory), 0u);
}

}  // namespace
}  // namespace tbt::verbs
