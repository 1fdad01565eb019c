// Messages of path agreement against words written out by hand from docs/wire.md, section 6.7;
// round trips; bodies that are cut short, too long or out of range; other versions.
#include "wire/tb/path_agreement.h"

#include "tb_samples.h"

namespace tbt::wire::tb {
namespace {

constexpr Uuid kHostA = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kHostB = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");
constexpr XDomainAddress kAddress{.route = Route{3}, .from_router = true, .sequence = 2};
constexpr size_t kHeaderWords = 10;

using Words = std::vector<uint32_t>;

struct Golden {
  PathMessage message;
  bool response;
  uint32_t type;
  Words rest;
};

constexpr PathOffer kOffer{.epoch = {.incarnation = 0x0102030405060708, .generation = 9},
                           .rail = 15,
                           .hop_id = 2047,
                           .ring_entries = 512,
                           .features = kPathFeatureE2e};
constexpr PathEpoch kOther{.incarnation = 0xa1a2a3a4b1b2b3b4, .generation = 0xffffffff};

std::vector<Golden> goldens() {
  const Words epoch = {0x01020304, 0x05060708, 9}, other = {0xa1a2a3a4, 0xb1b2b3b4, 0xffffffff};
  const Words offer = {0x01020304, 0x05060708, 9, 15, 2047, 512, 1};
  Words answer = other;
  answer.insert(answer.end(), offer.begin(), offer.end());
  return {{{kHostA, kHostB, PathRequest{kOffer}}, false, 1, offer},
          {{kHostA, kHostB, PathResponse{kOther, kOffer}}, true, 2, answer},
          {{kHostA, kHostB, PathRefusal{kPathBadHopId}}, true, 3, {4}},
          {{kHostA, kHostB, PathWithdraw{kOffer.epoch}}, false, 4, epoch},
          {{kHostA, kHostB, PathWithdrawn{kOther}}, true, 5, other}};
}

Words words_of(const Golden& golden) {
  Words words = {golden.type, 1,          0x33221100, 0x77665544, 0xbbaa9988,
                 0xffeeddcc,  0x00eeffc0, 0x04030201, 0x08070605, 0x0c0b0a09};
  words.insert(words.end(), golden.rest.begin(), golden.rest.end());
  return words;
}
XDomainPacket packet_of(const Golden& golden, const Words& words) {
  XDomainPacket packet = encode_path_message(golden.message, kAddress);
  packet.body = {};
  packet.body.push(std::span(words));
  return packet;
}
XDomainError decode_error(const XDomainPacket& packet) {
  PathMessage out;
  return decode_path_message(packet, out);
}

TEST(PathAgreement, EncodesToTheWordsOfTheDocument) {
  for (const Golden& golden : goldens()) {
    const XDomainPacket packet = encode_path_message(golden.message, kAddress);
    EXPECT_EQ(Words(packet.body.span().begin(), packet.body.span().end()), words_of(golden))
        << golden.type;
    EXPECT_EQ(packet.response, golden.response);
    EXPECT_EQ(packet.protocol, kPathProtocol);
    EXPECT_EQ(packet.route, kAddress.route);
    EXPECT_EQ(packet.sequence, kAddress.sequence);
    EXPECT_TRUE(packet.from_router);
  }
}

TEST(PathAgreement, DecodesTheWordsOfTheDocument) {
  for (const Golden& golden : goldens()) {
    PathMessage out;
    ASSERT_EQ(decode_path_message(packet_of(golden, words_of(golden)), out), XDomainError::kNone);
    EXPECT_TRUE(out == golden.message) << golden.type;
  }
}

TEST(PathAgreement, BodiesCutShortOrTooLongAreRefused) {
  for (const Golden& golden : goldens()) {
    Words words = words_of(golden);
    words.push_back(0);
    EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kBadLength) << golden.type;
    words.pop_back();
    while (!words.empty()) {
      words.pop_back();
      EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kBadLength)
          << golden.type << " with " << words.size();
    }
  }
}

TEST(PathAgreement, RequestsAndResponsesAreToldApart) {
  for (const Golden& golden : goldens()) {
    XDomainPacket packet = packet_of(golden, words_of(golden));
    packet.response = !packet.response;
    EXPECT_EQ(decode_error(packet), XDomainError::kWrongKind) << golden.type;
  }
}

TEST(PathAgreement, OtherProtocolsTypesAndVersionsAreNotGuessed) {
  const Golden golden = goldens()[0];
  XDomainPacket packet = packet_of(golden, words_of(golden));
  packet.protocol = kThunderboltIpProtocol;
  EXPECT_EQ(decode_error(packet), XDomainError::kOtherProtocol);
  for (const uint32_t type : {0u, 6u, 0x80000001u}) {
    Words words = words_of(golden);
    words[0] = type;
    EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kUnknownType) << type;
  }
  for (const uint32_t version : {0u, 2u, 0x10001u}) {
    Words words = words_of(golden);
    words[1] = version;
    words.resize(kHeaderWords);  // how long it is in another version is not known
    PathMessage out;
    EXPECT_EQ(decode_path_message(packet_of(golden, words), out), XDomainError::kUnknownVersion);
    EXPECT_EQ(out.source, kHostA) << "so that it can be refused";
    EXPECT_EQ(out.destination, kHostB);
  }
}

TEST(PathAgreement, ValuesOutOfRangeAreRefused) {
  struct Case {
    size_t golden, word;
    uint32_t good, bad;
  };
  const Case cases[] = {
      {0, 3, 15, 16},        {0, 3, 0, 0x100}, {0, 4, 8, 7},         {0, 4, 2047, 2048},
      {0, 4, 8, 0x10008},    {0, 5, 2, 1},     {0, 5, 65535, 65536}, {1, 6, 15, 16},
      {1, 7, 2047, 0x10808}, {1, 8, 2, 0},
  };
  for (const Case& c : cases) {
    const Golden golden = goldens()[c.golden];
    Words words = words_of(golden);
    words[kHeaderWords + c.word] = c.good;
    EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kNone) << c.word;
    words[kHeaderWords + c.word] = c.bad;
    EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kBadField)
        << c.word << ": " << c.bad;
  }
  // No incarnation is 0, wherever it stands.
  for (const auto& [index, word] :
       std::vector<std::pair<size_t, size_t>>{{0, 0}, {1, 0}, {1, 3}, {3, 0}, {4, 0}}) {
    const Golden golden = goldens()[index];
    Words words = words_of(golden);
    words[kHeaderWords + word] = 0;
    EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kNone);
    words[kHeaderWords + word + 1] = 0;
    EXPECT_EQ(decode_error(packet_of(golden, words)), XDomainError::kBadField) << index;
  }
}

TEST(PathAgreement, GoesThroughTheControlChannel) {
  for (const Golden& golden : goldens()) {
    ControlFrame frame;
    encode_control_packet(encode_path_message(golden.message, kAddress), frame);
    EXPECT_EQ(frame.pdf, golden.response ? Pdf::kXDomainResponse : Pdf::kXDomainRequest);
    ControlPacket packet;
    ASSERT_EQ(decode_control_packet(static_cast<uint8_t>(frame.pdf), frame.span(), packet),
              PacketError::kNone);
    PathMessage out;
    ASSERT_EQ(decode_path_message(std::get<XDomainPacket>(packet), out), XDomainError::kNone);
    EXPECT_TRUE(out == golden.message);
  }
}

}  // namespace
}  // namespace tbt::wire::tb
