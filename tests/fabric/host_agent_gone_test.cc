// HostAgent: the news that a process is gone reaches the local processes and the peer's, once.
#include <gtest/gtest.h>

#include "agent_pair.h"
#include "fabric/addresses.h"

namespace tbt::fabric {
namespace {

constexpr wire::ProcessGone kGone{.slot = 7, .first = 100, .count = 3, .lid = 64};

void expect_entry(const DirectoryData& d, uint64_t index, const wire::ProcessGone& gone) {
  const GoneEntry& entry = d.gone[index % kGoneMax];
  EXPECT_EQ(entry.lid, gone.lid);
  EXPECT_EQ(entry.slot, gone.slot);
  EXPECT_EQ(entry.first, gone.first);
  EXPECT_EQ(entry.count, gone.count);
}

TEST(HostAgentGone, BothHostsRecordItOnceThoughItIsSaidAgainOnEachCable) {
  AgentPair pair(2);
  pair.run(Duration::from_s(1));
  pair.sent.clear();
  pair[0].handle_process_gone(pair.now, kGone);
  pair.run(Duration::from_ms(240));
  int said = 0;
  for (const auto& o : pair.sent)
    said += std::holds_alternative<wire::ProcessGone>(decoded(o)) ? 1 : 0;
  EXPECT_EQ(said, 2 * (1 + static_cast<int>(kGoneRepeats)));
  for (uint32_t h = 0; h < 2; h++) {
    ASSERT_EQ(pair[h].directory().gone_count, 1u);
    expect_entry(pair[h].directory(), 0, kGone);
  }
}

TEST(HostAgentGone, TheFirstWordArrivesWithoutAnyDelay) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  pair[0].handle_process_gone(pair.now, kGone);
  pair.settle();
  EXPECT_EQ(pair[1].directory().gone_count, 1u);
}

TEST(HostAgentGone, LostMessagesAreMadeGoodWithinAHundredMilliseconds) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  int lost = 0;
  pair.filter = [&lost](uint32_t, const ControlOutput& o) {
    return !std::holds_alternative<wire::ProcessGone>(decoded(o)) || ++lost > static_cast<int>(kGoneRepeats);
  };
  pair[0].handle_process_gone(pair.now, kGone);
  pair.run(Duration::from_ms(99));
  EXPECT_EQ(pair[1].directory().gone_count, 1u);
}

TEST(HostAgentGone, AProcessWithoutQueuePairsIsNoNews) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  pair[0].handle_process_gone(pair.now, {.slot = 7, .first = 100, .count = 0, .lid = 64});
  pair.run(Duration::from_s(1));
  EXPECT_EQ(pair[0].directory().gone_count, 0u);
  EXPECT_EQ(pair[1].directory().gone_count, 0u);
}

TEST(HostAgentGone, APeerSpeaksForItsOwnProcessesOnly) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  wire::ProcessGone lie = kGone;
  lie.lid = 192;  // of a third host
  pair[1].handle_message(pair.now, 0, pair.link(1).tag, wire::encode_control(lie));
  ASSERT_EQ(pair[1].directory().gone_count, 1u);
  EXPECT_EQ(pair[1].directory().gone[0].lid, aggregate_lid(0));
}

TEST(HostAgentGone, TheRingKeepsTheLastOnes) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  constexpr uint32_t kDeaths = 3 * kGoneMax + 5;
  for (uint32_t i = 0; i < kDeaths; i++) {
    pair[0].handle_process_gone(pair.now, {.slot = 7, .first = 10 * i, .count = 3, .lid = 64});
    pair.settle();
  }
  for (uint32_t h = 0; h < 2; h++) {
    const DirectoryData& d = pair[h].directory();
    ASSERT_EQ(d.gone_count, kDeaths);
    for (uint32_t i = kDeaths - kGoneMax; i < kDeaths; i++) {
      expect_entry(d, i, {.slot = 7, .first = 10 * i, .count = 3, .lid = 64});
    }
  }
}

}  // namespace
}  // namespace tbt::fabric
