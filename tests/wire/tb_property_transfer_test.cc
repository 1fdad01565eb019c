// Property blocks in fragments: whole at the other end, whatever is late, repeated or changed.
#include "wire/tb/property_transfer.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tbt::wire::tb {
namespace {

using Words = std::vector<uint32_t>;

constexpr Uuid kServer = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kClient = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");

Words numbered(size_t count) {
  Words words(count);
  for (size_t i = 0; i < count; ++i) words[i] = static_cast<uint32_t>(i * 0x01000193);
  return words;
}

PropertiesResponse fragment(const Words& block, uint16_t offset, uint32_t generation) {
  return property_fragment(block, generation, kServer, {kClient, kServer, offset}).value();
}

TEST(PropertyTransfer, BlocksOfEveryLengthArriveWhole) {
  for (size_t length = 1; length <= kPropertyBlockMax; ++length) {
    const Words block = numbered(length);
    PropertyAssembly assembly;
    size_t packets = 0;
    auto step = PropertyAssembly::Step::kMore;
    while (step == PropertyAssembly::Step::kMore) {
      step = assembly.add(fragment(block, assembly.next_offset(), 5));
      ASSERT_LE(++packets, (length + kPropertyFragmentMax - 1) / kPropertyFragmentMax);
    }
    ASSERT_EQ(step, PropertyAssembly::Step::kComplete);
    ASSERT_TRUE(std::ranges::equal(assembly.block(), block)) << length;
    ASSERT_EQ(assembly.generation(), 5u);
  }
}

TEST(PropertyTransfer, FragmentsNameBothHosts) {
  const PropertiesResponse response = fragment(numbered(100), 90, 7);
  EXPECT_EQ(response.source, kServer);
  EXPECT_EQ(response.destination, kClient);
  EXPECT_EQ(response.offset, 90);
  EXPECT_EQ(response.total, 100);
  EXPECT_EQ(response.data.size(), 10u);
}

TEST(PropertyTransfer, NothingStandsBehindTheEnd) {
  EXPECT_FALSE(property_fragment(numbered(45), 1, kServer, {kClient, kServer, 45}).has_value());
  EXPECT_TRUE(property_fragment(numbered(45), 1, kServer, {kClient, kServer, 44}).has_value());
}

TEST(PropertyTransfer, LateAndRepeatedFragmentsAreIgnored) {
  const Words block = numbered(100);
  PropertyAssembly assembly;
  EXPECT_EQ(assembly.add(fragment(block, 45, 1)), PropertyAssembly::Step::kIgnored);
  EXPECT_EQ(assembly.add(fragment(block, 0, 1)), PropertyAssembly::Step::kMore);
  EXPECT_EQ(assembly.add(fragment(block, 0, 1)), PropertyAssembly::Step::kIgnored);
  EXPECT_EQ(assembly.add(fragment(block, 90, 1)), PropertyAssembly::Step::kIgnored);
  EXPECT_EQ(assembly.next_offset(), 45);
}

TEST(PropertyTransfer, ABlockThatChangesInBetweenIsReadAnew) {
  PropertyAssembly assembly;
  EXPECT_EQ(assembly.add(fragment(numbered(100), 0, 1)), PropertyAssembly::Step::kMore);
  EXPECT_EQ(assembly.add(fragment(numbered(100), 45, 2)), PropertyAssembly::Step::kRestart);
  EXPECT_EQ(assembly.next_offset(), 0);
  EXPECT_EQ(assembly.add(fragment(numbered(100), 0, 2)), PropertyAssembly::Step::kMore);
  EXPECT_EQ(assembly.add(fragment(numbered(99), 45, 2)), PropertyAssembly::Step::kRestart);
  EXPECT_EQ(assembly.add(fragment(numbered(30), 0, 2)), PropertyAssembly::Step::kComplete);
  EXPECT_EQ(assembly.block().size(), 30u);
}

}  // namespace
}  // namespace tbt::wire::tb
