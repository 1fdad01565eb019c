// Two hosts discover each other over a cable that loses and doubles packets, is pulled at every
// step, or has a host at its end that restarts, comes late, changes or means harm.
#include "fabric/xdomain_peer.h"

#include "xdomain_pair.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

// How many packets a discovery in both directions takes on a clean cable.
uint64_t packets_of_a_discovery() {
  XDomainPair pair;
  pair.plug();
  pair.run(Duration::from_s(5));
  return pair.sent;
}

TEST(XDomainPeer, BothEndsKnowEachOtherAtOnceOnACleanCable) {
  XDomainPair pair;
  pair.plug();
  pair.run(Duration::from_ms(5));
  EXPECT_TRUE(pair.knows(0));
  EXPECT_TRUE(pair.knows(1));
  TbtService service;
  EXPECT_EQ(read_tbt_service(*pair[0].discovery().properties(), service), ServiceError::kNone);
  pair.run(Duration::from_s(60));
  EXPECT_EQ(pair[0].discovery().stats().timeouts, 0u);
  EXPECT_TRUE(pair[0].poll_timeout().is_never()) << "a known peer costs nothing";
  for (const auto& events : pair.events) {
    EXPECT_EQ(events, (std::vector{DiscoveryEvent::kFound, DiscoveryEvent::kProperties}));
  }
}

// With 30 % loss a question and its answer arrive with probability 0.49, and the three of a block
// within its ten repetitions with 0.993. Each of the 800 ends reads twice or more, again after an
// announcement that came twice, so two or three dozen give up; then a replug helps.
TEST(XDomainPeer, LossAndDoublingDelayButDoNotDeceive) {
  uint32_t given_up = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    XDomainPair pair(seed);
    pair.lost_ppm = 300'000;
    pair.doubled_ppm = 100'000;
    pair.plug();
    pair.run(Duration::from_ms(100 * static_cast<int64_t>(seed % 40)));
    pair.rename(0, "renamed");
    pair.run(Duration::from_s(120));
    for (uint32_t end = 0; end < 2; ++end) {
      if (pair.knows(end)) continue;
      const XDomainRequester& discovery = pair[end].discovery();
      // Either we gave up, or the peer gave up telling us.
      EXPECT_TRUE(discovery.state() == DiscoveryState::kFailed ||
                  pair[1 - end].discovery().stats().announcements_lost > 0 ||
                  pair[1 - end].discovery().state() == DiscoveryState::kFailed)
          << "seed " << seed << " end " << end << " " << discovery_state_name(discovery.state());
      ++given_up;
    }
    pair.lost_ppm = pair.doubled_ppm = 0;
    pair.unplug();
    pair.plug();
    pair.run(Duration::from_s(1));
    EXPECT_TRUE(pair.knows(0) && pair.knows(1)) << "seed " << seed;
  }
  EXPECT_LE(given_up, 36u);
}

TEST(XDomainPeer, APullAtEveryStepLeavesNothingBehindAndAReplugRecovers) {
  const uint64_t packets = packets_of_a_discovery();
  ASSERT_GT(packets, 16u);
  for (uint64_t step = 0; step <= packets; ++step) {
    XDomainPair pair;
    pair.plug();
    pair.run_packets(step);
    pair.unplug();
    const uint64_t sent = pair.sent;
    pair.run(Duration::from_s(30));
    EXPECT_EQ(pair.sent, sent) << "into a cable that is out, after " << step;
    for (uint32_t end = 0; end < 2; ++end) {
      EXPECT_EQ(pair[end].discovery().state(), DiscoveryState::kDown);
      EXPECT_TRUE(pair[end].poll_timeout().is_never());
    }
    pair.plug();
    pair.run(Duration::from_s(1));
    EXPECT_TRUE(pair.knows(0) && pair.knows(1)) << "after " << step;
  }
}

TEST(XDomainPeer, AnyOneLostPacketCostsLittleMoreThanASecond) {
  const uint64_t packets = packets_of_a_discovery();
  for (uint64_t lost = 1; lost <= packets; ++lost) {
    XDomainPair pair;
    pair.plug();
    pair.run_packets(lost - 1);
    pair.lost_ppm = 1'000'000;
    pair.run_packets(lost);
    pair.lost_ppm = 0;
    pair.run(Duration::from_ms(1300));
    EXPECT_TRUE(pair.knows(0) && pair.knows(1)) << "packet " << lost;
  }
}

// The other end's daemon is killed and comes back with another name, and the link never went down.
TEST(XDomainPeer, ARestartOfThePeerAtEveryStepIsFollowed) {
  const uint64_t packets = packets_of_a_discovery();
  for (uint64_t step = 0; step <= packets; ++step) {
    XDomainPair pair;
    pair.plug();
    pair.run_packets(step);
    pair.boot(1, "reborn");
    pair[1].link_up(pair.now);
    pair.run(Duration::from_s(15));
    EXPECT_TRUE(pair.knows(0)) << "after " << step << ": "
                               << discovery_state_name(pair[0].discovery().state());
    EXPECT_TRUE(pair.knows(1)) << "after " << step;
  }
}

