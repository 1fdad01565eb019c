// Control packets against bytes written out by hand from the layout in docs/wire.md, section 6,
// with checksums computed by another implementation; routes; UUIDs.
#include "wire/tb/control_packet.h"

#include "tb_samples.h"

namespace tbt::wire::tb {
namespace {

using testing::decode;
using testing::encoded;
using testing::hex;

constexpr Route kHost{};

struct Golden {
  const char* name;
  Pdf pdf;
  ControlPacket packet;
  const char* bytes;
};

ConfigData data(std::initializer_list<uint32_t> words) {
  ConfigData out;
  for (const uint32_t word : words) out.push(word);
  return out;
}

std::vector<Golden> goldens() {
  XDomainPacket uuid_request{.route = Route{3},
                             .from_router = false,
                             .response = false,
                             .sequence = 2,
                             .protocol = kDiscoveryProtocol,
                             .body = {}};
  uuid_request.body.push(12);
  return {
      {"read the first dword of the host's router", Pdf::kRead,
       ReadRequest{kHost, {.offset = 0, .length = 1, .adapter = 0, .space = ConfigSpace::kRouter}},
       "00000000 00000000 04002000 2fc967ac"},
      {"five dwords of it, from upstream adapter 7", Pdf::kRead,
       ReadReply{
           kHost,
           {.offset = 0, .length = 5, .adapter = 7, .space = ConfigSpace::kRouter, .sequence = 1},
           data({0x15ef8086, 0x00400a01, 0, 0x80000000, 0x201e})},
       "80000000 00000000 0c38a000 15ef8086 00400a01 00000000 80000000 0000201e 51b70836"},
      {"path entry 1 of the NHI adapter 3: to HopID 8 of adapter 1", Pdf::kWrite,
       WriteRequest{kHost,
                    {.offset = 2, .length = 2, .adapter = 3, .space = ConfigSpace::kPath},
                    data({0x80000808, 0x00000501})},
       "00000000 00000000 00184002 80000808 00000501 a3d61e2a"},
      {"its reply", Pdf::kWrite,
       WriteReply{kHost, {.offset = 2, .length = 2, .adapter = 7, .space = ConfigSpace::kPath}},
       "80000000 00000000 00384002 55b57b6d"},
      {"unplugged from adapter 3 of the router behind adapter 1", Pdf::kHotPlug,
       HotPlug{Route{1}, 3, true}, "80000000 00000001 80000003 9bcf20a2"},
      {"its acknowledgement", Pdf::kError, HotPlugAck{Route{1}, 3, true},
       "00000000 00000001 c0000307 0a5a805b"},
      {"an asymmetric link two hops away", Pdf::kError,
       Notification{Route{0x0301}, kAsymmetricLink, 5}, "80000000 00000301 00000527 47dcc22d"},
      {"its acknowledgement", Pdf::kNotificationAck, NotificationAck{Route{0x0301}},
       "00000000 00000301 4aa49910"},
      {"who is at the other end of adapter 3?", Pdf::kXDomainRequest, uuid_request,
       "00000000 00000003 10000005 0ed738b6 bb40ff42 e290c297 07ffb2c0 0000000c 289cea83"},
  };
}

TEST(ControlPacket, EncodesToTheBytesOfTheDocument) {
  for (const Golden& golden : goldens()) {
    Pdf pdf{};
    EXPECT_EQ(encoded(golden.packet, &pdf), hex(golden.bytes)) << golden.name;
    EXPECT_EQ(pdf, golden.pdf) << golden.name;
  }
}

TEST(ControlPacket, DecodesTheBytesOfTheDocument) {
  for (const Golden& golden : goldens()) {
    ControlPacket out;
    ASSERT_EQ(decode(golden.pdf, hex(golden.bytes), out), PacketError::kNone) << golden.name;
    EXPECT_TRUE(out == golden.packet) << golden.name;
  }
}

TEST(ControlPacket, DecodingWhatWasEncodedGivesTheSamePacket) {
  EXPECT_TRUE(rc::check("decode . encode = identity", [] {
    const ControlPacket packet = testing::arbitrary_packet();
    Pdf pdf{};
    const auto bytes = encoded(packet, &pdf);
    RC_ASSERT(bytes.size() <= kControlPacketMax);
    ControlPacket out;
    RC_ASSERT(decode(pdf, bytes, out) == PacketError::kNone);
    RC_ASSERT(out == packet);
  }));
}

// A good packet with some words changed and its checksum made right: what is let in encodes to the
// very same bytes, so no bit is dropped silently.
TEST(ControlPacket, WhatIsLetInIsCanonical) {
  int let_in = 0;
  EXPECT_TRUE(rc::check("encode . decode = identity", [&let_in] {
    auto words = testing::words_of(testing::arbitrary_packet());
    const auto changes = *rc::gen::inRange(0, 3);
    for (int i = 0; i < changes; ++i) {
      words[*rc::gen::inRange<size_t>(0, words.size())] ^= 1u << *rc::gen::inRange(0, 32);
    }
    const auto bytes = testing::sealed(words);
    const auto pdf = static_cast<Pdf>(*rc::gen::inRange(0, 16));
    ControlPacket out;
    if (decode(pdf, bytes, out) != PacketError::kNone) return;
    ++let_in;
    Pdf again{};
    RC_ASSERT(encoded(out, &again) == bytes);
    RC_ASSERT(again == pdf);
  }));
  EXPECT_GT(let_in, 0);
}

TEST(ControlPacket, LargestConfigAndXDomainPacketsFillADescriptor) {
  ConfigData words;
  while (words.size() < kConfigDataMax) words.push(0xffffffff);
  EXPECT_EQ(encoded(WriteRequest{kHost, {.length = kConfigDataMax}, words}).size(),
            kControlPacketMax);
  XDomainPacket message;
  while (message.body.size() < kXDomainBodyMax) message.body.push(1);
  EXPECT_EQ(encoded(message).size(), kControlPacketMax);
}

TEST(Route, LegalOnesHaveSixBitHopsAndNoHoles) {
  EXPECT_TRUE(route_is_legal(Route{0}));
  EXPECT_TRUE(route_is_legal(Route{0x3f3f3f3f3f3f3f}));
  EXPECT_FALSE(route_is_legal(Route{0x40}));
  EXPECT_FALSE(route_is_legal(Route{0x0300}));
  EXPECT_FALSE(route_is_legal(Route{0x0100000000000001}));
  EXPECT_FALSE(route_is_legal(Route{0x7f3f3f3f3f3f3f}));
}

TEST(Route, IsBuiltHopByHop) {
  Route route;
  for (uint8_t hop = 0; hop < kRouteHopsMax; ++hop) {
    EXPECT_EQ(route_depth(route), hop);
    route = route_append(route, static_cast<uint8_t>(hop + 1));
    EXPECT_EQ(route_hop(route, hop), hop + 1);
    EXPECT_TRUE(route_is_legal(route));
  }
  EXPECT_EQ(route.value, 0x07060504030201u);
  EXPECT_EQ(route_high(route), 0x070605u);
  EXPECT_EQ(route_low(route), 0x04030201u);
  EXPECT_EQ(route_from_dwords(route_high(route), route_low(route)), route);
}

// The network directory's UUID as macOS and Linux put it on the cable.
TEST(Uuid, EachDwordIsReversedOnTheChannel) {
  constexpr Uuid network = uuid("c66189ca-1cce-4195-bdb8-49592e5f5a4f");
  EXPECT_EQ(network.bytes[0], 0xc6);
  EXPECT_EQ(uuid_dword(network, 0), 0xca8961c6u);
  EXPECT_EQ(uuid_dword(network, 1), 0x9541ce1cu);
  EXPECT_EQ(uuid_dword(network, 2), 0x5949b8bdu);
  EXPECT_EQ(uuid_dword(network, 3), 0x4f5a5f2eu);
  EXPECT_EQ(uuid_from_dwords({0xca8961c6, 0x9541ce1c, 0x5949b8bd, 0x4f5a5f2e}), network);
}

TEST(Uuid, IsOrderedAsItIsPrinted) {
  constexpr Uuid low = uuid("00ffffff-0000-0000-0000-000000000000");
  constexpr Uuid high = uuid("01000000-0000-0000-0000-000000000000");
  EXPECT_LT(low, high);
}

}  // namespace
}  // namespace tbt::wire::tb
