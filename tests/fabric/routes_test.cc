// Routes: which cables may be chosen, by the state of their links.
#include "fabric/routes.h"

#include <gtest/gtest.h>

#include "fabric/addresses.h"

namespace tbt::fabric {
namespace {

// This host 0 with two cables to host 1.
struct Map {
  Map() {
    data.cables = 2;
    for (uint8_t k = 0; k < 2; ++k) {
      data.links[k] = {LinkState::kUp, 0, k, 0, 0x1000u + k, 80};
      data.ports[1 + k] = port_entry({"test", 0, k, k});
      data.peers[0].ports[1 + k] = port_entry({"test", 1, k, k});
    }
    data.ports[0] = port_entry({.fabric = "test", .host = 0});
    data.peers[0].known = true;
    data.peers[0].ports[0] = port_entry({.fabric = "test", .host = 1});
  }

  // From tbt0 to the other host's tbt0.
  int rail(uint32_t spread) {
    AddressVector to;
    to.dlid = aggregate_lid(1);
    const auto route = routes.resolve(0, to, spread);
    return route ? route->rail : -1;
  }

  DirectoryData data{};
  Routes routes{data};
};

TEST(Routes, EqualCablesAreSpreadOver) {
  Map map;
  EXPECT_NE(map.rail(0), map.rail(1));
}

TEST(Routes, ASilentCableIsChosenByNobodyButLasts) {
  Map map;
  map.data.links[0].state = LinkState::kSilent;
  EXPECT_EQ(map.rail(0), 1);
  EXPECT_EQ(map.rail(1), 1);
  EXPECT_TRUE(map.routes.lasts(0));
  EXPECT_EQ(map.routes.tag(0), 0x1000u);
  EXPECT_FALSE(map.routes.port_active(1));
  map.data.links[1].state = LinkState::kSilent;
  EXPECT_EQ(map.rail(0), -1);
  EXPECT_FALSE(map.routes.port_active(0));
}

TEST(Routes, ACableThatIsDownOrPulledDoesNotLast) {
  Map map;
  for (const LinkState state : {LinkState::kDown, LinkState::kUnplugged, LinkState::kConnecting}) {
    map.data.links[0].state = state;
    EXPECT_FALSE(map.routes.lasts(0));
    EXPECT_EQ(map.rail(0), 1);
  }
  EXPECT_TRUE(map.routes.lasts(2));  // the loopback
}

}  // namespace
}  // namespace tbt::fabric
