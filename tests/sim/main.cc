// tbt_sim: runs seeds. `tbt_sim --seeds N [--first S]` runs N of them, `--minutes M` as many as
// that takes, from a first one that the day gives; `tbt_sim --seed S` replays one, `tbt_sim
// --self-test` shows that the checkers notice what they are there for.
#include <chrono>
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

using Clock = std::chrono::steady_clock;

// Until `count` seeds or the time is over, or five have failed.
int run_seeds(uint64_t first, uint64_t count, Clock::time_point end) {
  uint64_t messages = 0;
  uint64_t failed = 0;
  uint64_t done = 0;
  while (done < count && failed < 5 && Clock::now() < end)
    failed += run_seed(first + done++, false, messages) ? 0 : 1;
  std::printf("%llu seeds from %llu, %llu messages, %llu failed\n", wide(done), wide(first),
              wide(messages), wide(failed));
  return failed == 0 && done != 0 ? 0 : 1;
}

int run_minutes(uint64_t first, uint64_t minutes) {
  // Each day has seeds of its own: as many as no night gets through.
  constexpr uint64_t kSeedsOfADay = 100000000;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto day = std::chrono::duration_cast<std::chrono::hours>(now).count() / 24;
  if (first == 0) first = static_cast<uint64_t>(day) * kSeedsOfADay;
  std::printf("seeds from %llu for %llu minutes\n", wide(first), wide(minutes));
  std::fflush(stdout);
  return run_seeds(first, UINT64_MAX, Clock::now() + std::chrono::minutes(minutes));
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t first = 0;
  uint64_t seeds = 0;
  uint64_t minutes = 0;
  for (int i = 1; i < argc; ++i) {
    const uint64_t value = i + 1 < argc ? std::strtoull(argv[i + 1], nullptr, 0) : 0;
    if (std::strcmp(argv[i], "--self-test") == 0) return tbt::sim::self_test();
    if (std::strcmp(argv[i], "--seeds") == 0) seeds = value;
    if (std::strcmp(argv[i], "--minutes") == 0) minutes = value;
    if (std::strcmp(argv[i], "--first") == 0) first = value;
    if (std::strcmp(argv[i], "--seed") == 0) {
      uint64_t messages = 0;
      return run_seed(value, true, messages) ? 0 : 1;
    }
  }
  if (minutes != 0) return run_minutes(first, minutes);
  if (seeds != 0) return run_seeds(first == 0 ? 1 : first, seeds, Clock::time_point::max());
  std::fprintf(stderr,
               "usage: tbt_sim --seeds N [--first S] | --minutes M [--first S] | --seed S | "
               "--self-test\n");
  return 2;
}
