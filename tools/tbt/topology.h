// Which hosts of an emulated fabric are cabled to which: from the words of the command line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rail/emulated/emulated_fabric.h"

namespace tbt::tool {

struct TopologyWish {
  std::string_view kind;  // "mesh", "ring", "chain" or "pairs:0-1,1-2,..."
  uint32_t hosts = 0;
  uint32_t cables_per_pair = 1;
  uint32_t hops = 0;  // of each controller: hops - 1 data ring pairs
};

// Returns an empty string, or what is wrong.
std::string lay_cables(const TopologyWish& wish, std::vector<rail::emulated::CableEnds>& out);

}  // namespace tbt::tool
