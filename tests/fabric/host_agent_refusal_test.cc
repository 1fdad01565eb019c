// HostAgent: whom it refuses, and how a refusal is taken.
#include <gtest/gtest.h>

#include "agent_pair.h"
#include "fabric/addresses.h"

namespace tbt::fabric {
namespace {

wire::Hello hello_of(uint32_t host, uint64_t incarnation) {
  wire::Hello hello;
  hello.incarnation = incarnation;
  hello.uuid = host_uuid("test", host);
  hello.host_name = "host" + std::to_string(host);
  const PortEntry port = port_entry({.fabric = "test", .host = host});
  hello.ports.push_back({port.lid, port.cable, {port.gids[0], port.gids[1]}});
  return hello;
}

// The refusal that the agent answers with, if it does.
std::optional<wire::Refuse> refusal_by(HostAgent& agent) {
  ControlOutput out;
  while (agent.poll_transmit(out)) {
    const auto message = decoded(out);
    if (const auto* refuse = std::get_if<wire::Refuse>(&message)) return *refuse;
  }
  return std::nullopt;
}

class Refusal : public ::testing::Test {
 protected:
  std::optional<wire::Refuse> answer_to(const wire::Hello& hello, uint32_t cable = 0) {
    agent.handle_message(now, cable, 0, wire::encode_control(hello));
    return refusal_by(agent);
  }
  Instant now{1000};
  HostAgent agent{AgentPair::config(0, 0x1000, 2), now};
};

TEST_F(Refusal, AnotherVersionIsRefusedWithOurs) {
  wire::Hello hello = hello_of(1, 0x1001);
  hello.version = 2;
  const auto refuse = answer_to(hello);
  ASSERT_TRUE(refuse);
  EXPECT_EQ(refuse->reason, wire::kRefuseVersion);
  EXPECT_EQ(refuse->version, wire::kProtocolVersion);
}

TEST_F(Refusal, ACableFromAHostToItselfIsRefused) {
  const auto refuse = answer_to(hello_of(0, 0x1001));
  ASSERT_TRUE(refuse);
  EXPECT_EQ(refuse->reason, wire::kRefuseSelf);
}

TEST_F(Refusal, OurOwnLidAtAnotherHostIsRefused) {
  wire::Hello hello = hello_of(1, 0x1001);
  hello.ports[0].lid = aggregate_lid(0);
  const auto refuse = answer_to(hello);
  ASSERT_TRUE(refuse);
  EXPECT_EQ(refuse->reason, wire::kRefuseDuplicateLid);
}

TEST_F(Refusal, TwoPeersWithOneLidAreNotBothTaken) {
  EXPECT_FALSE(answer_to(hello_of(1, 0x1001), 0));
  wire::Hello second = hello_of(2, 0x1002);
  second.ports[0].lid = aggregate_lid(1);
  const auto refuse = answer_to(second, 1);
  ASSERT_TRUE(refuse);
  EXPECT_EQ(refuse->reason, wire::kRefuseDuplicateLid);
}

TEST_F(Refusal, TheLidOfAPeerThatIsGoneMayBeTakenByAnother) {
  EXPECT_FALSE(answer_to(hello_of(1, 0x1001), 0));
  const uint32_t tag = wire::session_tag(0x1000, 0x1001);
  agent.handle_message(now, 0, tag, wire::encode_control(wire::Bye{0x1001}));
  wire::Hello second = hello_of(2, 0x1002);
  second.ports[0].lid = aggregate_lid(1);
  EXPECT_FALSE(answer_to(second, 1));
}

TEST_F(Refusal, ARefusedHostAsksOnceASecondAndWarnsOnce) {
  refusal_by(agent);
  const wire::Refuse refuse{1, wire::kRefuseVersion};
  int hellos = 0;
  for (int ms = 0; ms < 5000; ms++) {
    now = now + Duration::from_ms(1);
    if (agent.poll_timeout() <= now) agent.handle_timeout(now);
    ControlOutput out;
    while (agent.poll_transmit(out)) {
      if (out.cable != 0) continue;
      hellos++;
      agent.handle_message(now, 0, 0, wire::encode_control(refuse));
    }
  }
  EXPECT_EQ(agent.directory().links[0].state, LinkState::kDown);
  EXPECT_GE(hellos, 4);
  EXPECT_LE(hellos, 6);
  int warnings = 0;
  AgentEvent event;
  while (agent.poll_event(event))
    warnings += event.text.find("refuses us") != std::string::npos ? 1 : 0;
  EXPECT_EQ(warnings, 1);
}

TEST_F(Refusal, MorePeersThanTheDirectoryHoldsReplaceOnlyThoseThatAreGone) {
  for (uint32_t i = 0; i < 40; i++) {  // one host that comes back again and again
    EXPECT_FALSE(answer_to(hello_of(1, 0x2000 + i)));
    EXPECT_EQ(agent.directory().peers[agent.directory().links[0].peer].incarnation, 0x2000u + i);
  }
  int living = 0;
  for (const PeerEntry& peer : agent.directory().peers) living += peer.known && !peer.gone ? 1 : 0;
  EXPECT_EQ(living, 1);
}

}  // namespace
}  // namespace tbt::fabric
