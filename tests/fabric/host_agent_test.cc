// HostAgent: sessions, liveness, and what reaches the directory.
#include "fabric/host_agent.h"

#include <gtest/gtest.h>

#include "agent_pair.h"
#include "base/rng.h"
#include "fabric/addresses.h"

namespace tbt::fabric {
namespace {

TEST(HostAgent, BothEndsComeUpAtOnceAndAgreeOnTheTag) {
  AgentPair pair;
  pair.run(Duration::from_ms(1));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.state(1), LinkState::kUp);
  EXPECT_EQ(pair.link(0).tag, pair.link(1).tag);
  EXPECT_EQ(pair.link(0).tag, wire::session_tag(0x1000, 0x1001));
}

TEST(HostAgent, ThePeersPortsStandInTheDirectory) {
  AgentPair pair(2);
  pair.run(Duration::from_ms(1));
  const DirectoryData& d = pair[0].directory();
  const PeerEntry& peer = d.peers[d.links[1].peer];
  EXPECT_STREQ(peer.name.data(), "host1");
  EXPECT_EQ(peer.incarnation, 0x1001u);
  EXPECT_EQ(peer.ports[0].lid, 128);
  EXPECT_EQ(peer.ports[0].cable, kAggregate);
  EXPECT_EQ(peer.ports[2].lid, 130);
  EXPECT_EQ(peer.ports[2].gids, port_entry({"test", 1, 1, 0}).gids);
  EXPECT_EQ(peer.ports[3].lid, 0);
}

TEST(HostAgent, AnotherGidIsToldToThePeerAndOutlivesTheDaemon) {
  AgentPair pair;
  pair.run(Duration::from_ms(1));
  const wire::GidBytes gid{0xfd, 1}, other{0xfd, 2};
  const auto at_peer = [&] { return pair[0].directory().peers[pair.link(0).peer].ports[1]; };
  int lost = 0;  // the first of the hellos that tell it
  pair.filter = [&](uint32_t from, const ControlOutput& out) {
    return from == 0 || out.tag != kHandshakeTag || ++lost > 1;
  };
  ASSERT_TRUE(pair[1].change_gid(pair.now, 1, gid, true));
  EXPECT_TRUE(pair[1].take_directory_change());
  pair.run(Duration::from_s(2));
  EXPECT_GT(lost, 1);
  EXPECT_EQ(at_peer().gid_count, 3);
  EXPECT_EQ(at_peer().gids[2], gid);
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair[0].change_gid(pair.now, 0, gid, true).code(), EADDRINUSE);  // it is the peer's
  pair.resume(1, DirectoryData(pair[1].directory()));
  EXPECT_EQ(pair[1].directory().ports[1].gids[2], gid);
  ASSERT_TRUE(pair[1].change_gid(pair.now, 1, other, true));
  EXPECT_EQ(pair[1].change_gid(pair.now, 1, {0xfd, 3}, true).code(), ENOSPC);
  ASSERT_TRUE(pair[1].change_gid(pair.now, 1, gid, false));
  EXPECT_EQ(pair[1].directory().ports[1].gid_count, 4) << "the other one keeps its index";
  pair.run(Duration::from_s(1));
  EXPECT_EQ(at_peer().gids[2], wire::GidBytes{});
  EXPECT_EQ(at_peer().gids[3], other);
  const wire::GidBytes own = at_peer().gids[0];
  EXPECT_EQ(pair[1].change_gid(pair.now, 1, own, false).code(), ENOENT);
  EXPECT_EQ(pair[1].change_gid(pair.now, 9, {0xfd, 4}, true).code(), ENODEV);
}

TEST(HostAgent, WithoutItsControllerAHostHasNoLinksAndSaysNothing) {
  AgentPair pair(2);
  pair.run(Duration::from_ms(1));
  pair[0].handle_controller_lost(pair.now);
  EXPECT_TRUE(pair[0].take_directory_change());
  EXPECT_TRUE(pair[0].directory().controller_lost);
  for (uint32_t k = 0; k < 2; k++) EXPECT_EQ(pair.state(0, k), LinkState::kUnplugged);
  pair[0].handle_shutdown(pair.now);
  ControlOutput out;
  EXPECT_FALSE(pair[0].poll_transmit(out));
  EXPECT_TRUE(pair[0].poll_timeout().is_never());
}

