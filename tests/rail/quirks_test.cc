// The quirk table, and that the driver heeds it.
#include "rail/nhi/quirks.h"

#include <set>

#include "rail/nhi/interrupts.h"
#include "renamed_device.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

constexpr PciIdentity kFalconRidge{kVendorIntel, 0x156c};
constexpr PciIdentity kStrixHalo{kVendorAmd, 0x158d};
constexpr PciIdentity kBarlowRidge{kVendorIntel, 0x5781};

TEST(Quirks, EveryLineHasANameASourceAndIdsOfItsOwn) {
  std::set<std::pair<uint16_t, uint16_t>> seen;
  for (const Quirks& line : quirk_table()) {
    EXPECT_STRNE(line.name, "");
    EXPECT_GT(std::string_view(line.source).size(), 8u) << line.name;
    for (const uint16_t id : line.devices) {
      if (id == 0) continue;
      EXPECT_TRUE(seen.emplace(line.vendor, id).second) << line.name << " " << id;
    }
    // The name on a line is the one its ids lead to: no line hides behind an earlier one.
    const PciIdentity first{line.vendor, line.devices[0]};
    EXPECT_STREQ(quirks_of(first).name, line.name);
  }
}

TEST(Quirks, WhatIsNotInTheTableIsTakenByItsVendorOrByTheSpecification) {
  EXPECT_STREQ(quirks_of({kVendorIntel, 0xfffe}).name, "Intel");
  EXPECT_EQ(quirks_of({kVendorIntel, 0xfffe}).interrupt_clear, InterruptClear::kByReading);
  EXPECT_FALSE(quirks_of({kVendorIntel, 0xfffe}).force_power);
  for (const PciIdentity other :
       {PciIdentity{}, PciIdentity{0x1d6b, 1}, PciIdentity{kVendorAmd, 1}}) {
    EXPECT_STREQ(quirks_of(other).name, "USB4 host interface") << other.vendor;
    EXPECT_EQ(quirks_of(other).interrupt_clear, InterruptClear::kByWriting);
    EXPECT_EQ(quirks_of(other).throttling_register, kRegThrottling);
  }
}

TEST(Quirks, OnlyIntegratedIntelControllersNeedForcePower) {
  for (const uint16_t id : {0x8a17, 0x9a1b, 0x463e, 0xa76d, 0x7ec2, 0xa834, 0xe434, 0x4d33}) {
    EXPECT_TRUE(quirks_of({kVendorIntel, id}).force_power) << std::hex << id;
  }
  for (const uint16_t id : {0x15eb, 0x1137, 0x5781, 0x5784, 0x156c}) {
    EXPECT_FALSE(quirks_of({kVendorIntel, id}).force_power) << std::hex << id;
  }
  EXPECT_FALSE(quirks_of(kStrixHalo).force_power);
}

WorldConfig down(bool intel) {
  WorldConfig c;
  c.fabric.amd = intel ? 0 : ~0u;
  c.bring_up = false;
  return c;
}

TEST(Quirks, BringUpChoosesHowTheStatusIsCleared) {
  constexpr uint32_t kOther = 0x10;  // is left alone
  for (const bool intel : {true, false}) {
    World world(down(intel));
    // As another driver left it.
    world.devices[0]->write32(kRegDmaMisc, kOther | kDmaMiscAutoClear);
    world.bring_up(0);
    EXPECT_EQ(world.devices[0]->read32(kRegDmaMisc),
              intel ? kOther : kOther | kDmaMiscAutoClear | kDmaMiscNoIsrAutoClear);
  }
}

TEST(Quirks, TheStatusIsWrittenBackOnlyWhereReadingDoesNotClearIt) {
  for (const PciIdentity identity : {kBarlowRidge, kStrixHalo}) {
    World world(down(identity == kBarlowRidge));
    world.bring_up(0);
    RenamedDevice device(*world.devices[1], identity);
    ASSERT_TRUE(bring_up_nhi_rail(*world.memories[1], 0, device));
    world.memories[1]->slot(1).state.store(SlotState::kAttached);
    auto receiver = open_nhi_rail(*world.memories[1], 0, device, 1, classify);
    auto sender = world.open(0, 1);
    ASSERT_TRUE(receiver->arm());
    ASSERT_TRUE(send(*sender, 1, 7));
    EXPECT_EQ(receive(*receiver), std::vector<uint32_t>{7});
    EXPECT_EQ(receiver->stats().interrupts, 1u);
    const uint32_t rx_bit = (device.read32(kRegCapabilities) & 0x3ff) + 1;
    EXPECT_EQ(device.writes(kRegInterruptClear + rx_bit / 32 * 4), identity == kStrixHalo ? 1 : 0);
  }
}

TEST(Quirks, ARingKeptForCreditsCarriesNoData) {
  World world(down(true));
  RenamedDevice device(*world.devices[0], kFalconRidge);
  ASSERT_TRUE(bring_up_nhi_rail(*world.memories[0], 0, device));
  EXPECT_EQ(device.read32(tx_options_register(1)) & kOptionEnable, 0u);
  EXPECT_NE(device.read32(tx_options_register(2)) & kOptionEnable, 0u);
  const uint32_t rx = device.read32(rx_options_register(2));
  EXPECT_NE(rx & kOptionE2e, 0u);
  EXPECT_EQ((rx & kOptionE2eHopMask) >> kOptionE2eHopShift, 1u);
  EXPECT_TRUE(shut_down_nhi_rail(*world.memories[0], 0, device));
  EXPECT_EQ(world.fabric->counters(0).misuse, 0u) << world.fabric->counters(0).last_misuse;
}

TEST(Quirks, RingsShareVectorsWhereThereAreFew) {
  World world(down(true));
  RenamedDevice device(*world.devices[0], kBarlowRidge);
  device.vectors = 0;
  EXPECT_EQ(vector_count(device), 1u);
  device.vectors = 6;
  EXPECT_EQ(vector_count(device), 6u);
  const Quirks& quirks = quirks_of(device.identity());
  wire_vector(device, quirks, 9, 5);
  wire_vector(device, quirks, 8, 3);
  EXPECT_EQ(device.read32(kRegVectorAllocation + 4), 0x53u);
  EXPECT_EQ(device.writes(kRegThrottling + 5 * 4), 1);
  EXPECT_EQ(quirks_of({kVendorApple, 1}).throttling_register, 0xd004cu);
}

}  // namespace
}  // namespace tbt::rail::test
