// The generator: its sequence never changes (simulator seeds depend on it), and its derived draws
// keep their bounds.
#include "base/rng.h"

#include <gtest/gtest.h>

#include <array>

namespace tbt {
namespace {

// An independent statement of the algorithm, written from its definition.
struct Reference {
  uint64_t s[4];
  explicit Reference(uint64_t seed) {
    for (uint64_t& w : s) {
      seed += 0x9e3779b97f4a7c15u;
      uint64_t z = seed;
      z ^= z >> 30;
      z *= 0xbf58476d1ce4e5b9u;
      z ^= z >> 27;
      z *= 0x94d049bb133111ebu;
      w = z ^ (z >> 31);
    }
  }
  static uint64_t rotate(uint64_t v, int k) { return (v << k) | (v >> (64 - k)); }
  uint64_t next() {
    const uint64_t result = rotate(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
  }
};

TEST(Rng, FollowsItsDefinition) {
  for (uint64_t seed : {0ull, 1ull, 42ull, ~0ull}) {
    Rng rng(seed);
    Reference reference(seed);
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(rng.next(), reference.next()) << seed << " " << i;
  }
}

TEST(Rng, TheSameSeedGivesTheSameSequenceAndAnotherSeedAnother) {
  Rng a(7), b(7), c(8);
  int same = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t v = a.next();
    ASSERT_EQ(v, b.next());
    same += v == c.next();
  }
  EXPECT_EQ(same, 0);
}

TEST(Rng, BelowStaysBelowAndReachesEveryValue) {
  Rng rng(3);
  std::array<int, 7> seen{};
  for (int i = 0; i < 7000; ++i) {
    const uint32_t v = rng.below(7);
    ASSERT_LT(v, 7u);
    ++seen[v];
  }
  // 1000 are expected of each; 6 standard deviations are 176.
  for (int n : seen) EXPECT_NEAR(n, 1000, 176);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(rng.below(1), 0u);
}

TEST(Rng, ChanceIsNeverAtZeroAndAlwaysAtAMillion) {
  Rng rng(4);
  int hits = 0;
  for (int i = 0; i < 10000; ++i) {
    ASSERT_FALSE(rng.chance_ppm(0));
    ASSERT_TRUE(rng.chance_ppm(1000000));
    hits += rng.chance_ppm(250000);
  }
  EXPECT_NEAR(hits, 2500, 260);
}

}  // namespace
}  // namespace tbt
