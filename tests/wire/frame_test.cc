// Frames: what check_frame lets in, and that every single flipped bit of a checked frame is
// noticed.
#include "wire/frame.h"

#include <gtest/gtest.h>

#include <string>

#include "samples.h"

namespace tbt::wire {
namespace {

using testing::build_frame;
using testing::build_packet;
using testing::ExactBytes;

constexpr uint32_t kTag = 0xa1b2c3d4;

std::vector<std::byte> counting(size_t n) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 1);
  return bytes;
}

RawFrame whole(std::span<const std::byte> bytes) { return {bytes, kSofPacket, kEofWhole}; }
RawFrame head(std::span<const std::byte> bytes) { return {bytes, kSofPacket, kEofHead}; }
RawFrame payload(std::span<const std::byte> bytes) { return {bytes, kSofPayload, kEofPayload}; }
RawFrame control(std::span<const std::byte> bytes) { return {bytes, kSofControl, kEofControl}; }

FrameError check(const RawFrame& first, const RawFrame& second = {}, uint32_t tag = kTag,
                 bool any = false) {
  FrameView view;
  return check_frame(first, second, tag, any, view);
}

TEST(Frame, HeaderHasItsBytes) {
  std::array<std::byte, 8> bytes{};
  encode_frame_header({.version = 1, .flags = 1, .length = 0x0203, .tag = 0x04050607},
                      bytes.data());
  const std::array<std::byte, 8> expected{std::byte{1}, std::byte{1}, std::byte{2}, std::byte{3},
                                          std::byte{4}, std::byte{5}, std::byte{6}, std::byte{7}};
  EXPECT_EQ(bytes, expected);
  const FrameHeader back = decode_frame_header(bytes.data());
  EXPECT_EQ(back.flags, 1);
  EXPECT_EQ(back.length, 0x0203);
  EXPECT_EQ(back.tag, 0x04050607u);
}

TEST(Frame, WholeAndControlGiveTheirBody) {
  for (size_t n : {0u, 1u, 20u, 4084u}) {
    const auto body = counting(n);
    const ExactBytes frame(build_frame(body, {}, 0, kTag));
    for (const RawFrame& raw : {whole(frame.span()), control(frame.span())}) {
      FrameView view;
      ASSERT_EQ(check_frame(raw, {}, kTag, false, view), FrameError::kNone) << n;
      EXPECT_TRUE(std::ranges::equal(view.bytes, body));
      EXPECT_TRUE(view.payload.empty());
      EXPECT_EQ(view.header.tag, kTag);
    }
  }
}

TEST(Frame, AHeadAndItsPayloadGiveBoth) {
  const auto body = counting(36);
  const auto data = counting(4096);
  for (uint8_t flags : {0, 1}) {
    const ExactBytes frame(build_frame(body, data, flags, kTag));
    FrameView view;
    ASSERT_EQ(check_frame(head(frame.span()), payload(data), kTag, false, view), FrameError::kNone);
    EXPECT_TRUE(std::ranges::equal(view.bytes, body));
    EXPECT_EQ(view.payload.data(), data.data());
    EXPECT_EQ(view.payload.size(), 4096u);
    EXPECT_EQ(view.header.length, 36 + 4096);
  }
}

