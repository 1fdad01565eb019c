// Exploration: every state of a scenario that can be reached, the shortest way first.
//
// A state is known by its digest and reached again by its steps from the beginning, for the engine
// has no way to be copied, and shall not need one. What is kept of a state is its digest, its
// predecessor and the step between them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/model/machine.h"

namespace tbt::model {

struct Finding {
  uint64_t states = 0;
  uint64_t steps = 0;   // taken from one state to another
  uint64_t ends = 0;    // states in which nothing is left to happen
  uint64_t audits = 0;  // digests that were compared by what follows them
  bool whole = false;   // there are no more states
  std::string broken;   // empty: nothing was
  std::vector<std::string> story;
};

Finding explore(const Scenario& scenario, Bug bug, uint64_t states_most);

}  // namespace tbt::model
