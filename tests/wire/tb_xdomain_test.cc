// XDomain and ThunderboltIP messages against words written out by hand from docs/wire.md, sections
// 6.2 and 6.6; round trips; bodies that are cut short, too long or out of range.
#include "wire/tb/xdomain.h"

#include <functional>

#include "tb_samples.h"
#include "wire/tb/thunderbolt_ip.h"

namespace tbt::wire::tb {
namespace {

constexpr Uuid kHostA = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kHostB = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");
constexpr uint32_t kA[4] = {0x33221100, 0x77665544, 0xbbaa9988, 0xffeeddcc};
constexpr uint32_t kB[4] = {0x00eeffc0, 0x04030201, 0x08070605, 0x0c0b0a09};
constexpr XDomainAddress kAddress{.route = Route{3}, .from_router = true, .sequence = 2};

using Words = std::vector<uint32_t>;

Words body_of(const XDomainPacket& packet) {
  return {packet.body.span().begin(), packet.body.span().end()};
}
XDomainPacket with_body(XDomainPacket packet, const Words& words) {
  packet.body = {};
  packet.body.push(std::span(words));
  return packet;
}
XDomainError decode_error(const XDomainPacket& packet) {
  XDomainMessage out;
  return decode_xdomain(packet, out);
}

struct Golden {
  XDomainMessage message;
  Words body;
};

PropertiesResponse sample_fragment() {
  PropertiesResponse m{.source = kHostA,
                       .destination = kHostB,
                       .offset = 45,
                       .total = 47,
                       .generation = 0x01020304,
                       .data = {}};
  m.data.push(0xaaaaaaaau);
  m.data.push(0xbbbbbbbbu);
  return m;
}

std::vector<Golden> goldens() {
  return {
      {UuidRequest{}, {12}},
      {UuidRequest{.old_type = true}, {1}},
      {UuidResponse{kHostA, Route{0x050403020301}},
       {2, kA[0], kA[1], kA[2], kA[3], 0x0504, 0x03020301}},
      {PropertiesRequest{kHostA, kHostB, 45},
       {3, kA[0], kA[1], kA[2], kA[3], kB[0], kB[1], kB[2], kB[3], 45}},
      {sample_fragment(),
       {4, kA[0], kA[1], kA[2], kA[3], kB[0], kB[1], kB[2], kB[3], 47u << 16 | 45, 0x01020304,
        0xaaaaaaaa, 0xbbbbbbbb}},
      {PropertiesChangedRequest{kHostA}, {5, kA[0], kA[1], kA[2], kA[3]}},
      {PropertiesChangedResponse{}, {6}},
      {ErrorResponse{kNotReady}, {7, 4}},
      {LinkStateStatusRequest{}, {15}},
      {LinkStateStatusResponse{.status = 0,
                               .supported_width = 3,
                               .target_width = 1,
                               .supported_speed = 12,
                               .target_speed = 4},
       {16, 0, 0x040c0103}},
      {LinkStateChangeRequest{.target_width = 3, .target_speed = 4}, {17, 0x0403}},
      {LinkStateChangeResponse{.status = 1}, {18, 1}},
  };
}

TEST(XDomain, EncodesToTheWordsOfTheDocument) {
  for (const Golden& golden : goldens()) {
    const XDomainPacket packet = encode_xdomain(golden.message, kAddress);
    EXPECT_EQ(body_of(packet), golden.body) << xdomain_message_name(golden.message);
    EXPECT_EQ(packet.response, is_response(golden.message));
    EXPECT_EQ(packet.protocol, kDiscoveryProtocol);
    EXPECT_EQ(packet.route, kAddress.route);
    EXPECT_EQ(packet.sequence, kAddress.sequence);
    EXPECT_TRUE(packet.from_router);
  }
}

TEST(XDomain, DecodesTheWordsOfTheDocument) {
  for (const Golden& golden : goldens()) {
    XDomainMessage out;
    const XDomainPacket packet = encode_xdomain(golden.message, kAddress);
    ASSERT_EQ(decode_xdomain(with_body(packet, golden.body), out), XDomainError::kNone);
    EXPECT_TRUE(out == golden.message) << xdomain_message_name(golden.message);
  }
}

TEST(XDomain, RequestsAndResponsesAreToldApart) {
  int responses = 0;
  for (const Golden& golden : goldens()) {
    XDomainPacket packet = encode_xdomain(golden.message, kAddress);
    responses += packet.response ? 1 : 0;
    packet.response = !packet.response;
    EXPECT_EQ(decode_error(packet), XDomainError::kWrongKind)
        << xdomain_message_name(golden.message);
  }
  EXPECT_EQ(responses, 6);
}

// Every word less or more is an error, except that a properties response may have fewer data, and
// that Linux adds a word to the answer to properties changed.
TEST(XDomain, BodiesCutShortOrTooLongAreRefused) {
  for (const Golden& golden : goldens()) {
    const XDomainPacket packet = encode_xdomain(golden.message, kAddress);
    for (size_t n = 0; n < golden.body.size(); ++n) {
      const Words words(golden.body.begin(), golden.body.begin() + static_cast<long>(n));
      XDomainError wanted = XDomainError::kBadLength;
      if (golden.body[0] == 4 && n == 11) wanted = XDomainError::kBadField;  // no data at all
      if (golden.body[0] == 4 && n == 12) wanted = XDomainError::kNone;
      EXPECT_EQ(decode_error(with_body(packet, words)), wanted)
          << xdomain_message_name(golden.message) << " with " << n;
    }
    Words words = golden.body;
    words.push_back(0);
    if (golden.body[0] == 6) {
      EXPECT_EQ(decode_error(with_body(packet, words)), XDomainError::kNone);
      words.push_back(0);
    }
    EXPECT_EQ(decode_error(with_body(packet, words)),
              golden.body[0] == 4 ? XDomainError::kBadField : XDomainError::kBadLength)
        << xdomain_message_name(golden.message);
  }
}

TEST(XDomain, OtherTypesAreUnknown) {
  for (const uint32_t type : {0u, 8u, 9u, 10u, 11u, 13u, 14u, 19u, 0x10cu}) {
    XDomainPacket packet = encode_xdomain(UuidRequest{}, kAddress);
    EXPECT_EQ(decode_error(with_body(packet, {type})), XDomainError::kUnknownType) << type;
  }
}

TEST(XDomain, OtherProtocolsAreNotOurs) {
  XDomainPacket packet = encode_xdomain(UuidRequest{}, kAddress);
  packet.protocol = kThunderboltIpProtocol;
  EXPECT_EQ(decode_error(packet), XDomainError::kOtherProtocol);
}

TEST(XDomain, FragmentsThatDoNotFitTheirBlockAreRefused) {
  const XDomainPacket good = encode_xdomain(sample_fragment(), kAddress);
  const auto with_extent = [&](uint32_t offset, uint32_t total) {
    Words words = body_of(good);
    words[9] = total << 16 | offset;
    return decode_error(with_body(good, words));
  };
  EXPECT_EQ(with_extent(0, 2), XDomainError::kNone);
  EXPECT_EQ(with_extent(498, 500), XDomainError::kNone);
  EXPECT_EQ(with_extent(0, 1), XDomainError::kBadField);
  EXPECT_EQ(with_extent(0, 0), XDomainError::kBadField);
  EXPECT_EQ(with_extent(46, 47), XDomainError::kBadField);
  EXPECT_EQ(with_extent(0, 501), XDomainError::kBadField);
  EXPECT_EQ(with_extent(0xffff, 0xffff), XDomainError::kBadField);
}

TEST(XDomain, OffsetsThatNoBlockHasAreRefused) {
  const XDomainPacket good = encode_xdomain(PropertiesRequest{kHostA, kHostB, 499}, kAddress);
  EXPECT_EQ(decode_error(good), XDomainError::kNone);
  Words words = body_of(good);
  words[9] = 500;
  EXPECT_EQ(decode_error(with_body(good, words)), XDomainError::kBadField);
}

TEST(XDomain, IllegalRoutesInAnAnswerAreRefused) {
  const XDomainPacket good = encode_xdomain(UuidResponse{kHostA, Route{1}}, kAddress);
  Words words = body_of(good);
  words[5] = 1u << 31;
  EXPECT_EQ(decode_error(with_body(good, words)), XDomainError::kBadField);
  words[5] = 0;
  words[6] = 0x40;
  EXPECT_EQ(decode_error(with_body(good, words)), XDomainError::kBadField);
}

// What other systems put into reserved halves has not been seen, so it is not looked at.
TEST(XDomain, ReservedHalvesOfWordsAreIgnored) {
  const XDomainPacket properties = encode_xdomain(PropertiesRequest{kHostA, kHostB, 45}, kAddress);
  Words words = body_of(properties);
  words[9] |= 0xabcd0000;
  XDomainMessage out;
  ASSERT_EQ(decode_xdomain(with_body(properties, words), out), XDomainError::kNone);
  EXPECT_TRUE(out == XDomainMessage(PropertiesRequest{kHostA, kHostB, 45}));
  const XDomainPacket change = encode_xdomain(LinkStateChangeRequest{3, 4}, kAddress);
  ASSERT_EQ(decode_xdomain(with_body(change, {17, 0xffff0403}), out), XDomainError::kNone);
  EXPECT_TRUE(out == XDomainMessage(LinkStateChangeRequest{3, 4}));
}

TEST(XDomain, AMessageSurvivesTheWholeWay) {
  for (const Golden& golden : goldens()) {
    Pdf pdf{};
    const auto bytes = testing::encoded(encode_xdomain(golden.message, kAddress), &pdf);
    EXPECT_EQ(pdf, is_response(golden.message) ? Pdf::kXDomainResponse : Pdf::kXDomainRequest);
    ControlPacket packet;
    ASSERT_EQ(testing::decode(pdf, bytes, packet), PacketError::kNone);
    XDomainMessage out;
    ASSERT_EQ(decode_xdomain(std::get<XDomainPacket>(packet), out), XDomainError::kNone);
    EXPECT_TRUE(out == golden.message) << xdomain_message_name(golden.message);
  }
}

// Arbitrary bodies: what is let in says the same again when it is encoded and decoded.
TEST(XDomain, AnyBodyIsAnsweredAndMeansTheSameWhenRepeated) {
  EXPECT_TRUE(rc::check("decode . encode . decode = decode", [] {
    const auto all = goldens();
    const Golden golden = all[*rc::gen::inRange<size_t>(0, all.size())];
    Words words = golden.body;
    const auto changes = *rc::gen::inRange(0, 3);
    for (int i = 0; i < changes; ++i) {
      words[*rc::gen::inRange<size_t>(0, words.size())] = *rc::gen::arbitrary<uint32_t>();
    }
    const XDomainPacket packet = encode_xdomain(golden.message, kAddress);
    XDomainMessage out, again;
    if (decode_xdomain(with_body(packet, words), out) != XDomainError::kNone) return;
    RC_ASSERT(decode_xdomain(encode_xdomain(out, kAddress), again) == XDomainError::kNone);
    RC_ASSERT(out == again);
  }));
}

// --- ThunderboltIP ---

struct IpGolden {
  IpMessage message;
  Words body;
};

Words ip_body(std::initializer_list<uint32_t> rest) {
  Words words = {kA[0], kA[1], kA[2], kA[3], kB[0], kB[1], kB[2], kB[3]};
  words.insert(words.end(), rest);
  return words;
}

std::vector<IpGolden> ip_goldens() {
  const std::array<uint8_t, 6> mac = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};
  return {
      {{kHostA, kHostB, 7, IpLogin{.version = 1, .transmit_path = 8}},
       ip_body({0, 7, 1, 8, 0, 0, 0, 0})},
      {{kHostA, kHostB, 7, IpLoginResponse{.status = 0, .has_mac = true, .mac = mac}},
       ip_body({1, 7, 0, 0x33221102, 0x5544, 6, 0, 0, 0, 0})},
      {{kHostA, kHostB, 8, IpLogout{}}, ip_body({2, 8})},
      {{kHostA, kHostB, 9, IpStatus{.status = 0}}, ip_body({3, 9, 0})},
  };
}

XDomainError ip_error(const XDomainPacket& packet) {
  IpMessage out;
  return decode_thunderbolt_ip(packet, out);
}

TEST(ThunderboltIp, EncodesToTheWordsOfTheDocument) {
  for (const IpGolden& golden : ip_goldens()) {
    const XDomainPacket packet = encode_thunderbolt_ip(golden.message, kAddress);
    EXPECT_EQ(body_of(packet), golden.body) << golden.message.content.index();
    EXPECT_EQ(packet.protocol, kThunderboltIpProtocol);
    EXPECT_TRUE(packet.response);
  }
}

TEST(ThunderboltIp, DecodesThemInEitherPdf) {
  for (const IpGolden& golden : ip_goldens()) {
    for (const bool response : {false, true}) {
      XDomainPacket packet = encode_thunderbolt_ip(golden.message, kAddress);
      packet.response = response;
      IpMessage out;
      ASSERT_EQ(decode_thunderbolt_ip(packet, out), XDomainError::kNone);
      EXPECT_TRUE(out == golden.message) << golden.message.content.index();
    }
  }
}

TEST(ThunderboltIp, BodiesCutShortOrTooLongAreRefused) {
  for (const IpGolden& golden : ip_goldens()) {
    const XDomainPacket packet = encode_thunderbolt_ip(golden.message, kAddress);
    Words words = golden.body;
    words.push_back(0);
    EXPECT_EQ(ip_error(with_body(packet, words)), XDomainError::kBadLength);
    for (size_t n = golden.body.size(); n-- > 0;) {
      words.resize(n);
      EXPECT_EQ(ip_error(with_body(packet, words)), XDomainError::kBadLength)
          << golden.message.content.index() << " with " << n;
    }
  }
}

TEST(ThunderboltIp, FieldsOutOfRangeAreRefused) {
  const auto changed = [](size_t golden, size_t word, uint32_t value) {
    const IpGolden g = ip_goldens()[golden];
    Words words = g.body;
    words[word] = value;
    return ip_error(with_body(encode_thunderbolt_ip(g.message, kAddress), words));
  };
  EXPECT_EQ(changed(0, 11, 0), XDomainError::kBadField);  // HopID
  EXPECT_EQ(changed(0, 11, 0x7ff), XDomainError::kNone);
  EXPECT_EQ(changed(0, 11, 0x800), XDomainError::kBadField);
  EXPECT_EQ(changed(0, 11, 0x10008), XDomainError::kBadField);
  for (const uint32_t length : {1u, 5u, 7u, 8u}) {
    EXPECT_EQ(changed(1, 13, length), XDomainError::kBadField) << length;
  }
  EXPECT_EQ(changed(1, 13, 0), XDomainError::kNone);
  EXPECT_EQ(changed(2, 8, 4), XDomainError::kUnknownType);
  EXPECT_EQ(changed(0, 14, 0xffffffff), XDomainError::kNone);  // reserved: ignored
}

TEST(ThunderboltIp, DiscoveryMessagesAreNotOurs) {
  EXPECT_EQ(ip_error(encode_xdomain(UuidRequest{}, kAddress)), XDomainError::kOtherProtocol);
}

}  // namespace
}  // namespace tbt::wire::tb
