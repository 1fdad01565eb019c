// tbt_model: explores the states of two endpoints. `--states N` as many of each short scenario, or
// all there are; `--long N` the same of the long ones; `--self-test` shows that mistakes are found.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/model/explore.h"

namespace {

using tbt::model::Bug;
using tbt::model::Finding;
using tbt::model::Scenario;

unsigned long long wide(uint64_t value) { return value; }

bool explore_all(const std::vector<Scenario>& scenarios, uint64_t states_most) {
  uint64_t states = 0;
  bool good = true;
  for (const Scenario& scenario : scenarios) {
    const Finding found = tbt::model::explore(scenario, Bug::kNone, states_most);
    states += found.states;
    std::printf("%-32s %9llu states, %9llu steps, %6llu ends, %4llu audits%s\n",
                scenario.name.c_str(), wide(found.states), wide(found.steps), wide(found.ends),
                wide(found.audits), found.whole ? ", all there are" : "");
    std::fflush(stdout);
    if (found.broken.empty()) continue;
    good = false;
    std::printf("  BROKEN, %s\n", found.broken.c_str());
    for (const std::string& line : found.story) std::printf("    %s\n", line.c_str());
  }
  std::printf("%llu states\n", wide(states));
  return good;
}

// Each mistake must be found in one scenario at least.
bool self_test() {
  constexpr uint64_t kStatesMost = 30000;
  bool good = true;
  for (uint32_t i = 1; i < static_cast<uint32_t>(Bug::kCount); ++i) {
    const auto bug = static_cast<Bug>(i);
    Finding found;
    std::string where = "MISSED";
    for (const Scenario& scenario : tbt::model::short_scenarios()) {
      found = tbt::model::explore(scenario, bug, kStatesMost);
      if (found.broken.empty()) continue;
      where = "in " + scenario.name + " after " + std::to_string(found.story.size()) + " steps: ";
      break;
    }
    std::printf("%-40s %s%s\n", bug_name(bug), where.c_str(), found.broken.c_str());
    good = good && !found.broken.empty();
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t value = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 0;
  if (argc == 2 && std::strcmp(argv[1], "--self-test") == 0) return self_test() ? 0 : 1;
  if (value != 0 && std::strcmp(argv[1], "--states") == 0)
    return explore_all(tbt::model::short_scenarios(), value) ? 0 : 1;
  if (value != 0 && std::strcmp(argv[1], "--long") == 0)
    return explore_all(tbt::model::long_scenarios(), value) ? 0 : 1;
  std::fprintf(stderr, "usage: tbt_model --states N | --long N | --self-test\n");
  return 2;
}
