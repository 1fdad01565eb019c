// tbt_sim: runs seeds. `tbt_sim --seeds N [--first S]`, `tbt_sim --seed S` replays one, `tbt_sim
// --self-test` shows that the checkers notice what they are there for.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/sim/self_test.h"
#include "tests/sim/world.h"

namespace {

using tbt::sim::Failure;
using tbt::sim::World;

constexpr uint64_t kRerunEvery = 20;

unsigned long long wide(uint64_t value) { return value; }

bool run_seed(uint64_t seed, bool verbose, uint64_t& messages) {
  World world(seed);
  const Failure failure = world.run();
  messages += world.messages();
  if (verbose)
    std::printf("seed %llu: hash %016llx, %s\n", wide(seed), wide(world.trace_hash()),
                world.describe().c_str());
  if (failure) {
    std::printf("FAILED seed %llu (%s): %s\n  %s\n  replay: tbt_sim --seed %llu\n", wide(seed),
                checker_name(failure.by), failure.text.c_str(), world.describe().c_str(),
                wide(seed));
    return false;
  }
  if (seed % kRerunEvery != 0) return true;
  World again(seed);
  (void)again.run();
  if (again.trace_hash() == world.trace_hash()) return true;
  std::printf("FAILED seed %llu: two runs differ\n  replay: tbt_sim --seed %llu\n", wide(seed),
              wide(seed));
  return false;
}

int run_seeds(uint64_t first, uint64_t count) {
  uint64_t messages = 0;
  uint64_t failed = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    if (!run_seed(seed, false, messages) && ++failed == 5) break;
  }
  std::printf("%llu seeds from %llu, %llu messages, %llu failed\n", wide(count), wide(first),
              wide(messages), wide(failed));
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t first = 1;
  uint64_t seeds = 0;
  for (int i = 1; i < argc; ++i) {
    const uint64_t value = i + 1 < argc ? std::strtoull(argv[i + 1], nullptr, 0) : 0;
    if (std::strcmp(argv[i], "--self-test") == 0) return tbt::sim::self_test();
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
