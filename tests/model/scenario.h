// Scenario: what two hosts want from each other, and what the network and the clock may do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tbt/types.h"

namespace tbt::model {

struct Request {
  WrOpcode opcode = WrOpcode::kSend;
  uint32_t packets = 1;  // 1 or 2
  bool fence = false;
};

struct Scenario {
  std::string name;
  std::vector<Request> requests[2];  // of each side; all are posted at the beginning
  uint32_t posted_late[2] = {};      // of a side's receives: so many are posted at any later time
  uint32_t losses = 1;               // packets in all that never arrive,
  uint32_t copies = 1;               // that arrive twice,
  uint32_t overtaken = 1;            // and how many each may overtake
  uint32_t timeouts = 1;             // that come though something else could happen first
  uint8_t retry_cnt = 7;
  bool go_back_n = false;
  uint32_t first_psn[2] = {0xfffffe, 0x7ffffe};  // at the wrap, and at the middle
};

// Those of the short form are small enough to be explored to their end in seconds.
std::vector<Scenario> short_scenarios();
std::vector<Scenario> long_scenarios();

}  // namespace tbt::model
