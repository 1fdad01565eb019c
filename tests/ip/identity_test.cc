// Who we are on a cable to a host that runs thunderbolt-net only.
#include "ip/identity.h"

#include <gtest/gtest.h>

#include <set>

namespace tbt::ip {
namespace {

TEST(IpIdentity, FollowsFromRouterPortAndHost) {
  std::array<uint8_t, 16> router{};
  std::set<Mac> macs;
  for (uint32_t bit = 0; bit < 128; ++bit) {
    router[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    for (uint32_t port = 0; port < 4; ++port) {
      const Identity me = identity_of(router, port, 3);
      EXPECT_EQ(me.mac[0] & 3, 2) << "of one host, and locally given";
      EXPECT_EQ(identity_of(router, port, 3).mac, me.mac);
      macs.insert(me.mac);
    }
  }
  EXPECT_EQ(macs.size(), 512u);
}

TEST(IpIdentity, TheAddressesAreThoseOfTheDocuments) {
  const std::array<uint8_t, 16> router{};
  Identity me = identity_of(router, 0, 0);
  EXPECT_EQ(ipv4_text(me.ipv4), "169.254.84.1");
  EXPECT_EQ(ipv4_text(identity_of(router, 0, 7).ipv4), "169.254.84.8");
  EXPECT_EQ(ipv4_text(identity_of(router, 0, 100000).ipv4), "169.254.84.254");
  EXPECT_EQ(mac_text({0x02, 0xab, 0, 1, 0xff, 0x10}), "02:ab:00:01:ff:10");
  // fe80::, the address with its seventh bit turned, and ff:fe in the middle.
  const Ipv6 wanted = {0xfe,      0x80,      0,
                       0,         0,         0,
                       0,         0,         static_cast<uint8_t>(me.mac[0] ^ 2),
                       me.mac[1], me.mac[2], 0xff,
                       0xfe,      me.mac[3], me.mac[4],
                       me.mac[5]};
  EXPECT_EQ(me.ipv6, wanted);
}

}  // namespace
}  // namespace tbt::ip
