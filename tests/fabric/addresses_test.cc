// The rule of LIDs, GUIDs and GIDs.
#include "fabric/addresses.h"

#include <gtest/gtest.h>

#include <set>

namespace tbt::fabric {
namespace {

TEST(Addresses, LidsOfAllHostsAndCablesDiffer) {
  std::set<uint16_t> lids;
  std::set<uint64_t> guids;
  int ports = 0;
  for (uint32_t h = 0; h < 8; h++) {
    for (int k = -1; k < 8; k++, ports++) {
      const PortEntry p =
          port_entry({"default", h, k < 0 ? kAggregate : static_cast<uint8_t>(k), 3});
      lids.insert(p.lid);
      guids.insert(p.guid);
    }
  }
  EXPECT_EQ(lids.size(), static_cast<size_t>(ports));
  EXPECT_EQ(guids.size(), static_cast<size_t>(ports));
  EXPECT_EQ(port_entry({"x", 0}).lid, 64);
  EXPECT_EQ(port_entry({"x", 3, 2, 0}).lid, 64 * 4 + 3);
}

TEST(Addresses, TheGuidIsLocallyAdministeredAndDependsOnTheFabric) {
  const PortEntry a = port_entry({"one", 0});
  const PortEntry b = port_entry({"two", 0});
  EXPECT_NE(a.guid, b.guid);
  EXPECT_EQ((a.guid >> 56) & 3, 2u);
  EXPECT_EQ(a.guid, port_entry({"one", 0}).guid);
}

TEST(Addresses, GidsAreLinkLocalAndIpv4Mapped) {
  const PortEntry p = port_entry({"x", 1, 0, 7});
  EXPECT_EQ(p.gid_count, 2);
  EXPECT_EQ(p.gids[0][0], 0xfe);
  EXPECT_EQ(p.gids[0][1], 0x80);
  EXPECT_EQ(p.gids[0][8], p.guid >> 56);
  EXPECT_EQ(p.gids[0][15], p.guid & 0xff);
  const wire::GidBytes mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 55, 7, 2};
  EXPECT_EQ(p.gids[1], mapped);
}

TEST(Addresses, UuidsOfHostsDiffer) {
  EXPECT_NE(host_uuid("x", 0), host_uuid("x", 1));
  EXPECT_NE(host_uuid("x", 0), host_uuid("y", 0));
  EXPECT_EQ(host_uuid("x", 0), host_uuid("x", 0));
}

}  // namespace
}  // namespace tbt::fabric
