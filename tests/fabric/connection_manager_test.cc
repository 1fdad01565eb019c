// Two connection managers over models of their routers: a path comes up at once, whoever is first,
// and says what it should.
#include "fabric/connection_manager.h"

#include "manager_world.h"
#include "wire/tb/path_agreement.h"

namespace tbt::fabric {
namespace {

using wire::tb::Uuid;

// A path needs some fifty accesses and a dozen messages of 5 us each; waiting for anything but them
// would show.
constexpr Duration kAtOnce = Duration::from_ms(3);

void expect_no_trouble(const ManagerWorld& world) {
  for (uint32_t h = 0; h < 2; ++h) {
    for (const auto& warning : world.events_of<ManagerWarning>(h)) {
      ADD_FAILURE() << "host " << h << ": " << warning.text;
    }
    for (const auto& refused : world.events_of<RouterRefused>(h)) ADD_FAILURE() << refused.text;
  }
}

TEST(ConnectionManager, TwoHostsAgreeOnAPathAtOnce) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
  EXPECT_TRUE(world.up());
  expect_no_trouble(world);
  world.run(Duration::from_s(100));
  const uint64_t steps = world.steps;
  world.run(Duration::from_s(100));
  EXPECT_EQ(world.steps, steps) << "an idle path costs nothing";
  EXPECT_TRUE(world[0].poll_timeout().is_never());
}

TEST(ConnectionManager, SaysWhatItHasFoundInOrder) {
  ManagerWorld world;
  world.configs[1].service.max_frame = 2048;
  world.configs[1].ring_entries = 512;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  std::vector<size_t> order;
  for (const ManagerEvent& event : world.events[0]) order.push_back(event.index());
  const std::vector<size_t> wanted = {
      ManagerEvent(RouterReady{}).index(), ManagerEvent(PortChanged{}).index(),
      ManagerEvent(PeerFound{}).index(),   ManagerEvent(FlowTestWanted{}).index(),
      ManagerEvent(FlowTestDue{}).index(), ManagerEvent(PathUp{}).index()};
  EXPECT_EQ(order, wanted);

  const PortStatus changed = world.events_of<PortChanged>(0)[0].status;
  EXPECT_EQ(changed.state, PortState::kUp);
  EXPECT_EQ(changed.adapter, 1);
  EXPECT_EQ(changed.lane1_adapter, 2);
  EXPECT_EQ(changed.speed_gbps, 40u);
  EXPECT_EQ(changed.lanes, 2u);

  const PeerStatus peer = world.events_of<PeerFound>(0)[0].peer;
  EXPECT_EQ(peer.host_name, "host1");
  EXPECT_EQ(peer.vendor_name, "Linux");
  EXPECT_EQ(peer.uuid, world[1].status().uuid);
  EXPECT_TRUE(peer.runs_tbt());
  EXPECT_FALSE(peer.thunderbolt_net);
  EXPECT_EQ(peer.max_hop_id, 31);
  ASSERT_EQ(peer.services.size(), 1u);
  EXPECT_EQ(peer.services[0].key, "tbtrdma");

  const PathStatus path = world.events_of<PathUp>(0)[0].path;
  EXPECT_EQ(path.port, 0u);
  EXPECT_EQ(path.tx_ring, 1);
  EXPECT_EQ(path.rx_ring, 1);
  EXPECT_EQ(path.in_hop_id, 8);
  EXPECT_EQ(path.out_hop_id, 8);
  EXPECT_EQ(path.peer_incarnation, 101u);
  EXPECT_EQ(path.peer_max_frame, 2048u);
  EXPECT_EQ(path.peer_ring_entries, 512);
  EXPECT_EQ(path.peer_settings, uint32_t{wire::tb::kTbtSettingE2e});
  EXPECT_EQ(path.features, wire::tb::kPathFeatureE2e | wire::tb::kPathFeatureCredits);
}

TEST(ConnectionManager, KnowsItsRouter) {
  ManagerWorld world(1, 2);
  world.boot(0);
  EXPECT_EQ(world[0].status().state, RouterState::kStarting);
  world.run(Duration::from_s(1));
  const RouterStatus status = world[0].status();
  EXPECT_EQ(status.state, RouterState::kReady);
  EXPECT_EQ(status.usb4_version, 2u);
  EXPECT_EQ(status.max_adapter, 5);
  EXPECT_EQ(status.nhi_adapter, 5);
  EXPECT_EQ(status.nhi_hop_id_max, 11);
  EXPECT_EQ(status.vendor_id, 0x8087);
  ASSERT_EQ(status.ports.size(), 2u);
  EXPECT_EQ(status.ports[1].port, 1u);
  EXPECT_EQ(status.ports[1].adapter, 3);
  EXPECT_TRUE(status.ports[1].usable);
  EXPECT_EQ(status.ports[1].state, PortState::kUnplugged);
  EXPECT_EQ(status.ports[1].lanes, 0u);
  // The unique id and eight bytes of ones, as Linux has it.
  const Uuid wanted = wire::tb::uuid("44443333-2222-1111-ffff-ffffffffffff");
  EXPECT_EQ(status.uuid, wanted);
}

TEST(ConnectionManager, EntriesAreWhatTheKernelWritesAndNoMore) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  const auto transmit = world.router(0).path(3, 1);
  EXPECT_TRUE(transmit.enabled && transmit.egress_fc && !transmit.drop);
  EXPECT_EQ(transmit.egress_adapter, 1);
  EXPECT_EQ(transmit.next_hop, 8);
  const auto receive = world.router(0).path(1, 8);
  EXPECT_TRUE(receive.enabled && receive.ingress_fc && receive.egress_fc && !receive.drop);
  EXPECT_EQ(receive.egress_adapter, 3);
  EXPECT_EQ(receive.next_hop, 1);
  EXPECT_EQ(receive.credits, world.port(0).receive_credits);
  EXPECT_EQ(world.entries(0), 2u);
  for (uint32_t h = 0; h < 2; ++h) {
    const auto& counters = world.router(h).counters();
    EXPECT_EQ(counters.vendor_bits_changed, 0u);
    EXPECT_EQ(counters.malformed, 0u);
    EXPECT_EQ(counters.ignored, 0u);
    EXPECT_EQ(counters.events_acknowledged, counters.events);
  }
}

