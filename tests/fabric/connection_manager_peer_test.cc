// The connection manager with routers and peers that are not as they should be: silent, foreign,
// firmware's, of other limits, without our service, changing, or meaning harm.
#include "fabric/connection_manager.h"
#include "fabric/xdomain_peer.h"
#include "manager_world.h"
#include "wire/tb/path_agreement.h"
#include "wire/tb/xdomain.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

constexpr Duration kAtOnce = Duration::from_ms(3);
constexpr uint32_t kLane = 1, kNhi = 3;  // adapters of a router with one port

void boot_both(ManagerWorld& world) {
  world.plug_all();
  world.boot(0);
  world.boot(1);
  world.run(Duration::from_s(1));
}

TEST(ConnectionManagerPeer, ARouterThatNeverAnswersIsRefusedInBoundedTime) {
  ManagerWorld world;
  world.ring_lost_ppm = 1'000'000;
  world.boot(0);
  world.run(Duration::from_ms(500));
  EXPECT_EQ(world[0].status().state, RouterState::kRefused);
  const auto refusals = world.events_of<RouterRefused>(0);
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].text, world[0].status().refusal);
  EXPECT_EQ(refusals[0].text, "the router does not answer on the control channel: no answer");
  EXPECT_TRUE(world[0].poll_timeout().is_never());
  world[0].shutdown(world.now);
  EXPECT_TRUE(world[0].is_closed());
}

TEST(ConnectionManagerPeer, AControllerWhoseFirmwareIsTheManagerIsLeftAlone) {
  for (const bool late : {false, true}) {
    ManagerWorld world;
    world.plug_all();
    world.boot(0);
    world.boot(1);
    if (late) world.run(Duration::from_s(1));
    world[0].handle_packet(world.now, 10, std::vector<std::byte>(16));
    const uint64_t asked = world[0].channel_stats().requests;
    world.run(Duration::from_s(10));
    EXPECT_EQ(world[0].status().state, RouterState::kRefused);
    EXPECT_EQ(world.events_of<RouterRefused>(0).size(), 1u);
    EXPECT_EQ(world.last_down(0),
              late ? "firmware of this controller is its connection manager" : "");
    EXPECT_EQ(world[0].channel_stats().requests, asked);
    EXPECT_TRUE(world[0].status().ports.empty());
  }
}

TEST(ConnectionManagerPeer, ARouterAtTheOtherEndIsNamedAsSuch) {
  ManagerWorld world;
  world.intercept = [](uint32_t, const ControlPacket& packet) -> std::optional<ControlPacket> {
    const auto* request = std::get_if<ReadRequest>(&packet);
    if (request == nullptr || request->route.value == 0) return std::nullopt;
    ReadReply reply{request->route, request->address, {}};
    for (uint32_t i = 0; i < request->address.length; ++i) reply.data.push(0x5781'8086u);
    return reply;
  };
  world.plug_all();
  world.boot(0);
  world.run(Duration::from_s(10));
  EXPECT_EQ(world.port(0).state, PortState::kForeign);
  EXPECT_EQ(world.events_of<PortChanged>(0).back().status.state, PortState::kForeign);
  EXPECT_TRUE(world[0].poll_timeout().is_never());
  // A host that was only very slow.
  world.boot(1);
  EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce);
  EXPECT_EQ(world.port(0).state, PortState::kUp);
}