TEST(HostAgent, AHelloThatIsLostIsRepeatedSoon) {
  AgentPair pair;
  int lost = 0;
  pair.filter = [&lost](uint32_t, const ControlOutput&) { return ++lost > 6; };
  pair.run(Duration::from_ms(200));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.state(1), LinkState::kUp);
}

TEST(HostAgent, OneDirectionAloneIsNotUp) {
  AgentPair pair;
  pair.filter = [](uint32_t from, const ControlOutput&) { return from == 0; };
  pair.run(Duration::from_s(3));
  EXPECT_EQ(pair.state(0), LinkState::kConnecting);
  EXPECT_EQ(pair.state(1), LinkState::kConnecting);
}

TEST(HostAgent, ALinkWhoseDirectionDiesIsSilentAtBothEnds) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  pair.filter = [](uint32_t from, const ControlOutput&) { return from == 0; };
  pair.run(Duration::from_ms(1300));
  EXPECT_EQ(pair.state(0), LinkState::kSilent);
  EXPECT_EQ(pair.state(1), LinkState::kSilent);  // its own heartbeats arrive nowhere
}

TEST(HostAgent, AnIdleLinkStaysUpWithOneHeartbeatEach250Ms) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  pair.sent.clear();
  pair.run(Duration::from_s(10));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.sent.size(), 160u);  // 40 from each end, each answered
  EXPECT_EQ(pair[0].stats().heartbeats_missed, 0u);
}

TEST(HostAgent, ALinkIsSilentASecondAfterTheFirstHeartbeatThatWasNotAnswered) {
  AgentPair pair;
  pair.run(Duration::from_ms(10));
  pair.stop(1);
  pair.run(kSilentAfter - Duration::from_ms(100));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  pair.run(kHeartbeatInterval + Duration::from_ms(200));
  EXPECT_EQ(pair.state(0), LinkState::kSilent);
}

TEST(HostAgent, ACableThatLosesAThirdIsNotSilent) {
  AgentPair pair;
  pair.run(Duration::from_ms(10));
  Rng rng(5);
  pair.filter = [&rng](uint32_t, const ControlOutput&) { return rng.below(3) != 0; };
  for (int i = 0; i < 600; ++i) {
    pair.run(Duration::from_ms(100));
    ASSERT_EQ(pair.state(0), LinkState::kUp) << i;
    ASSERT_EQ(pair.state(1), LinkState::kUp) << i;
  }
  EXPECT_GT(pair[0].stats().heartbeats_missed, 100u);
}

// A daemon that was stopped for a while, and lost the one answer that waited for it.
TEST(HostAgent, OneUnansweredHeartbeatIsNoSilenceHoweverLongAgo) {
  AgentPair pair;
  pair.run(Duration::from_ms(10));
  pair.filter = [](uint32_t from, const ControlOutput&) { return from == 0; };
  pair.run(kHeartbeatInterval);
  pair.filter = nullptr;
  pair.now = pair.now + Duration::from_s(5);
  pair.run(Duration::from_ms(300));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
}

TEST(HostAgent, ASilentLinkKeepsItsSessionAndGoesOnWithTheSamePeer) {
  AgentPair pair;
  pair.run(Duration::from_ms(10));
  const CableEntry before = pair.link(0);
  pair.filter = [](uint32_t from, const ControlOutput&) { return from == 0; };
  pair.run(kSilenceMost);
  EXPECT_EQ(pair.state(0), LinkState::kSilent);
  EXPECT_EQ(pair.link(0).tag, before.tag);
  EXPECT_EQ(pair.link(0).peer, before.peer);
  pair.filter = nullptr;
  pair.run(Duration::from_ms(300));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.state(1), LinkState::kUp);
  EXPECT_EQ(pair.link(0).tag, before.tag);
  EXPECT_EQ(pair.link(0).peer, before.peer);
}

TEST(HostAgent, ALinkThatIsSilentForTooLongIsDown) {
  AgentPair pair;
  pair.run(Duration::from_ms(10));
  pair.stop(1);
  pair.run(kSilenceMost + kHeartbeatInterval * 6);
  EXPECT_EQ(pair.state(0), LinkState::kDown);
}

TEST(HostAgent, AnUnpluggedCableListensToNothingAndComesBackWhenPlugged) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  pair[0].handle_link(pair.now, 0, false, 80);
  EXPECT_EQ(pair.state(0), LinkState::kUnplugged);
  pair.run(Duration::from_s(2));
  EXPECT_EQ(pair.state(0), LinkState::kUnplugged);
  EXPECT_EQ(pair.state(1), LinkState::kSilent);
  pair[0].handle_link(pair.now, 0, true, 80);
  pair.run(Duration::from_ms(60));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair.state(1), LinkState::kUp);
}