// The second host begins at every moment of the first one's work, and long after.
TEST(ConnectionManager, WhoeverComesLateIsNotWaitedFor) {
  ManagerWorld whole;
  whole.plug_all();
  whole.boot(0);
  whole.run(Duration::from_ms(30));
  const uint64_t alone = whole.steps;
  ASSERT_GT(alone, 20u);
  for (uint64_t steps = 0; steps <= alone + 20; ++steps) {
    ManagerWorld world;
    world.plug_all();
    world.boot(0);
    world.run_steps(steps);
    world.boot(1);
    EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce) << "after " << steps;
    expect_no_trouble(world);
  }
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.run(Duration::from_s(300));
  EXPECT_NE(world.port(0).trouble, "");
  world.boot(1);
  EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
  EXPECT_EQ(world.port(0).trouble, "");
}

TEST(ConnectionManager, ACableMayBePluggedLater) {
  for (const bool one_waits : {false, true}) {
    ManagerWorld world;
    world.boot(0);
    if (!one_waits) world.boot(1);
    world.run(Duration::from_s(3));
    EXPECT_EQ(world.port(0).state, PortState::kUnplugged);
    world.plug_all();
    if (one_waits) world.boot(1);
    EXPECT_LT(world.run_until_up(Duration::from_s(5)), kAtOnce);
  }
}

TEST(ConnectionManager, EveryCableHasItsOwnPath) {
  ManagerWorld world(1, 3);
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  for (uint32_t port = 0; port < 3; ++port) EXPECT_TRUE(world.up(port)) << port;
  EXPECT_EQ(world.port(0, 2).path->tx_ring, 3);
  EXPECT_EQ(world.port(0, 2).path->peer_rail, 2);
  world.plug(1, false);
  world.run(Duration::from_s(1));
  EXPECT_TRUE(world.up(0) && world.up(2));
  EXPECT_FALSE(world.up(1));
  EXPECT_EQ(world.entries(0), 4u);
}

TEST(ConnectionManager, AControllerWithFewRingsServesFewPorts) {
  ManagerWorld world(1, 3, 3);
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  EXPECT_TRUE(world.up(0) && world.up(1));
  EXPECT_FALSE(world.port(0, 2).usable);
  EXPECT_EQ(world.port(0, 2).trouble, "the controller has no ring 3 for it");
  ASSERT_TRUE(world.port(0, 2).peer) << "it is seen all the same";
  EXPECT_FALSE(world.port(0, 2).peer->runs_tbt());
  EXPECT_FALSE(world.leads_across(0, 2));
}

TEST(ConnectionManager, AHostWithoutOurServiceIsAPeerWithoutAPath) {
  ManagerWorld world;
  world.configs[1].ring_pairs = 1;
  world.configs[1].first_ip_ring = world.configs[1].ip_rings = 1;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(5));
  ASSERT_TRUE(world.port(0).peer);
  EXPECT_EQ(world.port(0).peer->tbt_error, wire::tb::ServiceError::kAbsent);
  EXPECT_TRUE(world.port(0).peer->thunderbolt_net);
  EXPECT_FALSE(world.port(0).path);
  EXPECT_EQ(world.entries(0), 0u);
  EXPECT_TRUE(world[0].poll_timeout().is_never()) << "without rings we do not log in";
}

