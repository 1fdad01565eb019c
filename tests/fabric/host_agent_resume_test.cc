// HostAgent: going on where the agent of a killed daemon has stopped.
#include <gtest/gtest.h>

#include "agent_pair.h"
#include "fabric/host_agent.h"

namespace tbt::fabric {
namespace {

uint32_t count_gone(AgentPair& pair, uint32_t host) {
  return static_cast<uint32_t>(pair[host].directory().gone_count);
}

TEST(HostAgentResume, ThePeerNoticesNothing) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const DirectoryData before = pair[1].directory();
  const uint32_t tag = pair.link(0).tag;
  pair.stop(1);
  pair.run(Duration::from_ms(700));
  ASSERT_TRUE(pair[0].take_directory_change());
  pair.resume(1, before);
  EXPECT_EQ(pair.state(1), LinkState::kUp);
  EXPECT_EQ(pair.link(1).tag, tag);
  pair.run(Duration::from_s(5));
  EXPECT_FALSE(pair[0].take_directory_change());
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.state(1), LinkState::kUp);
  EXPECT_EQ(pair[0].stats().stale, 0u);
}

TEST(HostAgentResume, APeerThatCallsItSilentHearsItAgain) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const DirectoryData before = pair[1].directory();
  const CableEntry link = pair.link(0);
  pair.stop(1);
  pair.run(Duration::from_s(5));
  EXPECT_EQ(pair.state(0), LinkState::kSilent);
  pair.resume(1, before);
  pair.run(Duration::from_ms(300));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.link(0).tag, link.tag);
  EXPECT_EQ(pair.link(0).peer, link.peer);
}

TEST(HostAgentResume, APeerThatHasGoneMeanwhileIsMissed) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const DirectoryData before = pair[1].directory();
  pair.stop(0);
  pair.resume(1, before);
  pair.run(Duration::from_ms(1300));
  EXPECT_EQ(pair.state(1), LinkState::kSilent);
}

TEST(HostAgentResume, APeerThatCameBackMeanwhileIsAnotherOne) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const DirectoryData before = pair[1].directory();
  pair.start(0, 0x2000);
  pair.resume(1, before);
  pair.run(Duration::from_ms(300));
  EXPECT_EQ(pair.state(1), LinkState::kUp);
  EXPECT_EQ(pair.link(1).tag, wire::session_tag(0x2000, 0x1001));
  EXPECT_TRUE(pair[1].directory().peers[before.links[0].peer].gone);
}

TEST(HostAgentResume, ACableThatWasPulledMeanwhileIsUnplugged) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const DirectoryData before = pair[1].directory();
  AgentConfig config = AgentPair::config(1, before.incarnation, 1);
  config.cables[0].plugged = false;
  HostAgent agent(config, before, pair.now);
  EXPECT_EQ(agent.directory().links[0].state, LinkState::kUnplugged);
}

TEST(HostAgentResume, ADepartureThatWasNotHeardIsSaidAgainAndCountedOnce) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const wire::ProcessGone heard{3, 16, 4, 128};
  const wire::ProcessGone lost{5, 32, 2, 128};
  pair[1].handle_process_gone(pair.now, heard);
  pair.run(Duration::from_ms(200));
  ASSERT_EQ(count_gone(pair, 0), 1u);
  pair.filter = [](uint32_t, const ControlOutput&) { return false; };
  pair[1].handle_process_gone(pair.now, lost);
  pair.settle();
  const DirectoryData before = pair[1].directory();
  pair.filter = nullptr;
  pair.resume(1, before);
  pair.run(Duration::from_ms(200));
  EXPECT_EQ(count_gone(pair, 0), 2u);
  EXPECT_EQ(pair[0].directory().gone[1].slot, 5);
  EXPECT_EQ(count_gone(pair, 1), 2u) << "the processes of the host have counted them";
}

TEST(HostAgentResume, ADepartureReachesAPeerThatCalledUsSilent) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const DirectoryData before = pair[1].directory();
  pair.stop(1);
  pair.run(Duration::from_s(3));
  ASSERT_EQ(pair.state(0), LinkState::kSilent);
  // Just after a hello of the peer: the news is said for long before the next one.
  pair.resume(1, before);
  pair.sent.clear();
  pair.run(Duration::from_ms(1));
  pair[1].handle_process_gone(pair.now, {5, 32, 2, 128});
  pair.run(Duration::from_ms(500));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(count_gone(pair, 0), 1u);
}

TEST(HostAgentResume, ADirectoryThatMakesNoSenseIsConnectedAnew) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  DirectoryData before = pair[1].directory();
  before.links[0].tag++;
  pair.resume(1, before);
  EXPECT_EQ(pair.state(1), LinkState::kConnecting);
  pair.run(Duration::from_ms(300));
  EXPECT_EQ(pair.state(1), LinkState::kUp);
}

}  // namespace
}  // namespace tbt::fabric
