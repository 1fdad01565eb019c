// tbt_sim: runs seeds. `tbt_sim --seeds N [--first S]`, `tbt_sim --seed S` replays one, `tbt_sim
// --self-test` shows that the checkers notice what they are there for.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/sim/world.h"

namespace {

using tbt::sim::Failure;
using tbt::sim::World;

constexpr uint64_t kRerunEvery = 20;

bool run_seed(uint64_t seed, bool verbose, uint64_t& messages) {
  World world(seed);
  const Failure failure = world.run();
  messages += world.messages();
  if (verbose)
    std::printf("seed %llu: hash %016llx, %s\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(world.trace_hash()), world.describe().c_str());
  if (!failure.text.empty()) {
    std::printf("FAILED seed %llu: %s\n  %s\n  replay: tbt_sim --seed %llu\n",
                static_cast<unsigned long long>(seed), failure.text.c_str(),
                world.describe().c_str(), static_cast<unsigned long long>(seed));
    return false;
  }
  if (seed % kRerunEvery != 0) return true;
  World again(seed);
  (void)again.run();
  if (again.trace_hash() == world.trace_hash()) return true;
  std::printf("FAILED seed %llu: two runs differ\n", static_cast<unsigned long long>(seed));
  return false;
}

int run_seeds(uint64_t first, uint64_t count) {
  uint64_t messages = 0;
  uint64_t failed = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    if (!run_seed(seed, false, messages) && ++failed == 5) break;
  }
  std::printf("%llu seeds from %llu, %llu messages, %llu failed\n",
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(messages), static_cast<unsigned long long>(failed));
  return failed == 0 ? 0 : 1;
}

int self_test() {
  struct Case {
    World::Sabotage what;
    const char* name;
  };
  static constexpr Case kCases[] = {{World::Sabotage::kFlipMemory, "a flipped bit in memory"},
                                    {World::Sabotage::kLoseCompletion, "a lost completion"},
                                    {World::Sabotage::kRepeatCompletion, "a repeated completion"},
                                    {World::Sabotage::kBreakGuard, "a byte outside the buffers"},
                                    {World::Sabotage::kStall, "packets that never leave"}};
  int missed = 0;
  for (const Case& c : kCases) {
    int caught = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      World world(seed);
      world.sabotage = c.what;
      caught += world.run().text.empty() ? 0 : 1;
    }
    std::printf("%-30s noticed in %d of 20 seeds\n", c.name, caught);
    missed += caught == 0 ? 1 : 0;
  }
  return missed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t first = 1;
  uint64_t seeds = 0;
  for (int i = 1; i < argc; ++i) {
    const uint64_t value = i + 1 < argc ? std::strtoull(argv[i + 1], nullptr, 0) : 0;
    if (std::strcmp(argv[i], "--self-test") == 0) return self_test();
    if (std::strcmp(argv[i], "--seeds") == 0) seeds = value;
    if (std::strcmp(argv[i], "--first") == 0) first = value;
    if (std::strcmp(argv[i], "--seed") == 0) {
      uint64_t messages = 0;
      return run_seed(value, true, messages) ? 0 : 1;
    }
  }
  if (seeds == 0) {
    std::fprintf(stderr, "usage: tbt_sim --seeds N [--first S] | --seed S | --self-test\n");
    return 2;
  }
  return run_seeds(first, seeds);
}
