// Control messages that are cut short, too long, or out of range in one field are refused.
#include <gtest/gtest.h>

#include <string>

#include "samples.h"
#include "wire/control.h"

namespace tbt::wire {
namespace {

using testing::ExactBytes;
using testing::sample_hello;

std::vector<ControlMessage> samples() {
  return {sample_hello(), Refuse{.version = 1, .reason = 1},
          Heartbeat{.incarnation = 1, .sequence = 2}, Bye{.incarnation = 3},
          ProcessGone{.slot = 1, .first = 2, .count = 3, .lid = 4}};
}

ControlError decode(std::span<const std::byte> bytes) {
  const ExactBytes exact(bytes);
  ControlMessage out;
  return decode_control(exact.span(), out);
}

ControlError with_byte(const ControlMessage& message, size_t at, int value) {
  auto bytes = encode_control(message);
  bytes.at(at) = static_cast<std::byte>(value);
  return decode(bytes);
}

// Offsets in a Hello with the five-letter name of sample_hello(), docs/wire.md.
constexpr size_t kIncarnationAt = 12, kCableAt = 44, kNameLengthAt = 45, kPortCountAt = 46,
                 kReservedAt = 47;
constexpr size_t kNameAt = 48, kFirstPortAt = 53, kSecondPortAt = kFirstPortAt + 4 + 16;

TEST(ControlMalformed, EveryTruncationIsTruncated) {
  for (const ControlMessage& message : samples()) {
    const auto bytes = encode_control(message);
    for (size_t n = 0; n < bytes.size(); ++n) {
      EXPECT_EQ(decode(std::span(bytes).first(n)), ControlError::kTruncated)
          << "type " << int(bytes[0]) << " at " << n;
    }
    EXPECT_EQ(decode(bytes), ControlError::kNone);
  }
}

TEST(ControlMalformed, TrailingBytesAreRefused) {
  for (const ControlMessage& message : samples()) {
    auto bytes = encode_control(message);
    bytes.push_back(std::byte{0});
    EXPECT_EQ(decode(bytes), ControlError::kBadField) << int(bytes[0]);
    bytes.resize(kControlMessageMax + 1);
    EXPECT_EQ(decode(bytes), ControlError::kBadField) << int(bytes[0]);
  }
}

TEST(ControlMalformed, EveryOtherTypeIsUnknown) {
  for (int type = 0; type < 256; ++type) {
    if (type >= 1 && type <= 5) continue;
    EXPECT_EQ(with_byte(Bye{.incarnation = 1}, 0, type), ControlError::kUnknownType) << type;
  }
}

TEST(ControlMalformed, EveryOtherVersionIsUnknownSaveInARefusal) {
  for (const ControlMessage& message : samples()) {
    const bool refusal = std::holds_alternative<Refuse>(message);
    for (size_t at : {2u, 3u}) {
      EXPECT_EQ(with_byte(message, at, 9),
                refusal ? ControlError::kNone : ControlError::kUnknownVersion);
    }
  }
}

TEST(ControlMalformed, UndefinedFlagsAreRefused) {
  for (const ControlMessage& message : samples()) {
    const bool may_reply =
        std::holds_alternative<Hello>(message) || std::holds_alternative<Heartbeat>(message);
    for (int flags = 1; flags < 256; ++flags) {
      const bool legal = may_reply && flags == 1;
      EXPECT_EQ(with_byte(message, 1, flags),
                legal ? ControlError::kNone : ControlError::kBadField);
    }
  }
}

TEST(ControlMalformed, HelloFieldsOutOfRangeAreRefused) {
  const Hello m = sample_hello();
  EXPECT_EQ(with_byte(m, kCableAt, 15), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kCableAt, 14), ControlError::kNone);
  EXPECT_EQ(with_byte(m, kNameLengthAt, 64), ControlError::kBadField);
  // With no name the ports begin earlier, run past the end, and that is what is said.
  EXPECT_EQ(with_byte(m, kNameLengthAt, 0), ControlError::kTruncated);
  EXPECT_EQ(with_byte(m, kPortCountAt, 17), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kPortCountAt, 0), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kReservedAt, 1), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kNameAt, ' '), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kNameAt, '\n'), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kNameAt, 0x80), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, kNameAt, 'x'), ControlError::kNone);
}

