// PSN arithmetic wraps at 24 bits.
#include "wire/psn.h"

#include <gtest/gtest.h>

namespace tbt::wire {
namespace {

TEST(Psn, AddWrapsAt24Bits) {
  EXPECT_EQ(psn_add(0xfffffe, 1), 0xffffffu);
  EXPECT_EQ(psn_add(0xfffffe, 2), 0u);
  EXPECT_EQ(psn_add(5, 0xffffff), 4u);
}

TEST(Psn, CompareWrapsAt24Bits) {
  EXPECT_EQ(psn_diff(1, 0xffffff), 2);
  EXPECT_EQ(psn_diff(0xffffff, 1), -2);
  EXPECT_EQ(psn_diff(0x800000, 0x7fffff), 1);
  EXPECT_EQ(psn_diff(7, 7), 0);
}

TEST(Psn, TheHalfWayPointIsTheEarlier) {
  EXPECT_EQ(psn_diff(0x7fffff, 0), 0x7fffff);
  EXPECT_EQ(psn_diff(0x800000, 0), -0x800000);
}

}  // namespace
}  // namespace tbt::wire