TEST(XDomainPeer, APeerThatComesAMinuteLateIsFoundByItsOwnQuestion) {
  XDomainPair pair;
  pair[0].link_up(pair.now);
  pair.run(Duration::from_s(60));
  EXPECT_EQ(pair[0].discovery().state(), DiscoveryState::kFailed);
  EXPECT_EQ(pair.events[0], std::vector{DiscoveryEvent::kFailed});
  pair[1].link_up(pair.now);
  pair.run(Duration::from_ms(200));
  EXPECT_TRUE(pair.knows(0));
  EXPECT_TRUE(pair.knows(1));
}

TEST(XDomainPeer, ChangedPropertiesReachThePeer) {
  XDomainPair pair;
  pair.plug();
  pair.run(Duration::from_s(1));
  pair.rename(1, "another");
  EXPECT_FALSE(pair.knows(0));
  pair.run(Duration::from_ms(200));
  EXPECT_TRUE(pair.knows(0));
  EXPECT_EQ(pair.events[0].size(), 3u);
  const uint64_t sent = pair.sent;
  pair.rename(1, "another");
  pair.run(Duration::from_s(1));
  EXPECT_EQ(pair.sent, sent) << "the same block is no change";
}

// What an XDomainPeer answers to one packet, in order.
std::vector<XDomainPacket> answers(XDomainPeer& peer, const XDomainPacket& packet) {
  peer.handle_packet(Instant{}, packet);
  std::vector<XDomainPacket> out;
  XDomainPacket next;
  while (peer.poll_transmit(Instant{}, next)) {
    if (next.response) out.push_back(next);
  }
  return out;
}

constexpr Uuid kSelf = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kOther = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");
constexpr XDomainAddress kFrom{.route = Route{1}, .from_router = true, .sequence = 3};

XDomainMessage answer(XDomainPeer& peer, const XDomainMessage& request) {
  const auto packets = answers(peer, encode_xdomain(request, kFrom));
  XDomainMessage message;
  if (packets.size() != 1 || decode_xdomain(packets[0], message) != XDomainError::kNone) {
    ADD_FAILURE() << "no single answer";
  }
  EXPECT_EQ(packets[0].sequence, kFrom.sequence);
  EXPECT_EQ(packets[0].route, kFrom.route);
  return message;
}

TEST(XDomainPeer, AnswersEachRequest) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  EXPECT_TRUE(answer(peer, UuidRequest{}) == XDomainMessage(UuidResponse{kSelf, Route{1}}));
  EXPECT_TRUE(answer(peer, UuidRequest{.old_type = true}) ==
              XDomainMessage(UuidResponse{kSelf, Route{1}}));
  const PropertiesRequest ask{kOther, kSelf, 0};
  EXPECT_TRUE(answer(peer, ask) == XDomainMessage(ErrorResponse{kNotReady}));
  const auto block = XDomainPair::block_of("me");
  peer.set_properties(Instant{}, block);
  const auto fragment = std::get<PropertiesResponse>(answer(peer, ask));
  EXPECT_EQ(fragment.total, block.size());
  EXPECT_EQ(fragment.destination, kOther);
  EXPECT_TRUE(answer(peer, PropertiesRequest{kOther, kOther, 0}) ==
              XDomainMessage(ErrorResponse{kUnknownDomain}));
  EXPECT_TRUE(answer(peer, PropertiesRequest{kOther, kSelf, 499}) ==
              XDomainMessage(ErrorResponse{kNotReady}));
  EXPECT_TRUE(answer(peer, PropertiesChangedRequest{kOther}) ==
              XDomainMessage(PropertiesChangedResponse{}));
  EXPECT_TRUE(answer(peer, LinkStateStatusRequest{}) ==
              XDomainMessage(ErrorResponse{kNotSupported}));
  EXPECT_TRUE(answer(peer, LinkStateChangeRequest{3, 4}) ==
              XDomainMessage(ErrorResponse{kNotSupported}));
}

TEST(XDomainPeer, AnswersForItsLanesOnceItKnowsThem) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  const LinkStateStatusResponse lanes{
      .supported_width = 3, .target_width = 1, .supported_speed = 12};
  peer.set_link_state(lanes, false);
  EXPECT_TRUE(answer(peer, LinkStateStatusRequest{}) == XDomainMessage(lanes));
  EXPECT_TRUE(answer(peer, LinkStateChangeRequest{3, 4}) ==
              XDomainMessage(ErrorResponse{kNotSupported}));
  EXPECT_FALSE(peer.take_link_change());
  peer.set_link_state(lanes, true);
  EXPECT_TRUE(answer(peer, LinkStateChangeRequest{3, 4}) ==
              XDomainMessage(LinkStateChangeResponse{}));
  EXPECT_EQ(peer.take_link_change(), (LinkStateChangeRequest{3, 4}));
  EXPECT_FALSE(peer.take_link_change()) << "once";
}