TEST(HostAgent, ANewIncarnationEndsTheOldOne) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const uint32_t old_tag = pair.link(0).tag;
  const uint8_t old_peer = pair.link(0).peer;
  pair.start(1, 0x2001);
  pair.run(Duration::from_ms(300));
  const DirectoryData& d = pair[0].directory();
  EXPECT_EQ(d.links[0].state, LinkState::kUp);
  EXPECT_NE(d.links[0].tag, old_tag);
  EXPECT_TRUE(d.peers[old_peer].gone);
  EXPECT_NE(d.links[0].peer, old_peer);
  EXPECT_EQ(d.peers[d.links[0].peer].incarnation, 0x2001u);
}

TEST(HostAgent, AHelloOfAPastIncarnationIsNotBelieved) {
  AgentPair pair;
  std::vector<ControlOutput> old_hellos;
  pair.run(Duration::from_ms(10));
  for (const ControlOutput& o : pair.sent) {
    const auto message = decoded(o);
    const auto* hello = std::get_if<wire::Hello>(&message);
    if (hello != nullptr && hello->incarnation == 0x1001) old_hellos.push_back(o);
  }
  ASSERT_FALSE(old_hellos.empty());
  pair.start(1, 0x2001);
  pair.run(Duration::from_ms(300));
  const uint32_t tag = pair.link(0).tag;
  const uint64_t stale = pair[0].stats().stale;
  for (const auto& o : old_hellos) pair[0].handle_message(pair.now, 0, o.tag, o.message);
  EXPECT_EQ(pair.link(0).tag, tag);
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_GE(pair[0].stats().stale, stale + old_hellos.size());
}

TEST(HostAgent, FarewellTakesTheLinkDownAtOnce) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const uint8_t peer = pair.link(0).peer;
  pair[1].handle_shutdown(pair.now);
  pair.settle();
  EXPECT_EQ(pair.state(0), LinkState::kDown);
  EXPECT_TRUE(pair[0].directory().peers[peer].gone);
  EXPECT_EQ(pair.state(1), LinkState::kDown);
  EXPECT_TRUE(pair[1].poll_timeout().is_never());
}

TEST(HostAgent, AMessageUnderAnotherTagIsStale) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const uint32_t tag = pair.link(0).tag;
  pair[0].handle_message(pair.now, 0, tag + 1, wire::encode_control(wire::Bye{0x1001}));
  pair[0].handle_message(pair.now, 0, tag, wire::encode_control(wire::Bye{0x9999}));
  EXPECT_EQ(pair.state(0), LinkState::kUp);
  EXPECT_EQ(pair[0].stats().stale, 2u);
}

TEST(HostAgent, DamagedMessagesAreCountedAndChangeNothing) {
  AgentPair pair;
  pair.run(Duration::from_s(1));
  const std::vector<std::byte> noise(40, std::byte{0x5a});
  for (size_t n = 0; n <= noise.size(); n++) {
    pair[0].handle_message(pair.now, 0, pair.link(0).tag, std::span(noise).first(n));
  }
  EXPECT_EQ(pair[0].stats().malformed, noise.size() + 1);
  EXPECT_EQ(pair.state(0), LinkState::kUp);
}

TEST(HostAgent, TheSpeedOfACableIsPublished) {
  AgentPair pair;
  pair.run(Duration::from_ms(1));
  ASSERT_TRUE(pair[0].take_directory_change());
  pair[0].handle_link(pair.now, 0, true, 40);
  EXPECT_TRUE(pair[0].take_directory_change());
  EXPECT_FALSE(pair[0].take_directory_change());
  EXPECT_EQ(pair.link(0).speed_gbps, 40u);
  EXPECT_EQ(pair.state(0), LinkState::kUp);
}

TEST(HostAgent, StateChangesAreToldByName) {
  AgentPair pair;
  pair.run(Duration::from_ms(1));
  AgentEvent event;
  bool said_up = false;
  while (pair[0].poll_event(event))
    said_up = said_up || event.text == "cable 0 to host1: connecting -> up";
  EXPECT_TRUE(said_up);
}

}  // namespace
}  // namespace tbt::fabric
