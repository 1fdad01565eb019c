// Control packets that are damaged, cut short, too long, sent the wrong way or have a bit set that
// is not theirs are refused, each with its own error.
#include "tb_samples.h"

namespace tbt::wire::tb {
namespace {

using testing::decode;
using testing::decode_words;
using testing::encoded;
using testing::sealed;
using testing::words_of;

constexpr Route kFar{0x0501};

struct Sample {
  Pdf pdf;
  ControlPacket packet;
};

std::vector<Sample> samples() {
  ConfigData two;
  two.push(1);
  two.push(2);
  const ConfigAddress address{.offset = 3, .length = 2, .adapter = 4, .sequence = 1};
  XDomainPacket message;
  message.route = kFar;
  message.protocol = kDiscoveryProtocol;
  message.body.push(12);
  return {{Pdf::kRead, ReadRequest{kFar, address}},
          {Pdf::kRead, ReadReply{kFar, address, two}},
          {Pdf::kWrite, WriteRequest{kFar, address, two}},
          {Pdf::kWrite, WriteReply{kFar, address}},
          {Pdf::kError, Notification{kFar, kNoSuchAdapter, 9}},
          {Pdf::kError, HotPlugAck{kFar, 9, false}},
          {Pdf::kNotificationAck, NotificationAck{kFar}},
          {Pdf::kHotPlug, HotPlug{kFar, 9, true}},
          {Pdf::kReset, Reset{kFar, true}},
          {Pdf::kXDomainRequest, message}};
}

TEST(ControlMalformedTb, EverySingleBitErrorIsABadChecksum) {
  for (const Sample& sample : samples()) {
    const auto good = encoded(sample.packet);
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
      auto bytes = good;
      bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      ControlPacket out;
      EXPECT_EQ(decode(sample.pdf, bytes, out), PacketError::kBadChecksum) << bit;
    }
  }
}

TEST(ControlMalformedTb, SizesThatNoPacketHasAreRefused) {
  ControlPacket out;
  for (size_t n = 0; n < 300; ++n) {
    const std::vector<std::byte> zeros(n);
    const bool possible = n % 4 == 0 && n >= 12 && n <= kControlPacketMax;
    EXPECT_EQ(decode(Pdf::kRead, zeros, out),
              possible ? PacketError::kBadChecksum : PacketError::kBadSize)
        << n;
  }
}

TEST(ControlMalformedTb, WordsMissingOrLeftOverAreRefused) {
  for (const Sample& sample : samples()) {
    auto longer = words_of(sample.packet);
    longer.push_back(0);
    EXPECT_EQ(decode_words(sample.pdf, longer), PacketError::kBadLength) << sample.packet.index();
    auto shorter = words_of(sample.packet);
    while (shorter.size() > 2) {
      shorter.pop_back();
      const bool header_only =
          shorter.size() == 2 && (sample.pdf == Pdf::kNotificationAck || sample.pdf == Pdf::kReset);
      EXPECT_EQ(decode_words(sample.pdf, shorter),
                header_only ? PacketError::kNone : PacketError::kBadLength)
          << sample.packet.index() << " with " << shorter.size();
    }
  }
}

TEST(ControlMalformedTb, ReservedBitsAreRefused) {
  for (const Sample& sample : samples()) {
    for (unsigned bit = 22; bit < 31; ++bit) {
      auto words = words_of(sample.packet);
      words[0] |= 1u << bit;
      EXPECT_EQ(decode_words(sample.pdf, words), PacketError::kReserved) << bit;
    }
  }
  const auto third_word = [](size_t sample, unsigned first, unsigned last) {
    for (unsigned bit = first; bit <= last; ++bit) {
      auto words = words_of(samples()[sample].packet);
      words[2] |= 1u << bit;
      EXPECT_EQ(decode_words(samples()[sample].pdf, words), PacketError::kReserved) << bit;
    }
  };
  for (size_t config = 0; config < 4; ++config) third_word(config, 29, 31);
  third_word(4, 14, 29);
  third_word(5, 14, 29);
  third_word(7, 6, 30);
  third_word(9, 6, 26);
  third_word(9, 29, 31);
}

TEST(ControlMalformedTb, RoutesWithHolesOrWideHopsAreRefused) {
  for (const Sample& sample : samples()) {
    for (const uint32_t low : {0x0500u, 0x8001u, 0x0040u}) {
      auto words = words_of(sample.packet);
      words[1] = low;
      EXPECT_EQ(decode_words(sample.pdf, words), PacketError::kBadRoute) << low;
    }
  }
}

TEST(ControlMalformedTb, WhatOnlyOneSideSendsIsRefusedFromTheOther) {
  for (const Sample& sample : samples()) {
    auto words = words_of(sample.packet);
    words[0] ^= 1u << 31;
    const PacketError error = decode_words(sample.pdf, words);
    switch (sample.pdf) {
      case Pdf::kRead:
      case Pdf::kWrite:  // the other kind, which is longer or shorter by the data
        EXPECT_EQ(error, PacketError::kBadLength) << sample.packet.index();
        break;
      case Pdf::kReset:
      case Pdf::kXDomainRequest:
        EXPECT_EQ(error, PacketError::kNone) << sample.packet.index();
        break;
      default:
        EXPECT_EQ(error, PacketError::kDirection) << sample.packet.index();
    }
  }
}

TEST(ControlMalformedTb, LengthsThatNoReadOrWriteHasAreRefused) {
  for (const uint32_t length : {0u, 61u, 62u, 63u}) {
    auto words = words_of(samples()[0].packet);
    words[2] = (words[2] & ~(0x3fu << 13)) | length << 13;
    EXPECT_EQ(decode_words(Pdf::kRead, words), PacketError::kBadField) << length;
  }
}

TEST(ControlMalformedTb, PlugStatesThatDoNotFitAreRefused) {
  auto ack = words_of(samples()[5].packet);
  for (const uint32_t pg : {0u, 1u}) {
    ack[2] = (ack[2] & ~(3u << 30)) | pg << 30;
    EXPECT_EQ(decode_words(Pdf::kError, ack), PacketError::kBadField) << pg;
  }
  auto news = words_of(samples()[4].packet);
  news[2] |= 2u << 30;
  EXPECT_EQ(decode_words(Pdf::kError, news), PacketError::kBadField);
}

TEST(ControlMalformedTb, AnXDomainPacketTooShortForItsProtocolIsRefused) {
  for (uint32_t length = 0; length < 4; ++length) {
    std::vector<uint32_t> words(3 + length);
    words[2] = length;
    EXPECT_EQ(decode_words(Pdf::kXDomainRequest, words), PacketError::kBadLength) << length;
  }
  EXPECT_EQ(decode_words(Pdf::kXDomainRequest, {0, 0, 4, 0, 0, 0, 0}), PacketError::kNone);
}

TEST(ControlMalformedTb, OtherPdfsAreUnknownOrFirmware) {
  const auto words = words_of(Reset{});
  for (int pdf = 0; pdf < 16; ++pdf) {
    const PacketError error = decode_words(static_cast<Pdf>(pdf), words);
    if (pdf >= 10 && pdf <= 12) {
      EXPECT_EQ(error, PacketError::kFirmware) << pdf;
    } else if (pdf == 0 || pdf == 8 || pdf > 12) {
      EXPECT_EQ(error, PacketError::kUnknownPdf) << pdf;
    } else {
      EXPECT_NE(error, PacketError::kUnknownPdf) << pdf;
    }
  }
}

TEST(ControlMalformedTb, NothingIsWrittenOnAnError) {
  ControlPacket out = Reset{Route{7}, true};
  auto words = words_of(samples()[1].packet);
  words.pop_back();
  EXPECT_EQ(decode(Pdf::kRead, sealed(words), out), PacketError::kBadLength);
  EXPECT_TRUE(out == ControlPacket(Reset{Route{7}, true}));
}

}  // namespace
}  // namespace tbt::wire::tb
