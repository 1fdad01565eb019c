// Messages of flow agreement against words written out by hand from docs/wire.md, section 7.1;
// round trips; bodies that are cut short, too long or out of range; and the session of a path.
#include "wire/tb/flow_agreement.h"

#include <set>

#include "tb_samples.h"

namespace tbt::wire::tb {
namespace {

using Words = std::vector<uint32_t>;

constexpr Uuid kHostA = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kHostB = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");
constexpr XDomainAddress kAddress{.route = Route{3}, .from_router = true, .sequence = 2};
constexpr PathEpoch kFrom{.incarnation = 0x0102030405060708, .generation = 9};
constexpr PathEpoch kTo{.incarnation = 0xa1a2a3a4b1b2b3b4, .generation = 0xffffffff};

FlowMessage message_of(bool answer, FlowStep step, FlowOutcome outcome) {
  return {kHostA, kHostB, answer, kFrom, kTo, step, outcome};
}
std::vector<FlowMessage> legal_messages() {
  std::vector<FlowMessage> all;
  for (const bool answer : {false, true}) {
    all.push_back(message_of(answer, FlowStep::kPreparing, FlowOutcome::kOpen));
    all.push_back(message_of(answer, FlowStep::kReady, FlowOutcome::kOpen));
    for (const auto outcome : {FlowOutcome::kHeld, FlowOutcome::kMissing, FlowOutcome::kNothing}) {
      all.push_back(message_of(answer, FlowStep::kTested, outcome));
    }
  }
  return all;
}
Words words_of(const FlowMessage& m) {
  return {m.answer ? 2u : 1u,
          1,
          0x33221100,
          0x77665544,
          0xbbaa9988,
          0xffeeddcc,
          0x00eeffc0,
          0x04030201,
          0x08070605,
          0x0c0b0a09,
          0x01020304,
          0x05060708,
          9,
          0xa1a2a3a4,
          0xb1b2b3b4,
          0xffffffff,
          uint32_t(m.step),
          uint32_t(m.outcome)};
}
XDomainError decode(const FlowMessage& like, const Words& words, FlowMessage& out) {
  XDomainPacket packet = encode_flow_message(like, kAddress);
  packet.body = {};
  packet.body.push(std::span(words));
  return decode_flow_message(packet, out);
}
XDomainError decode_error(const FlowMessage& like, const Words& words) {
  FlowMessage out;
  return decode(like, words, out);
}

TEST(FlowAgreement, IsTheWordsOfTheDocumentAndBack) {
  for (const FlowMessage& message : legal_messages()) {
    const XDomainPacket packet = encode_flow_message(message, kAddress);
    EXPECT_EQ(Words(packet.body.span().begin(), packet.body.span().end()), words_of(message));
    EXPECT_EQ(packet.response, message.answer);
    EXPECT_EQ(packet.protocol, kFlowProtocol);
    EXPECT_EQ(packet.route, kAddress.route);
    EXPECT_EQ(packet.sequence, kAddress.sequence);
    FlowMessage out;
    ASSERT_EQ(decode(message, words_of(message), out), XDomainError::kNone);
    EXPECT_TRUE(out == message);
  }
}

TEST(FlowAgreement, BodiesCutShortOrTooLongAreRefused) {
  const FlowMessage message = message_of(false, FlowStep::kTested, FlowOutcome::kHeld);
  Words words = words_of(message);
  words.push_back(0);
  EXPECT_EQ(decode_error(message, words), XDomainError::kBadLength);
  words.pop_back();
  while (!words.empty()) {
    words.pop_back();
    EXPECT_EQ(decode_error(message, words), XDomainError::kBadLength) << words.size();
  }
}

TEST(FlowAgreement, OtherProtocolsKindsTypesAndVersionsAreNotGuessed) {
  const FlowMessage message = message_of(false, FlowStep::kReady, FlowOutcome::kOpen);
  FlowMessage out;
  XDomainPacket packet = encode_flow_message(message, kAddress);
  packet.response = true;
  EXPECT_EQ(decode_flow_message(packet, out), XDomainError::kWrongKind);
  packet.protocol = kPathProtocol;
  EXPECT_EQ(decode_flow_message(packet, out), XDomainError::kOtherProtocol);
  for (const uint32_t type : {0u, 3u, 0x80000001u}) {
    Words words = words_of(message);
    words[0] = type;
    EXPECT_EQ(decode_error(message, words), XDomainError::kUnknownType) << type;
  }
  for (const uint32_t version : {0u, 2u}) {
    Words words = words_of(message);
    words[1] = version;
    EXPECT_EQ(decode_error(message, words), XDomainError::kUnknownVersion) << version;
  }
}

TEST(FlowAgreement, ValuesOutOfRangeAreRefused) {
  const FlowMessage message = message_of(false, FlowStep::kTested, FlowOutcome::kHeld);
  const auto with = [&](std::initializer_list<std::pair<size_t, uint32_t>> changes) {
    Words words = words_of(message);
    for (const auto& [at, value] : changes) words[at] = value;
    return decode_error(message, words);
  };
  EXPECT_EQ(with({{16, 3}}), XDomainError::kBadField) << "step";
  EXPECT_EQ(with({{16, 0x102}}), XDomainError::kBadField);
  EXPECT_EQ(with({{17, 4}}), XDomainError::kBadField) << "outcome";
  EXPECT_EQ(with({{17, 0}}), XDomainError::kBadField) << "tested, with no result";
  EXPECT_EQ(with({{16, 1}}), XDomainError::kBadField) << "a result before the test";
  EXPECT_EQ(with({{10, 0}, {11, 0}}), XDomainError::kBadField) << "no incarnation";
  EXPECT_EQ(with({{13, 0}, {14, 0}}), XDomainError::kBadField);
  EXPECT_EQ(with({{10, 0}}), XDomainError::kNone);
}

// The value is what another implementation of CRC32C makes of the 24 bytes.
TEST(FlowAgreement, BothEndsComeToTheSameSession) {
  EXPECT_EQ(path_session(kFrom, kTo), path_session(kTo, kFrom));
  EXPECT_EQ(path_session(kFrom, kTo), 0xbf128ce9u);
  std::set<uint32_t> seen;
  PathEpoch a = kFrom, b = kTo;
  for (int i = 0; i < 1000; ++i) {
    i % 2 == 0 ? ++a.generation : ++b.incarnation;
    EXPECT_NE(path_session(a, b), 0u);
    seen.insert(path_session(a, b));
  }
  EXPECT_GT(seen.size(), 990u) << "an agreement made anew has another one";
}

}  // namespace
}  // namespace tbt::wire::tb