TEST(XDomainPeer, TheGenerationGrowsWithEachChange) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  uint32_t last = 0;
  for (const char* name : {"a", "b", "c"}) {
    peer.set_properties(Instant{}, XDomainPair::block_of(name));
    const auto fragment =
        std::get<PropertiesResponse>(answer(peer, PropertiesRequest{kOther, kSelf, 0}));
    EXPECT_GT(fragment.generation, last);
    last = fragment.generation;
  }
}

TEST(XDomainPeer, UnknownRequestsAreAnsweredAndUnknownResponsesAreNot) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  XDomainPacket packet = encode_xdomain(UuidRequest{}, kFrom);
  packet.body = {};
  packet.body.push(99u);
  const auto packets = answers(peer, packet);
  ASSERT_EQ(packets.size(), 1u);
  XDomainMessage message;
  ASSERT_EQ(decode_xdomain(packets[0], message), XDomainError::kNone);
  EXPECT_TRUE(message == XDomainMessage(ErrorResponse{kNotSupported}));
  packet.response = true;
  EXPECT_TRUE(answers(peer, packet).empty());
  EXPECT_EQ(peer.stats().malformed, 1u);
}

TEST(XDomainPeer, OtherRoutesAndProtocolsAreNotOurs) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  XDomainPacket packet = encode_xdomain(UuidRequest{}, kFrom);
  packet.route = Route{2};
  EXPECT_TRUE(answers(peer, packet).empty());
  packet.route = Route{1};
  packet.protocol = kThunderboltIpProtocol;
  EXPECT_TRUE(answers(peer, packet).empty());
  EXPECT_EQ(peer.stats().foreign, 2u);
}

TEST(XDomainPeer, AnswersDoNotOutliveTheCable) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  peer.handle_packet(Instant{}, encode_xdomain(UuidRequest{}, kFrom));
  peer.link_down();
  XDomainPacket out;
  EXPECT_FALSE(peer.poll_transmit(Instant{}, out));
}

TEST(XDomainPeer, AFloodOfRequestsIsAnsweredInPart) {
  XDomainPeer peer(kSelf, Route{1});
  peer.link_up(Instant{});
  for (int i = 0; i < 100; ++i) {
    peer.handle_packet(Instant{}, encode_xdomain(UuidRequest{}, kFrom));
  }
  EXPECT_EQ(peer.stats().requests + peer.stats().overflows, 100u);
  EXPECT_EQ(peer.stats().requests, 8u);
}

// A peer that sends anything at any time: we answer at most one packet to each of its own plus one
// question at a time, and recover as soon as the cable is replugged.
TEST(XDomainPeer, APeerThatMeansHarmGetsNowhere) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    XDomainPair pair(seed);
    XDomainPeer& victim = pair[0];
    victim.link_up(pair.now);
    uint64_t given = 0, taken = 0;
    for (int i = 0; i < 300; ++i) {
      const XDomainMessage messages[] = {
          UuidRequest{},
          UuidResponse{rng.below(4) == 0 ? XDomainPair::uuid_of(0) : kOther, Route{1}},
          PropertiesRequest{kOther, XDomainPair::uuid_of(0), static_cast<uint16_t>(rng.below(500))},
          PropertiesChangedRequest{rng.below(4) == 0 ? kSelf : kOther},
          PropertiesChangedResponse{},
          ErrorResponse{rng.below(6)},
          LinkStateStatusRequest{},
      };
      XDomainPacket packet = encode_xdomain(messages[rng.below(std::size(messages))],
                                            {XDomainPair::route_of(0), true, 0});
      if (rng.below(3) == 0) {
        PropertiesResponse lie{.source = kOther,
                               .destination = XDomainPair::uuid_of(0),
                               .offset = static_cast<uint16_t>(45 * rng.below(3)),
                               .total = static_cast<uint16_t>(136 + rng.below(2)),
                               .generation = rng.below(3),
                               .data = {}};
        for (uint32_t n = 0; n < 45; ++n) lie.data.push(n == 0 ? 0x55584401 : rng.below(64));
        packet = encode_xdomain(lie, {XDomainPair::route_of(0), true, 0});
      }
      ++given;
      victim.handle_packet(pair.now, packet);
      XDomainPacket out;
      while (victim.poll_transmit(pair.now, out)) ++taken;
      while (victim.poll_event()) {
      }
      pair.now = pair.now + Duration::from_ms(rng.below(300));
      victim.handle_timeout(pair.now);
      while (victim.poll_transmit(pair.now, out)) ++taken;
    }
    ASSERT_LE(taken, 3 * given) << "seed " << seed;
    pair.unplug();
    pair.plug();
    pair.run(Duration::from_s(1));
    ASSERT_TRUE(pair.knows(0)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace tbt::fabric
