// What tbt nhi probe makes of the registers of the NHI model.
#include "tbt/nhi_probe.h"

#include <gtest/gtest.h>

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/quirks.h"
#include "rail/world.h"

namespace tbt::tool {
namespace {

using namespace rail::nhi;
using rail::test::World;
using rail::test::WorldConfig;

WorldConfig config(bool intel, bool v2, uint32_t hops) {
  WorldConfig c;
  c.fabric.amd = intel ? 0 : ~0u;
  c.fabric.usb4_v2 = v2;
  c.fabric.hop_count = hops;
  c.bring_up = false;
  return c;
}

bool says(const std::vector<std::string>& lines, const std::string& what) {
  for (const std::string& line : lines) {
    if (line.find(what) != std::string::npos) return true;
  }
  return false;
}

TEST(NhiProbe, NamesTheControllerItsRingsAndItsFlavour) {
  World world(config(true, true, 12));
  const NhiView view = probe_nhi(*world.devices[0]);
  EXPECT_EQ(view.hops, 12u);
  EXPECT_TRUE(view.usb4_v2);
  EXPECT_TRUE(view.rings.empty());
  const auto lines = describe(view, world.devices[0]->identity());
  EXPECT_TRUE(says(lines, "8086:5781"));
  EXPECT_TRUE(says(lines, "Barlow Ridge 80G"));
  EXPECT_TRUE(says(lines, "0x40, USB4 v2"));
  EXPECT_TRUE(says(lines, "12: ring 0 for control, 11 for data"));
  EXPECT_TRUE(says(lines, "cleared by reading"));
  EXPECT_TRUE(says(lines, "manages no connections"));
  World amd(config(false, false, 3));
  const auto other = describe(probe_nhi(*amd.devices[0]), amd.devices[0]->identity());
  EXPECT_TRUE(says(other, "3: ring 0 for control, 2 for data"));
  EXPECT_TRUE(says(other, "USB4 v1"));
  EXPECT_TRUE(says(other, "cleared by writing"));
  EXPECT_TRUE(says(other, "12.1 Gb/s a ring"));
}

TEST(NhiProbe, ShowsRingsInUseAndLeavesTheInterruptStatusAlone) {
  WorldConfig c = config(true, true, 12);
  c.bring_up = true;
  World world(c);
  auto sender = world.open(0, 1);
  ASSERT_TRUE(
      rail::test::send(*sender, 1, 1));  // sets the peer's status bit, which reading would clear
  const NhiView view = probe_nhi(*world.devices[1]);
  ASSERT_EQ(view.rings.size(), 1u);
  EXPECT_EQ(view.rings[0].ring, 1u);
  EXPECT_EQ(view.rings[0].tx_entries, 16u);
  EXPECT_TRUE(
      says(describe(view, world.devices[1]->identity()), "ring 1      TX on e2e, 16 entries"));
  EXPECT_NE(world.devices[1]->read32(kRegNotify), 0u);
}

TEST(NhiProbe, SaysThatFirmwareManagesConnections) {
  NhiView view;
  view.hops = 8;
  view.firmware_status = 5;
  view.firmware_mode = 3;
  const auto lines = describe(view, {kVendorIntel, 0x15eb});
  EXPECT_TRUE(says(lines, "manages connections itself (connection manager)"));
  EXPECT_TRUE(says(lines, "others have seen 12"));
}

TEST(NhiProbe, AControllerThatIsGoneIsSaidAndNothingElse) {
  World world(config(true, true, 12));
  world.fabric->remove_device(0, true);
  const NhiView view = probe_nhi(*world.devices[0]);
  EXPECT_TRUE(view.gone);
  EXPECT_EQ(describe(view, world.devices[0]->identity()).size(), 1u);
}

}  // namespace
}  // namespace tbt::tool