// Below generation 4 the hosts must agree on two lanes; frames flow in the meantime.
TEST(ConnectionManager, TwoLanesBecomeOneLink) {
  for (const uint32_t first : {0u, 1u}) {
    ManagerWorld world;
    world.cables[0].generation_max = 3;
    world.plug_all();
    world.boot(first);
    world.run(Duration::from_ms(10));
    world.boot(1 - first);
    EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce);
    world.run(Duration::from_ms(30));
    for (uint32_t h = 0; h < 2; ++h) {
      EXPECT_EQ(world.port(h).lanes, 2u) << h;
      EXPECT_EQ(world.port(h).speed_gbps, 20u);
      EXPECT_TRUE(world.router(h).link(0).bonded);
      EXPECT_EQ(world.events_of<PathDown>(h).size(), 0u);
      EXPECT_EQ(world.events_of<PortChanged>(h).back().status.lanes, 2u);
    }
    world.run(Duration::from_s(10));
    EXPECT_TRUE(world[0].poll_timeout().is_never() && world[1].poll_timeout().is_never());
    expect_no_trouble(world);
    // A new link begins with one lane again, or with two if the lanes remember.
    world.plug(0, false);
    world.run(Duration::from_ms(10));
    world.plug(0, true);
    world.run(Duration::from_ms(100));
    EXPECT_EQ(world.port(0).lanes, 2u);
  }
}

TEST(ConnectionManager, ALinkThatDoesNotBecomeWiderStaysAsItIs) {
  ManagerWorld world;
  world.cables[0].generation_max = 3;
  world.intercept =
      [](uint32_t host,
         const wire::tb::ControlPacket& packet) -> std::optional<wire::tb::ControlPacket> {
    const auto* write = std::get_if<wire::tb::WriteRequest>(&packet);
    if (host != 1 || write == nullptr || write->address.adapter != 2) return std::nullopt;
    return wire::tb::WriteReply{{}, write->address};  // and nothing happens
  };
  world.plug_all();
  world.boot(0);
  world.boot(1);
  EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce);
  world.run(Duration::from_s(10));
  EXPECT_EQ(world.port(0).lanes, 1u);
  EXPECT_TRUE(world.up());
  EXPECT_TRUE(world[0].poll_timeout().is_never()) << "it is not looked at for ever";
}

TEST(ConnectionManager, ASlowerLinkIsNews) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  world.cables[0].generation_max = 3;
  world.retrain(0);
  world.notify(0, wire::tb::kLinkRecovery, 0);
  world.run(Duration::from_s(1));
  EXPECT_EQ(world.port(0).speed_gbps, 20u);
  EXPECT_EQ(world.events_of<PortChanged>(0).back().status.speed_gbps, 20u);
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.events_of<PathDown>(0).size(), 0u);
  const auto& counters = world.router(0).counters();
  EXPECT_EQ(counters.notifications_acknowledged, counters.notifications);
}

// Nothing tells of it: it is seen at the next look. Two lanes that are no longer one link are made
// one again.
TEST(ConnectionManager, ALinkThatChangesSilentlyIsSeenAtTheNextLook) {
  ManagerWorld world;
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
  const auto becomes = [&](uint8_t generation, bool one_lane, uint32_t gbps, uint32_t lanes) {
    world.cables[0].generation_max = generation;
    world.cables[0].one_lane = one_lane;
    world.retrain(0);
    for (uint32_t look = 0; look < 4; ++look) {  // by turns: the hosts do not see it together
      world[look % 2].look(world.now);
      world.run(Duration::from_ms(500));
    }
    for (uint32_t h = 0; h < 2; ++h) {
      if (world.port(h).speed_gbps != gbps || world.port(h).lanes != lanes) return false;
    }
    return true;
  };
  EXPECT_TRUE(becomes(4, false, 40, 2));
  EXPECT_TRUE(becomes(3, false, 20, 2));
  EXPECT_TRUE(becomes(2, true, 10, 1));
  EXPECT_TRUE(becomes(4, false, 40, 2));
  EXPECT_TRUE(becomes(4, true, 20, 1));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.events_of<PathDown>(0).size(), 0u);
  world.run(Duration::from_s(10));
  EXPECT_TRUE(world[0].poll_timeout().is_never());
}

}  // namespace
}  // namespace tbt::fabric
