#include "tests/sim/self_test.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>

#include "tests/sim/world.h"

namespace tbt::sim {

namespace {

// A bug is tried until so many seeds have noticed it: one would be luck that the next change of the
// drawing takes away. Each is noticed by one seed in 100 at least, or its scenario is too rare.
constexpr uint32_t kNoticedDue = 12;
constexpr uint32_t kSeeds = kNoticedDue * 100;

struct Tally {
  uint32_t seeds = 0;
  uint32_t shown = 0;
  uint32_t noticed = 0;
  std::array<uint32_t, static_cast<size_t>(Checker::kCount)> by{};
};

Tally try_bug(Bug bug) {
  Tally tally;
  while (tally.seeds < kSeeds && tally.noticed < kNoticedDue) {
    World world(++tally.seeds, bug);
    const Failure failure = world.run();
    tally.shown += world.strikes() != 0 ? 1 : 0;
    if (!failure) continue;
    ++tally.noticed;
    ++tally.by[static_cast<size_t>(failure.by)];
  }
  return tally;
}

std::string list_checkers(const Tally& tally) {
  std::string text;
  for (size_t i = 0; i < tally.by.size(); ++i) {
    if (tally.by[i] != 0)
      text += (text.empty() ? "" : ", ") + std::string(checker_name(static_cast<Checker>(i))) +
              " " + std::to_string(tally.by[i]);
  }
  return text;
}

}  // namespace

int self_test() {
  int missed = 0;
  for (uint32_t i = 0; i < static_cast<uint32_t>(Bug::kCount); ++i) {
    const auto bug = static_cast<Bug>(i);
    const Tally tally = try_bug(bug);
    const bool good = bug == Bug::kNone ? tally.noticed == 0 : tally.noticed >= kNoticedDue;
    std::printf("%-44s shown in %3u of %3u seeds, noticed in %2u%s%s%s\n", bug_name(bug),
                tally.shown, tally.seeds, tally.noticed, tally.noticed != 0 ? ": " : "",
                list_checkers(tally).c_str(), good ? "" : "  MISSED");
    missed += good ? 0 : 1;
  }
  return missed == 0 ? 0 : 1;
}

}  // namespace tbt::sim
