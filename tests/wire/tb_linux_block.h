// The property block that an unmodified Linux host named "alpha" with thunderbolt-net sends,
// written out by hand from the format, and the tree that it stands for.
#pragma once

#include <cstdint>
#include <vector>

#include "wire/tb/property_block.h"

namespace tbt::wire::tb::testing {

using Words = std::vector<uint32_t>;

// Entries in the order in which the driver adds them, the service "network" between the fixed ones
// and those of the connection.
inline const Words kLinuxBlock = {
    0x55584401, 28,                              // magic, seven entries
    0x76656e64, 0x6f726964, 0x76000001, 0x1d6b,  // vendorid v
    0x76656e64, 0x6f726964, 0x74000002, 30,      // vendorid t "Linux"
    0x64657669, 0x63656964, 0x76000001, 4,       // deviceid v
    0x64657669, 0x63657276, 0x76000001, 0x80000100,
    0x6e657477, 0x6f726b00, 0x44000014, 35,          // network D
    0x64657669, 0x63656964, 0x74000002, 32,          // deviceid t "alpha"
    0x6d617868, 0x6f706964, 0x76000001, 11,          // maxhopid v
    0x4c696e75, 0x78000000,                          // 30
    0x616c7068, 0x61000000,                          // 32
    0,                                               // 34
    0xca8961c6, 0x9541ce1c, 0x5949b8bd, 0x4f5a5f2e,  // 35
    0x70727463, 0x69640000, 0x76000001, 1,           // prtcid
    0x70727463, 0x76657273, 0x76000001, 1,           // prtcvers
    0x70727463, 0x72657673, 0x76000001, 1,           // prtcrevs
    0x70727463, 0x73746e73, 0x76000001, 7,           // prtcstns
};

inline PropertyDirectory linux_tree() {
  PropertyDirectory network;
  network.uuid = uuid("c66189ca-1cce-4195-bdb8-49592e5f5a4f");
  network.add("prtcid", 1u);
  network.add("prtcvers", 1u);
  network.add("prtcrevs", 1u);
  network.add("prtcstns", 7u);
  PropertyDirectory root;
  root.add("vendorid", 0x1d6bu);
  root.add("vendorid", "Linux");
  root.add("deviceid", 4u);
  root.add("devicerv", 0x80000100u);
  root.add("network", network);
  root.add("deviceid", "alpha");
  root.add("maxhopid", 11u);
  return root;
}

}  // namespace tbt::wire::tb::testing
