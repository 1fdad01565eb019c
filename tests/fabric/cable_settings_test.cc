// Descriptions of cables: units, presets, and what makes no sense.
#include "fabric/cable_settings.h"

#include <gtest/gtest.h>

namespace tbt::fabric {
namespace {

CableSettings parsed(const char* text) {
  CableSettings out;
  EXPECT_EQ(parse_cable_text(text, out), "") << text;
  return out;
}

TEST(CableSettings, UnitsMeanWhatTheySay) {
  const CableSettings s =
      parsed("rate=40G,latency=2.5us,drop=1%,corrupt=30ppm,duplicate=0,plugged=no");
  EXPECT_EQ(s.values[kRateBps], 40000000000u);
  EXPECT_EQ(s.values[kLatencyNs], 2500u);
  EXPECT_EQ(s.values[kDropPpm], 10000u);
  EXPECT_EQ(s.values[kCorruptPpm], 30u);
  EXPECT_EQ(s.values[kDuplicatePpm], 0u);
  EXPECT_EQ(s.values[kPlugged], 0u);
  EXPECT_FALSE(s.values[kStrandedPpm]);
}

TEST(CableSettings, APresetSetsEverythingAndLaterItemsWin) {
  const CableSettings s = parsed("tb5,drop=2%");
  EXPECT_EQ(s.values[kRateBps], 80000000000u);
  EXPECT_EQ(s.values[kDropPpm], 20000u);
  EXPECT_EQ(s.values[kPlugged], 1u);
  EXPECT_EQ(parsed("drop=2%,ideal").values[kDropPpm], 0u);
}

TEST(CableSettings, WhatMakesNoSenseIsNamed) {
  for (const char* text : {"", "tb6", "drop", "drop=", "drop=1", "drop=101%", "drop=-1%",
                           "drop=nan%", "drop=1e300%", "latency=1h", "latency=99999s", "rate=40Q",
                           "plugged=maybe", "colour=red", "drop=1%,", ",", "rate=40G;drop=1%"}) {
    CableSettings out;
    EXPECT_NE(parse_cable_text(text, out), "") << text;
  }
}

TEST(CableSettings, ApplyingChangesOnlyWhatIsSet) {
  rail::emulated::CableParams params;
  params.latency_ns = 700;
  apply_settings(parsed("drop=1%"), params);
  EXPECT_EQ(params.drop_ppm, 10000u);
  EXPECT_EQ(params.latency_ns, 700);
  EXPECT_TRUE(params.plugged);
  apply_settings(parsed("plugged=no"), params);
  EXPECT_FALSE(params.plugged);
}

TEST(CableSettings, ParametersSurviveTheTripThroughSettings) {
  rail::emulated::CableParams in;
  in.rate_bps = 1;
  in.latency_ns = 2;
  in.drop_ppm = 3;
  in.corrupt_ppm = 4;
  in.duplicate_ppm = 5;
  in.lost_interrupt_ppm = 6;
  in.stranded_ppm = 7;
  in.plugged = false;
  rail::emulated::CableParams out;
  apply_settings(settings_of(in), out);
  EXPECT_EQ(settings_of(out).values, settings_of(in).values);
  EXPECT_EQ(out.stranded_ppm, 7u);
  EXPECT_FALSE(out.plugged);
}

}  // namespace
}  // namespace tbt::fabric
