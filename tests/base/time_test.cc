// Instant and Duration: arithmetic, order, and "never" which nothing moves.
#include "base/time.h"

#include <gtest/gtest.h>

namespace tbt {
namespace {

TEST(Time, UnitsScale) {
  static_assert(Duration::from_us(3).ns == 3000);
  static_assert(Duration::from_ms(3).ns == 3000000);
  static_assert(Duration::from_s(3).ns == 3000000000);
  EXPECT_EQ(Duration::from_ms(1), Duration::from_us(1000));
  EXPECT_EQ(Duration::from_ms(2) * 3, Duration::from_ms(6));
}

TEST(Time, InstantsDifferByDurations) {
  const Instant t{100};
  const Instant later = t + Duration{50};
  EXPECT_EQ(later.ns, 150);
  EXPECT_EQ(later - t, Duration{50});
  EXPECT_EQ(t - later, Duration{-50});
  EXPECT_LT(t, later);
  EXPECT_EQ((Duration{5} - Duration{7}).ns, -2);
}

TEST(Time, NeverIsAfterEverythingAndStaysNever) {
  const Instant never = Instant::never();
  EXPECT_TRUE(never.is_never());
  EXPECT_TRUE((never + Duration::from_s(1)).is_never());
  EXPECT_LT(Instant{INT64_MAX - 1}, never);
  EXPECT_FALSE(Instant{0}.is_never());
}

}  // namespace
}  // namespace tbt
