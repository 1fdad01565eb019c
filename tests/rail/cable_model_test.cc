// The cable as a pure model with a virtual clock.
#include "rail/emulated/cable.h"

#include <gtest/gtest.h>

#include <vector>

namespace tbt::rail::emulated {
namespace {

TEST(CableModel, IdealMeansNoRateNoLatencyNoFault) {
  CableParams p;
  EXPECT_TRUE(CableModel::is_ideal(p));
  for (auto field : {&CableParams::drop_ppm, &CableParams::corrupt_ppm, &CableParams::duplicate_ppm,
                     &CableParams::lost_interrupt_ppm, &CableParams::stranded_ppm}) {
    CableParams faulty;
    faulty.*field = 1;
    EXPECT_FALSE(CableModel::is_ideal(faulty));
  }
  p.latency_ns = 1;
  EXPECT_FALSE(CableModel::is_ideal(p));
}

TEST(CableModel, FramesLeaveOneAfterTheOther) {
  CableModel cable(1);
  CableParams p;
  p.rate_bps = 8'000'000'000;  // a byte per nanosecond
  p.latency_ns = 500;
  // 4096 bytes in 16 packets with 4 bytes of header each, and 4 of CRC.
  EXPECT_EQ(cable.decide(1000, 4096, p).arrival_ns, 1000 + 4164 + 500);
  EXPECT_EQ(cable.decide(1000, 4096, p).arrival_ns, 1000 + 2 * 4164 + 500);
  EXPECT_EQ(cable.decide(100000, 64, p).arrival_ns, 100000 + 72 + 500)
      << "the cable was free again";
  cable.decide(200000, 4096, p);
  cable.reset();
  EXPECT_EQ(cable.decide(200000, 64, p).arrival_ns, 200000 + 72 + 500);
}

TEST(CableModel, EqualSeedsGiveEqualFaults) {
  CableParams p;
  p.drop_ppm = p.corrupt_ppm = p.duplicate_ppm = 300000;
  CableModel a(42), b(42), c(43);
  int differences = 0;
  for (int i = 0; i < 1000; ++i) {
    const Verdict x = a.decide(i, 100, p), y = b.decide(i, 100, p), z = c.decide(i, 100, p);
    ASSERT_EQ(x.drop, y.drop);
    ASSERT_EQ(x.corrupt, y.corrupt);
    ASSERT_EQ(x.corrupt_bit, y.corrupt_bit);
    ASSERT_EQ(x.duplicate, y.duplicate);
    differences += x.drop != z.drop ? 1 : 0;
  }
  EXPECT_GT(differences, 100);
}

TEST(CableModel, FaultsComeAsOftenAsAsked) {
  CableParams p;
  p.drop_ppm = 100000;
  p.corrupt_ppm = 10000;
  CableModel cable(5);
  int drops = 0, corrupt = 0;
  for (int i = 0; i < 100000; ++i) {
    const Verdict v = cable.decide(0, 64, p);
    drops += v.drop;
    corrupt += v.corrupt;
    ASSERT_LT(v.corrupt_bit, 64u * 8);
    ASSERT_FALSE(v.duplicate || v.stranded || v.lost_interrupt);
  }
  EXPECT_NEAR(drops, 10000, 500);
  EXPECT_NEAR(corrupt, 1000, 150);
}

TEST(CableModel, AProbabilityOfOneMillionIsAlways) {
  CableParams p;
  p.drop_ppm = 1000000;
  CableModel cable(5);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(cable.decide(0, 64, p).drop);
}

TEST(CablePresets, AreKnownByName) {
  EXPECT_TRUE(CableModel::is_ideal(*cable_preset("ideal")));
  EXPECT_EQ(cable_preset("tb5")->rate_bps, 80'000'000'000u);
  EXPECT_LT(cable_preset("usb4-40")->rate_bps, 40'000'000'000u);
  EXPECT_GT(cable_preset("usb4-40")->rate_bps, 38'000'000'000u);
  auto unknown = cable_preset("tb6");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), EINVAL);
}

}  // namespace
}  // namespace tbt::rail::emulated