void set_hop_limits(ManagerWorld& world, uint32_t host, uint32_t in, uint32_t out) {
  uint32_t& word = world.silicon(host).ports[0].lane0[5];
  word = (word & ~0x3f'ffffu) | out << 11 | in;
}

TEST(ConnectionManagerPeer, HopIdsAreUsedUpToTheLimitsOfBoth) {
  for (uint32_t host = 0; host < 2; ++host) {
    ManagerWorld world;
    set_hop_limits(world, host, 8, 8);
    boot_both(world);
    EXPECT_TRUE(world.up()) << "8 is the first that is ours";
    EXPECT_EQ(world.port(1 - host).peer->max_hop_id, 8);
  }
  for (uint32_t host = 0; host < 2; ++host) {
    ManagerWorld world;
    set_hop_limits(world, host, 7, 31);
    boot_both(world);
    world.run(Duration::from_s(60));
    EXPECT_FALSE(world.port(host).usable);
    EXPECT_EQ(world.port(host).trouble, "its lane has no HopIDs for paths");
    EXPECT_FALSE(world.port(0).path || world.port(1).path);
    EXPECT_EQ(world.entries(0) + world.entries(1), 0u);
  }
}

// A peer that can be reached by no HopID of ours, though it has our service.
TEST(ConnectionManagerPeer, APeerThatTakesNoHopIdOfOursIsToldApart) {
  ManagerWorld world;
  boot_both(world);
  world.kill(1);
  PropertyDirectory root = host_directory({.device_name = "odd", .max_hop_id = 7});
  add_tbt_service({}, root);
  std::vector<uint32_t> block;
  ASSERT_EQ(build_property_block(root, block), PropertyError::kNone);
  XDomainPeer odd(world.port(0).peer->uuid, Route{kLane});
  odd.set_properties(world.now, block);
  odd.link_up(world.now);
  world.intercept = [&](uint32_t, const ControlPacket& packet) -> std::optional<ControlPacket> {
    const auto* message = std::get_if<XDomainPacket>(&packet);
    if (message == nullptr) return std::nullopt;
    odd.handle_packet(world.now, *message);
    XDomainPacket answer;
    if (!odd.poll_transmit(world.now, answer)) return Reset{.route = {}, .from_router = true};
    answer.from_router = true;
    return answer;
  };
  XDomainPacket changed = encode_xdomain(PropertiesChangedRequest{world.port(0).peer->uuid},
                                         {.route = Route{kLane}, .from_router = true});
  world.give(0, changed);
  world.run(Duration::from_s(2));
  EXPECT_EQ(world.port(0).peer->host_name, "odd");
  EXPECT_EQ(world.last_down(0), "no HopID that both hosts can use");
  EXPECT_EQ(world.port(0).trouble, "no HopID that both hosts can use");
  EXPECT_EQ(world.entries(0), 0u);
}

TEST(ConnectionManagerPeer, APeerThatOffersOurServiceNoLongerLosesThePath) {
  ManagerWorld world;
  boot_both(world);
  world.configs[1].ring_pairs = 1;
  world.restart(1);
  world.run(Duration::from_s(1));
  EXPECT_EQ(world.last_down(0), "the peer offers our service no longer");
  EXPECT_EQ(world.entries(0) + world.entries(1), 0u);
  EXPECT_TRUE(world.events_of<PeerLost>(0).empty()) << "it is still there";
  ASSERT_TRUE(world.port(0).peer);
  EXPECT_FALSE(world.port(0).peer->runs_tbt());
  world.configs[1].ring_pairs = 12;
  world.restart(1);
  world.run(Duration::from_s(1));
  EXPECT_TRUE(world.up());
}

TEST(ConnectionManagerPeer, OtherTermsOfThePeerAreToldByANewPath) {
  ManagerWorld world;
  boot_both(world);
  world.configs[1].service.max_frame = 1024;
  world.configs[1].flow_features = 0;
  world.restart(1);
  world.run(Duration::from_s(1));
  EXPECT_TRUE(world.up());
  const PathStatus path = world.events_of<PathUp>(0).back().path;
  EXPECT_EQ(path.peer_max_frame, 1024u);
  EXPECT_EQ(path.peer_settings, 0u);
  EXPECT_EQ(path.features, 0u);
  for (const PathUp& event : world.events_of<PathUp>(0)) {
    const bool anew = event.path.peer_incarnation == world.configs[1].incarnation;
    EXPECT_TRUE(!anew || event.path.peer_max_frame == 1024) << "never under the old terms";
  }
}

TEST(ConnectionManagerPeer, AnotherHostAtTheSameCableIsAnotherPeer) {
  ManagerWorld world;
  boot_both(world);
  const Uuid before = world.port(0).peer->uuid;
  world.silicon(1).router[7] ^= 1;
  world.restart(1);
  world.run(Duration::from_s(1));
  EXPECT_TRUE(world.up());
  EXPECT_NE(world.port(0).peer->uuid, before);
  EXPECT_EQ(world.events_of<PeerLost>(0).size(), 1u);
  EXPECT_EQ(world.last_down(0), "another host is at the other end");
}

// Two hosts with the same unique id, or a cable from a host to itself.
TEST(ConnectionManagerPeer, ACableToOneselfIsNoPeer) {
  ManagerWorld world;
  world.silicon(1).router[7] = world.silicon(0).router[7];
  world.silicon(1).router[8] = world.silicon(0).router[8];
  boot_both(world);
  EXPECT_FALSE(world.port(0).peer);
  EXPECT_EQ(world.port(0).trouble, "discovery: cable leads back to this host");
  EXPECT_TRUE(world[0].poll_timeout().is_never());
}

TEST(ConnectionManagerPeer, ARouterThatTakesNoEntriesIsATroubleNotACircle) {
  for (const uint32_t adapter : {kLane, kNhi}) {
    ManagerWorld world;
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
    boot_both(world);
    EXPECT_EQ(world.port(0).trouble, "a path entry: bad address");
    world.run(Duration::from_s(30));
    EXPECT_FALSE(world.port(0).path || world.port(1).path);
    EXPECT_EQ(world.entries(0), 0u);
    EXPECT_TRUE(world[0].poll_timeout().is_never());
    refuse = false;
    world.plug(0, false);
    world.run(Duration::from_s(1));
    world.plug(0, true);
    EXPECT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce) << "a new link, a new chance";
  }
}

