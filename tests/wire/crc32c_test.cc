// CRC32C against published answers and against a bit-by-bit statement of the polynomial, for every
// form.
#include "wire/crc32c.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "base/rng.h"
#include "samples.h"

namespace tbt::wire {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

uint32_t bit_by_bit(std::span<const std::byte> bytes) {
  uint32_t state = 0xffffffff;
  for (std::byte b : bytes) {
    state ^= static_cast<uint8_t>(b);
    for (int i = 0; i < 8; ++i) state = (state >> 1) ^ ((state & 1) ? 0x82f63b78u : 0u);
  }
  return ~state;
}

std::vector<std::byte> random_bytes(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng.next());
  return bytes;
}

// RFC 3720, B.4, and the check value of the CRC catalogues for "123456789".
TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(crc32c({}), 0u);
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
  std::vector<std::byte> v(32, std::byte{0});
  EXPECT_EQ(crc32c(v), 0x8a9136aau);
  v.assign(32, std::byte{0xff});
  EXPECT_EQ(crc32c(v), 0x62a8ab43u);
  for (size_t i = 0; i < 32; ++i) v[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(v), 0x46dd794eu);
  for (size_t i = 0; i < 32; ++i) v[i] = static_cast<std::byte>(31 - i);
  EXPECT_EQ(crc32c(v), 0x113fdb5cu);
}

std::vector<Crc32cForm> forms() {
  std::vector<Crc32cForm> there;
  for (Crc32cForm form :
       {Crc32cForm::kTable, Crc32cForm::kInstruction, Crc32cForm::kFolding}) {
    if (has_crc32c_form(form)) there.push_back(form);
  }
  return there;
}

// 256 is where folding begins, 384 and 3072 where the three-stream loops do.
TEST(Crc32c, EveryLengthAndFormAgreesWithThePolynomial) {
  const auto bytes = random_bytes(8192, 1);
  std::vector<size_t> lengths;
  for (size_t n = 0; n <= 800; ++n) lengths.push_back(n);
  for (size_t n : {3064u, 3071u, 3072u, 3073u, 3455u, 3456u, 4095u, 4096u, 4100u, 6144u, 8192u}) {
    lengths.push_back(n);
  }
  for (size_t n : lengths) {
    const testing::ExactBytes exact{std::span(bytes).first(n)};
    const uint32_t expected = bit_by_bit(exact.span());
    ASSERT_EQ(crc32c(exact.span()), expected) << n;
    for (Crc32cForm form : forms()) {
      const int name = static_cast<int>(form);
      ASSERT_EQ(~crc32c_update_by(form, kCrc32cInit, exact.span()), expected) << n << ' ' << name;
      testing::ExactBytes copy{std::vector<std::byte>(n)};
      std::byte* const to = copy.writable().data();
      ASSERT_EQ(~crc32c_copy_by(form, kCrc32cInit, to, exact.span()), expected) << n << ' ' << name;
      ASSERT_TRUE(std::ranges::equal(copy.span(), exact.span())) << n << ' ' << name;
    }
  }
}

TEST(Crc32c, PiecesInOrderAreTheWhole) {
  const auto bytes = random_bytes(5000, 2);
  const uint32_t expected = crc32c(bytes);
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    uint32_t state = kCrc32cInit;
    std::span<const std::byte> rest(bytes);
    while (!rest.empty()) {
      const size_t n = 1 + rng.below(static_cast<uint32_t>(rest.size()));
      state = crc32c_update(state, rest.first(n));
      rest = rest.subspan(n);
    }
    ASSERT_EQ(~state, expected);
  }
}

TEST(Crc32c, AlignmentDoesNotMatter) {
  const auto bytes = random_bytes(4096 + 16, 4);
  for (size_t at = 0; at < 16; ++at) {
    const auto part = std::span(bytes).subspan(at, 4000);
    for (Crc32cForm form : forms()) {
      EXPECT_EQ(~crc32c_update_by(form, kCrc32cInit, part), bit_by_bit(part)) << at;
    }
  }
}

TEST(Crc32c, CopyWritesOnlyItsOwnBytes) {
  const auto bytes = random_bytes(1000, 5);
  for (Crc32cForm form : forms()) {
    for (size_t n : {0u, 1u, 7u, 8u, 9u, 255u, 256u, 383u, 384u, 400u, 1000u}) {
      std::vector<std::byte> to(n + 16, std::byte{0x5a});
      crc32c_copy_by(form, kCrc32cInit, to.data() + 8, std::span(bytes).first(n));
      for (size_t i = 0; i < 8; ++i) {
        EXPECT_EQ(to[i], std::byte{0x5a});
        EXPECT_EQ(to[n + 8 + i], std::byte{0x5a});
      }
    }
  }
}

}  // namespace
}  // namespace tbt::wire
