// Byte order helpers: values, every alignment, and that a store touches its own bytes only.
#include "base/bytes.h"

#include <gtest/gtest.h>

#include <array>

namespace tbt::base {
namespace {

TEST(Bytes, BigEndianPutsTheHighByteFirst) {
  std::array<std::byte, 8> b{};
  store_be<uint16_t>(b.data(), 0x0102);
  EXPECT_EQ(b[0], std::byte{1});
  EXPECT_EQ(b[1], std::byte{2});
  store_be<uint64_t>(b.data(), 0x0102030405060708);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(static_cast<int>(b[static_cast<size_t>(i)]), i + 1);
}

TEST(Bytes, LittleEndianPutsTheLowByteFirst) {
  std::array<std::byte, 4> b{};
  store_le<uint32_t>(b.data(), 0x01020304);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(static_cast<int>(b[static_cast<size_t>(i)]), 4 - i);
}

template <typename T>
void round_trips_at_every_alignment(T value) {
  for (size_t at = 0; at < 8; ++at) {
    std::array<std::byte, 24> b;
    b.fill(std::byte{0xee});
    store_be(b.data() + at, value);
    EXPECT_EQ(load_be<T>(b.data() + at), value);
    store_le(b.data() + at, value);
    EXPECT_EQ(load_le<T>(b.data() + at), value);
    for (size_t i = 0; i < b.size(); ++i) {
      if (i < at || i >= at + sizeof(T)) {
        EXPECT_EQ(b[i], std::byte{0xee}) << i;
      }
    }
  }
}

TEST(Bytes, RoundTripsAtEveryAlignmentAndTouchesNothingElse) {
  round_trips_at_every_alignment<uint16_t>(0xfedc);
  round_trips_at_every_alignment<uint32_t>(0xfedcba98);
  round_trips_at_every_alignment<uint64_t>(0xfedcba9876543210);
}

TEST(Bytes, SwapsAreTheirOwnInverse) {
  static_assert(byteswap(uint16_t{0x0102}) == 0x0201);
  static_assert(byteswap(uint32_t{0x01020304}) == 0x04030201);
  static_assert(byteswap(byteswap(uint64_t{0x0102030405060708})) == 0x0102030405060708);
  EXPECT_EQ(to_big(to_big(0x12345678u)), 0x12345678u);
  EXPECT_EQ(to_little(to_little(0x12345678u)), 0x12345678u);
}

}  // namespace
}  // namespace tbt::base
