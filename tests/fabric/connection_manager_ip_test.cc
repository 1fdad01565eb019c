// ThunderboltIP by the connection manager: host 0 runs this project and offers thunderbolt-net as
// well, host 1 runs that only, as a Linux without this software does.
#include "manager_world.h"
#include "wire/tb/thunderbolt_ip.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

// Some seventy accesses and messages of 5 us each.
constexpr Duration kAtOnce = Duration::from_ms(5);
constexpr uint32_t kLane = 1, kNhi = 3;  // adapters of a router with one port
constexpr uint16_t kOurRing = 2, kTheirRing = 1, kHopId = 9;

class IpWorld : public ManagerWorld {
 public:
  explicit IpWorld(uint64_t seed = 1) : ManagerWorld(seed) {
    configs[0].first_ip_ring = kOurRing;
    configs[0].ip_rings = 1;
    configs[1].ring_pairs = 1;  // none for rails
    configs[1].first_ip_ring = kTheirRing;
    configs[1].ip_rings = 1;
  }
  // Linux's daemon, so to speak, begins to run this project.
  void convert() {
    configs[1].ring_pairs = 12;
    configs[1].first_ip_ring = kOurRing;
    restart(1);
  }
  [[nodiscard]] IpLinkState ip(uint32_t host = 0) {
    const auto status = port(host).ip;
    return status ? status->state : IpLinkState::kNotOffered;
  }
  [[nodiscard]] bool leads(uint32_t host, uint32_t ring, uint32_t far_ring) {
    const auto first = router(host).path(kNhi, ring);
    const auto second = router(1 - host).path(kLane, first.next_hop);
    return first.enabled && first.egress_adapter == kLane && second.enabled &&
           second.egress_adapter == kNhi && second.next_hop == far_ring;
  }
  [[nodiscard]] bool connected() {
    return alive(0) && alive(1) && ip(0) == IpLinkState::kConnected &&
           ip(1) == IpLinkState::kConnected && leads(0, kOurRing, kTheirRing) &&
           leads(1, kTheirRing, kOurRing);
  }
  Duration run_until_connected(Duration limit) {
    const Instant begun = now, end = now + limit;
    while (!connected() && step(end)) {
    }
    return now - begun;
  }
  void boot_both() {
    plug_all();
    boot(0);
    boot(1);
  }
};

TEST(ManagerIp, APeerWithThunderboltNetOnlyIsConnectedAtOnce) {
  IpWorld world;
  world.boot_both();
  EXPECT_LT(world.run_until_connected(Duration::from_s(5)), kAtOnce);
  ASSERT_TRUE(world.connected());
  world.run(Duration::from_s(100));
  EXPECT_EQ(world.entries(0), 2u);
  EXPECT_FALSE(world.port(0).path) << "frames of ours do not go there";
  const auto ups = world.events_of<IpUp>(0);
  ASSERT_EQ(ups.size(), 1u);
  EXPECT_EQ(ups[0].port, 0u);
  EXPECT_EQ(ups[0].link.ring, kOurRing);
  EXPECT_EQ(ups[0].link.in_hop_id, kHopId);
  EXPECT_EQ(ups[0].link.out_hop_id, kHopId);
  EXPECT_EQ(ups[0].link.mac, ManagerWorld::mac_of(0));
  EXPECT_EQ(ups[0].link.peer_mac, ManagerWorld::mac_of(1));
  const auto receive = world.router(0).path(kLane, kHopId);
  EXPECT_EQ(receive.credits, world.port(0).receive_credits);
  EXPECT_TRUE(receive.ingress_fc && receive.egress_fc && !receive.drop);
  EXPECT_TRUE(world[0].poll_timeout().is_never()) << "and then nothing is said any more";
  EXPECT_TRUE(world.events_of<ManagerWarning>(0).empty());
}

TEST(ManagerIp, TheServiceIsOfferedAsLinuxWantsIt) {
  IpWorld world;
  world.boot_both();
  world.run(Duration::from_s(1));
  const auto services = world.port(1).peer->services;
  ASSERT_EQ(services.size(), 2u);
  EXPECT_EQ(services[1].key, kThunderboltIpServiceKey);
  EXPECT_EQ(services[1].uuid, kThunderboltIpServiceUuid);
  EXPECT_EQ(services[1].protocol_id, 1u);
  EXPECT_EQ(services[1].version, 1u);
  EXPECT_EQ(services[1].settings, 6u) << "fragment ids and 64K packets, but no end-to-end credits";
}

TEST(ManagerIp, TwoHostsOfOursDoNotNeedIt) {
  IpWorld world;
  world.configs[1].ring_pairs = 12;
  world.configs[1].first_ip_ring = kOurRing;
  world.boot_both();
  EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce);
  world.run(Duration::from_s(100));
  EXPECT_TRUE(world.up());
  EXPECT_TRUE(world.port(0).peer->thunderbolt_net) << "it is offered";
  EXPECT_FALSE(world.port(0).ip);
  EXPECT_EQ(world.entries(0) + world.entries(1), 4u);
  EXPECT_TRUE(world.events_of<IpRingsWanted>(0).empty());
  EXPECT_TRUE(world[0].poll_timeout().is_never());
}