TEST(ControlMalformed, PortFieldsOutOfRangeAreRefused) {
  const Hello m = sample_hello();
  EXPECT_EQ(with_byte(m, kFirstPortAt + 1, 0), ControlError::kBadField);   // LID 0
  EXPECT_EQ(with_byte(m, kFirstPortAt, 0xc0), ControlError::kBadField);    // multicast LID
  EXPECT_EQ(with_byte(m, kFirstPortAt + 2, 15), ControlError::kBadField);  // no such cable
  EXPECT_EQ(with_byte(m, kFirstPortAt + 3, 0), ControlError::kBadField);  // no GID: the rest shifts
  EXPECT_EQ(with_byte(m, kSecondPortAt + 3, 5), ControlError::kTruncated);  // more GIDs than bytes
  EXPECT_EQ(with_byte(m, kSecondPortAt + 1, 64), ControlError::kBadField);  // the first port's LID
  EXPECT_EQ(with_byte(m, kSecondPortAt + 2, 0xff), ControlError::kBadField);  // a second aggregate
}

TEST(ControlMalformed, APortWithFiveGidsIsRefused) {
  auto bytes = encode_control(sample_hello());
  bytes[kSecondPortAt + 3] = std::byte{5};
  bytes.resize(kSecondPortAt + 4 + 5 * sizeof(GidBytes));
  EXPECT_EQ(decode(bytes), ControlError::kBadField);
}

TEST(ControlMalformed, AHelloWithoutANameIsRefused) {
  auto bytes = encode_control(sample_hello());
  bytes[kNameLengthAt] = std::byte{0};
  bytes.erase(bytes.begin() + kNameAt, bytes.begin() + kFirstPortAt);
  EXPECT_EQ(decode(bytes), ControlError::kBadField);
}

TEST(ControlMalformed, AZeroIncarnationIsRefused) {
  auto bytes = encode_control(sample_hello());
  std::fill_n(bytes.begin() + kIncarnationAt, 8, std::byte{0});
  EXPECT_EQ(decode(bytes), ControlError::kBadField);
  EXPECT_EQ(with_byte(Bye{.incarnation = 1}, 11, 0), ControlError::kBadField);
  EXPECT_EQ(with_byte(Heartbeat{.incarnation = 1}, 11, 0), ControlError::kBadField);
}

TEST(ControlMalformed, RefuseReasonsOutOfRangeAreRefused) {
  const Refuse m{.version = 1, .reason = 1};
  EXPECT_EQ(with_byte(m, 5, 0), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 5, 4), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 4, 1), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 7, 1), ControlError::kBadField);
}

TEST(ControlMalformed, ProcessGoneFieldsOutOfRangeAreRefused) {
  const ProcessGone m{.slot = 1, .first = 2, .count = 0x40000, .lid = 4};
  EXPECT_EQ(with_byte(m, 4, 64), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 5, 1), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 7, 0), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 6, 0xc0), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 9, 4), ControlError::kBadField);
  EXPECT_EQ(with_byte(m, 15, 1), ControlError::kBadField);
}

TEST(ControlMalformed, ARefusedMessageLeavesTheOutputAlone) {
  ControlMessage out = Bye{.incarnation = 42};
  auto bytes = encode_control(Heartbeat{.incarnation = 1});
  bytes.pop_back();
  EXPECT_EQ(decode_control(bytes, out), ControlError::kTruncated);
  EXPECT_EQ(std::get<Bye>(out).incarnation, 42u);
}

TEST(ControlMalformedDeathTest, EncodingWhatNobodyWouldAcceptStopsTheProcess) {
  EXPECT_DEATH((void)encode_control(Bye{.incarnation = 0}), "legal");
  EXPECT_DEATH((void)encode_control(ProcessGone{.slot = 64, .lid = 1}), "legal");
}

}  // namespace
}  // namespace tbt::wire