XDomainPacket random_packet(Rng& rng, const Uuid& self, const Uuid& peer) {
  const XDomainAddress address{.route = Route{kLane}, .from_router = true};
  const Uuid source = rng.below(4) == 0 ? self : peer;
  PathOffer offer;
  offer.epoch = {.incarnation = 1 + rng.below(3), .generation = rng.below(3)};
  offer.hop_id = static_cast<uint16_t>(8 + rng.below(40));
  const PathEpoch mine{.incarnation = 100, .generation = rng.below(4)};
  switch (rng.below(9)) {
    case 0:
      return encode_xdomain(UuidRequest{}, address);
    case 1:
      return encode_xdomain(UuidResponse{source, Route{1}}, address);
    case 2:
      return encode_xdomain(PropertiesChangedRequest{source}, address);
    case 3:
      return encode_xdomain(ErrorResponse{rng.below(6)}, address);
    case 4:
      return encode_path_message({source, self, PathRequest{offer}}, address);
    case 5:
      return encode_path_message({source, self, PathResponse{mine, offer}}, address);
    case 6:
      return encode_path_message({source, self, PathRefusal{rng.below(6)}}, address);
    case 7:
      return encode_path_message({source, self, PathWithdraw{offer.epoch}}, address);
    default: {
      XDomainPacket noise = encode_xdomain(UuidRequest{}, address);
      noise.protocol = rng.below(2) == 0 ? kPathProtocol : kDiscoveryProtocol;
      noise.response = rng.below(2) == 0;
      noise.body = {};
      for (uint32_t n = 1 + rng.below(20); n > 0; --n) noise.body.push(rng.below(32));
      return noise;
    }
  }
}

// Whatever a peer sends beside the true one: entries stay where they may be, nothing is sent
// without end, and after a replug all is well.
TEST(ConnectionManagerPeer, APeerThatMeansHarmGetsNowhere) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    Rng rng(seed);
    ManagerWorld world(seed);
    boot_both(world);
    const Uuid self = world[0].status().uuid, peer = world[1].status().uuid;
    for (int i = 0; i < 200; ++i) {
      world.give(0, random_packet(rng, self, peer));
      if (rng.below(3) == 0) world.run(Duration::from_ms(rng.below(200)));
      for (uint32_t hop = 1; hop < rail::emulated::kPathHopsMax; ++hop) {
        ASSERT_TRUE(hop == 1 || !world.router(0).path(kNhi, hop).enabled) << "seed " << seed;
        ASSERT_TRUE(hop == 8 || !world.router(0).path(kLane, hop).enabled) << "seed " << seed;
      }
    }
    const uint64_t steps = world.steps;
    world.run(Duration::from_s(60));
    ASSERT_LT(world.steps - steps, 5000u) << "seed " << seed;
    world.plug(0, false);
    world.run(Duration::from_s(2));
    world.plug(0, true);
    ASSERT_LT(world.run_until_up(Duration::from_s(1)), kAtOnce) << "seed " << seed;
  }
}

}  // namespace
}  // namespace tbt::fabric