// Another implementation might log in to us although we offer something better.
TEST(ManagerIp, ALoginOfAHostOfOursIsOfNoConsequence) {
  IpWorld world;
  world.configs[1].ring_pairs = 12;
  world.configs[1].first_ip_ring = kOurRing;
  world.boot_both();
  world.run(Duration::from_s(1));
  const IpMessage login{.initiator = world[1].status().uuid,
                        .target = world[0].status().uuid,
                        .command_id = 1,
                        .content = IpLogin{.transmit_path = kHopId}};
  world.give(0, encode_thunderbolt_ip(login, {.route = Route{kLane}, .from_router = true}));
  world.run(Duration::from_s(10));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.entries(0), 2u);
  EXPECT_FALSE(world.port(0).ip);
}

TEST(ManagerIp, APulledCableDisconnectsAndAReplugConnects) {
  IpWorld world;
  world.boot_both();
  world.run(Duration::from_s(1));
  world.plug(0, false);
  world.run(Duration::from_ms(5));
  ASSERT_EQ(world.events_of<IpDown>(0).size(), 1u);
  EXPECT_EQ(world.events_of<IpDown>(0)[0].why, "the cable was pulled");
  EXPECT_EQ(world.entries(0) + world.entries(1), 0u);
  EXPECT_FALSE(world.port(0).ip);
  world.plug(0, true);
  EXPECT_LT(world.run_until_connected(Duration::from_s(1)), kAtOnce);
  EXPECT_EQ(world.events_of<IpUp>(0).size(), 2u);
}

TEST(ManagerIp, APullAtEveryStepLeavesNothingOpen) {
  IpWorld whole;
  whole.boot_both();
  whole.run_until_connected(Duration::from_s(1));
  const uint64_t all = whole.steps;
  ASSERT_GT(all, 50u);
  for (uint64_t cut = 1; cut < all; ++cut) {
    IpWorld world;
    world.boot_both();
    world.run_steps(cut);
    world.plug(0, false);
    world.run(Duration::from_s(2));
    ASSERT_EQ(world.entries(0) + world.entries(1), 0u) << cut;
    ASSERT_EQ(world.events_of<IpUp>(0).size(), world.events_of<IpDown>(0).size()) << cut;
    world.plug(0, true);
    world.run_until_connected(Duration::from_s(20));
    ASSERT_TRUE(world.connected()) << cut;
  }
}

TEST(ManagerIp, APeerThatBeginsToRunThisProjectGetsItsRail) {
  IpWorld world;
  world.boot_both();
  world.run(Duration::from_s(1));
  world.convert();
  world.run(Duration::from_s(5));
  EXPECT_TRUE(world.up());
  EXPECT_EQ(world.entries(0) + world.entries(1), 4u) << "none of ThunderboltIP";
  EXPECT_EQ(world.events_of<IpDown>(0).size(), 1u);
  EXPECT_FALSE(world.port(0).ip);
}

TEST(ManagerIp, ShutdownAtEveryStepTellsThePeerAndEndsInTime) {
  IpWorld whole;
  whole.boot_both();
  whole.run_until_connected(Duration::from_s(1));
  for (uint64_t cut = 1; cut <= whole.steps; ++cut) {
    IpWorld world;
    world.boot_both();
    world.run_steps(cut);
    const Instant begun = world.now;
    world[0].shutdown(world.now);
    while (!world[0].is_closed() && world.step(begun + Duration::from_s(2))) {
    }
    ASSERT_TRUE(world[0].is_closed()) << cut;
    ASSERT_LT(world.now - begun, Duration::from_ms(800)) << cut;
    ASSERT_EQ(world.entries(0), 0u) << cut;
    world.run(Duration::from_s(1));
    ASSERT_NE(world.ip(1), IpLinkState::kConnected) << cut;
  }
}

TEST(ManagerIp, ADaemonThatFollowsAKilledOneLogsOutFirst) {
  IpWorld world;
  world.boot_both();
  world.run(Duration::from_s(1));
  world.kill(0);
  world.run(Duration::from_s(1));
  world.resume(0);
  world.run(Duration::from_ms(100));
  EXPECT_EQ(world.ip(1), IpLinkState::kResting) << "it was logged out";
  world.run_until_connected(Duration::from_s(3));
  EXPECT_TRUE(world.connected());
  EXPECT_EQ(world.entries(0), 2u) << "what the killed one had opened is closed";
}

TEST(ManagerIp, APeerThatIsKilledAndComesBackIsConnectedAgain) {
  IpWorld world;
  world.boot_both();
  world.run(Duration::from_s(1));
  world.kill(1);
  world.run(Duration::from_s(1));
  world.restart(1);
  world.run(Duration::from_s(10));
  EXPECT_TRUE(world.connected());
  EXPECT_EQ(world.entries(1), 2u);
}

