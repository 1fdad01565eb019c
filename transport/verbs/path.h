// Path: a resolved address vector: which rail a packet leaves by and what its LRH and GRH say.
#pragma once

#include <cstdint>

#include "tbt/types.h"

namespace tbt::verbs {

struct Path {
  uint8_t rail = 0;
  uint8_t sl = 0;
  uint16_t dlid = 0;
  uint16_t slid = 0;
  bool has_grh = false;
  uint8_t traffic_class = 0;
  uint8_t hop_limit = 0;
  uint32_t flow_label = 0;
  Gid sgid{};
  Gid dgid{};
};

}  // namespace tbt::verbs
