// Keys are the only thing between a peer and registered memory, so they must not be guessed
// (docs/security.md, T1). The statistics look at the 24 high bits, wherever the low ones come from.
#include <gtest/gtest.h>

#include <array>
#include <unordered_set>
#include <vector>

#include "verbs/mr_table.h"

namespace tbt::verbs {
namespace {

constexpr uint32_t kKeys = 1 << 18;

struct Keys : testing::Test {
  Rng rng{20260101};
  MrTable table;
  ProtectionDomain pd;
  std::byte memory[8];

  uint32_t add() { return table.insert({0, 0, &pd, 0x1000, 8, memory}, rng)->key; }
  std::vector<uint32_t> add(uint32_t count) {
    std::vector<uint32_t> keys(count);
    for (uint32_t& key : keys) key = add();
    return keys;
  }
};

TEST_F(Keys, NoTwoLiveOnesAreEqual) {
  const auto keys = add(kKeys);
  EXPECT_EQ(std::unordered_set<uint32_t>(keys.begin(), keys.end()).size(), kKeys);
}

// Chi-square of each byte's values: 255 degrees of freedom, so 255 is expected and 400 practically
// never exceeded (mean + 6.4 standard deviations); a counter gives 0 or millions.
double chi_square(const std::vector<uint32_t>& values, uint32_t shift) {
  std::array<uint32_t, 256> seen{};
  for (uint32_t value : values) ++seen[value >> shift & 0xff];
  const double due = static_cast<double>(values.size()) / 256;
  double sum = 0;
  for (uint32_t n : seen) sum += (n - due) * (n - due) / due;
  return sum;
}

TEST_F(Keys, EveryByteIsSpreadEvenly) {
  const auto keys = add(kKeys);
  for (uint32_t shift : {8u, 16u, 24u}) {
    EXPECT_LT(chi_square(keys, shift), 400) << "bits from " << shift;
    EXPECT_GT(chi_square(keys, shift), 130) << "bits from " << shift << ": too even to be drawn";
  }
}

TEST_F(Keys, OneTellsNothingSimpleOfTheNext) {
  const auto keys = add(kKeys);
  std::vector<uint32_t> steps;
  for (size_t i = 1; i < keys.size(); ++i) steps.push_back(keys[i] - keys[i - 1]);
  for (uint32_t shift : {8u, 16u, 24u}) {
    EXPECT_LT(chi_square(steps, shift), 400) << "bits from " << shift;
    EXPECT_GT(chi_square(steps, shift), 130) << "bits from " << shift;
  }
}

TEST_F(Keys, AFreedOneDoesNotComeBackSoon) {
  const uint32_t freed = add();
  table.erase(freed);
  for (uint32_t i = 0; i < 1 << 16; ++i) {
    const uint32_t key = add();
    ASSERT_NE(key >> 8, freed >> 8) << "after " << i;
    table.erase(key);
  }
}

TEST_F(Keys, AnotherSeedGivesOthers) {
  Rng other{20260102};
  MrTable second;
  std::unordered_set<uint32_t> first;
  for (uint32_t key : add(1000)) first.insert(key);
  for (int i = 0; i < 1000; ++i) {
    const uint32_t key = second.insert({0, 0, &pd, 0x1000, 8, memory}, other)->key;
    EXPECT_EQ(first.count(key), 0u);
  }
}

}  // namespace
}  // namespace tbt::verbs