TEST(Frame, EveryFlippedBitIsNoticed) {
  const ExactBytes good(build_frame(counting(32), {}, kFlagPayloadChecked, kTag));
  for (size_t bit = 0; bit < good.span().size() * 8; ++bit) {
    ExactBytes bad(good.span());
    bad.writable()[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_NE(check(whole(bad.span())), FrameError::kNone) << bit;
    EXPECT_NE(check(whole(bad.span()), {}, kTag, true), FrameError::kNone) << bit;
  }
}

TEST(Frame, EveryFlippedBitOfACheckedPayloadIsNoticed) {
  const auto data = counting(256);
  const auto frame = build_frame(counting(36), data, kFlagPayloadChecked, kTag);
  for (size_t bit = 0; bit < data.size() * 8; ++bit) {
    auto bad = data;
    bad[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    ASSERT_EQ(check(head(frame), payload(bad)), FrameError::kBadCheck) << bit;
  }
}

TEST(Frame, AnUncheckedPayloadIsNotLookedAt) {
  auto data = counting(64);
  const auto frame = build_frame(counting(36), data, 0, kTag);
  data[5] ^= std::byte{1};
  EXPECT_EQ(check(head(frame), payload(data)), FrameError::kNone);
}

TEST(Frame, EveryTruncationIsRefused) {
  const auto good = build_frame(counting(32), {}, 0, kTag);
  for (size_t n = 0; n < good.size(); ++n) {
    const ExactBytes cut{std::span(good).first(n)};
    const FrameError error = check(whole(cut.span()));
    EXPECT_EQ(error, n < 12 ? FrameError::kTruncated : FrameError::kBadLength) << n;
  }
}

TEST(Frame, APairWhosePayloadHasAnotherSizeIsRefused) {
  const auto data = counting(64);
  const auto frame = build_frame(counting(36), data, 0, kTag);
  EXPECT_EQ(check(head(frame), payload(std::span(data).first(60))), FrameError::kBadLength);
  EXPECT_EQ(check(head(frame), payload(counting(68))), FrameError::kBadLength);
}

TEST(Frame, OversizeFramesAreRefused) {
  const auto frame = build_frame(counting(4085), {}, 0, kTag);
  ASSERT_EQ(frame.size(), 4097u);
  EXPECT_EQ(check(whole(frame)), FrameError::kBadLength);
  const auto data = counting(4097);
  EXPECT_EQ(check(head(build_frame(counting(36), data, 0, kTag)), payload(data)),
            FrameError::kBadLength);
}

TEST(Frame, EveryForeignPdfIsRefused) {
  const auto frame = build_frame(counting(32), {}, 0, kTag);
  const auto data = counting(64);
  const auto pair = build_frame(counting(36), data, 0, kTag);
  for (int sof = 0; sof < 16; ++sof) {
    for (int eof = 0; eof < 16; ++eof) {
      const RawFrame raw{frame, static_cast<uint8_t>(sof), static_cast<uint8_t>(eof)};
      const bool legal = (sof == 1 && eof == 1) || (sof == 4 && eof == 4);
      EXPECT_EQ(check(raw), legal ? FrameError::kNone : FrameError::kBadPdf) << sof << "/" << eof;
      const RawFrame first{pair, static_cast<uint8_t>(sof), static_cast<uint8_t>(eof)};
      const bool legal_head = sof == 1 && eof == 2;
      EXPECT_EQ(check(first, payload(data)), legal_head ? FrameError::kNone : FrameError::kBadPdf);
      const RawFrame second{data, static_cast<uint8_t>(sof), static_cast<uint8_t>(eof)};
      const bool legal_payload = sof == 3 && eof == 3;
      EXPECT_EQ(check(head(pair), second), legal_payload ? FrameError::kNone : FrameError::kBadPdf);
    }
  }
}

TEST(Frame, AnEarlierSessionIsStaleUnlessAnyTagIsAccepted) {
  const auto frame = build_frame(counting(32), {}, 0, kTag);
  EXPECT_EQ(check(whole(frame), {}, kTag + 1), FrameError::kStaleTag);
  EXPECT_EQ(check(whole(frame), {}, kTag + 1, true), FrameError::kNone);
}

// The check is right for the changed header, so that only the version or flag test can refuse it.
TEST(Frame, UnknownVersionsAndFlagsAreRefused) {
  for (int changed = 0; changed < 2; ++changed) {
    for (int value = 0; value < 256; ++value) {
      auto frame = build_frame(counting(32), {}, 0, kTag);
      frame[static_cast<size_t>(changed)] = static_cast<std::byte>(value);
      frame.erase(frame.end() - kCheckBytes, frame.end());
      testing::append_check(frame, crc32c(frame));
      const bool known = changed == 0 ? value == 1 : value <= 1;
      EXPECT_EQ(check(whole(frame)), known ? FrameError::kNone : FrameError::kBadVersion) << value;
    }
  }
}

TEST(Frame, EveryErrorHasAName) {
  for (uint8_t e = 0; e <= static_cast<uint8_t>(FrameError::kBadCheck); ++e) {
    EXPECT_STRNE(frame_error_name(static_cast<FrameError>(e)), "?");
  }
}

}  // namespace
}  // namespace tbt::wire