TEST(ManagerIp, RingsThatCannotRunTakeTheOfferBack) {
  IpWorld world;
  world.ip_rings_run = false;
  world.boot_both();
  world.run(Duration::from_s(5));
  EXPECT_EQ(world.events_of<IpRingsWanted>(0).size(), 1u);
  EXPECT_EQ(world.ip(0), IpLinkState::kNotOffered);
  ASSERT_TRUE(world.port(1).peer);
  EXPECT_FALSE(world.port(1).peer->thunderbolt_net);
  EXPECT_EQ(world.entries(0), 0u);
}

TEST(ManagerIp, WithoutRingsItIsNotOffered) {
  for (const uint32_t first : {kOurRing + 0u, 40u}) {  // none of them; beyond the NHI adapter's
    IpWorld world;
    world.configs[0].first_ip_ring = first;
    world.configs[0].ip_rings = first == 40 ? 1 : 0;
    world.boot_both();
    world.run(Duration::from_s(5));
    EXPECT_FALSE(world.port(1).peer->thunderbolt_net);
    ASSERT_TRUE(world.port(0).ip) << "the peer is seen all the same";
    EXPECT_EQ(world.ip(0), IpLinkState::kNotOffered);
    EXPECT_TRUE(world.events_of<IpRingsWanted>(0).empty());
  }
}

TEST(ManagerIp, APeerWhoseInterfaceIsDownIsWaitedFor) {
  IpWorld world;
  world.intercept = [](uint32_t host, const ControlPacket& packet) -> std::optional<ControlPacket> {
    const auto* message = std::get_if<XDomainPacket>(&packet);
    const bool ip = message != nullptr && message->protocol == kThunderboltIpProtocol;
    if (host != 1 || !ip) return std::nullopt;
    return Notification{{}, 0x3f, 0};  // in the place of what the peer would have said
  };
  world.boot_both();
  world.run(Duration::from_s(30));
  EXPECT_EQ(world.ip(0), IpLinkState::kLoggingIn);
  EXPECT_EQ(world.entries(0), 0u);
  world.run(Duration::from_s(600));
  EXPECT_EQ(world.ip(0), IpLinkState::kResting);
}

// By which HopID a peer sends is its choice, within what the lane has.
TEST(ManagerIp, AHopIdThatTheLaneDoesNotHaveIsRefused) {
  for (const uint16_t hop_id : {uint16_t{7}, uint16_t{32}, uint16_t{2047}}) {
    IpWorld world;
    world.intercept = [&](uint32_t host,
                          const ControlPacket& packet) -> std::optional<ControlPacket> {
      const auto* message = std::get_if<XDomainPacket>(&packet);
      IpMessage ip;
      if (host != 1 || message == nullptr || world[1].status().uuid == Uuid{} ||
          decode_thunderbolt_ip(*message, ip) != XDomainError::kNone ||
          !std::holds_alternative<IpLogin>(ip.content)) {
        return std::nullopt;
      }
      ip.content = IpLogin{.transmit_path = hop_id};
      world.give(0, encode_thunderbolt_ip(ip, {.route = Route{kLane}, .from_router = true}));
      return Notification{{}, 0x3f, 0};
    };
    world.boot_both();
    world.run(Duration::from_s(5));
    EXPECT_EQ(world.ip(0), IpLinkState::kFailed) << hop_id;
    EXPECT_EQ(world.port(0).trouble, "thunderbolt-net of the peer wants to send by HopID " +
                                         std::to_string(hop_id) + ", which the lane does not have");
    EXPECT_EQ(world.entries(0), 0u);
    EXPECT_TRUE(world[0].poll_timeout().is_never());
  }
}

TEST(ManagerIp, ARouterThatTakesNoEntriesIsATroubleNotACircle) {
  for (const uint32_t adapter : {kLane, kNhi}) {
    IpWorld world;
    bool refuse = true;
    world.intercept = [&](uint32_t host,
                          const ControlPacket& packet) -> std::optional<ControlPacket> {
      const auto* write = std::get_if<WriteRequest>(&packet);
      if (!refuse || host != 0 || write == nullptr) return std::nullopt;
      if (write->address.space != ConfigSpace::kPath || write->address.adapter != adapter) {
        return std::nullopt;
      }
      return Notification{{}, kBadAddress, write->address.adapter};
    };
    world.boot_both();
    world.run(Duration::from_s(5));
    EXPECT_EQ(world.ip(0), IpLinkState::kFailed);
    EXPECT_EQ(world.port(0).trouble, "thunderbolt-net: a path entry: bad address");
    EXPECT_EQ(world.entries(0), 0u);
    EXPECT_TRUE(world.events_of<IpUp>(0).empty());
    EXPECT_TRUE(world[0].poll_timeout().is_never());
    refuse = false;
    world.plug(0, false);
    world.run(Duration::from_s(1));
    world.plug(0, true);
    world.run(Duration::from_s(10));
    EXPECT_TRUE(world.connected()) << "a new link, a new chance";
  }
}

TEST(ManagerIp, LossOnlyDelays) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    IpWorld world(seed);
    world.cable_lost_ppm = world.ring_lost_ppm = 100'000;
    world.boot_both();
    world.run_until_connected(Duration::from_s(120));
    ASSERT_TRUE(world.connected()) << seed;
  }
}

}  // namespace
}  // namespace tbt::fabric
