// Property blocks: the block that an unmodified Linux sends, word by word; round trips of generated
// trees; blocks that lie about themselves.
#include "wire/tb/property_block.h"

#include "tb_linux_block.h"
#include "tb_samples.h"

namespace tbt::wire::tb {
namespace {

using testing::kLinuxBlock;
using testing::linux_tree;
using testing::Words;

PropertyError parse(const Words& words) {
  PropertyDirectory root;
  // Exactly as long as it says, so that the address sanitizer sees a read too many.
  const auto exact = std::make_unique<uint32_t[]>(words.size());
  std::copy(words.begin(), words.end(), exact.get());
  return parse_property_block({exact.get(), words.size()}, root);
}

TEST(PropertyBlock, ParsesWhatLinuxSends) {
  PropertyDirectory root;
  ASSERT_EQ(parse_property_block(kLinuxBlock, root), PropertyError::kNone);
  EXPECT_TRUE(root == linux_tree());
}

TEST(PropertyBlock, BuildsTheWordsThatLinuxWould) {
  Words block;
  ASSERT_EQ(build_property_block(linux_tree(), block), PropertyError::kNone);
  EXPECT_EQ(block, kLinuxBlock);
}

TEST(PropertyBlock, FindsByKeyAndType) {
  const PropertyDirectory root = linux_tree();
  ASSERT_NE(root.find_value("deviceid"), nullptr);
  EXPECT_EQ(*root.find_value("deviceid"), 4u);
  ASSERT_NE(root.find_text("deviceid"), nullptr);
  EXPECT_EQ(*root.find_text("deviceid"), "alpha");
  ASSERT_NE(root.find_directory("network"), nullptr);
  EXPECT_EQ(root.find_directory("deviceid"), nullptr);
  EXPECT_EQ(root.find_value("device"), nullptr);
}

PropertyDirectory arbitrary_tree(unsigned depth) {
  PropertyDirectory dir;
  if (depth > 0) dir.uuid = testing::arbitrary_uuid();
  const auto count = *rc::gen::inRange(0, 4);
  for (int i = 0; i < count; ++i) {
    Property property;
    for (char& c : property.key.chars) c = *rc::gen::arbitrary<char>();
    switch (*rc::gen::inRange(0, depth < kPropertyDepthMax ? 4 : 3)) {
      case 0:
        property.value = *rc::gen::arbitrary<uint32_t>();
        break;
      case 1:
        property.value = *rc::gen::container<std::string>(
            rc::gen::distinctFrom(rc::gen::arbitrary<char>(), '\0'));
        break;
      case 2:
        property.value = *rc::gen::arbitrary<PropertyData>();
        break;
      default:
        property.value = arbitrary_tree(depth + 1);
    }
    dir.entries.push_back(property);
  }
  return dir;
}

TEST(PropertyBlock, ParsingWhatWasBuiltGivesTheSameTree) {
  int fitted = 0;
  EXPECT_TRUE(rc::check("parse . build = identity", [&fitted] {
    const PropertyDirectory tree = arbitrary_tree(0);
    Words block;
    const PropertyError error = build_property_block(tree, block);
    if (error == PropertyError::kTooLong) return;
    RC_ASSERT(error == PropertyError::kNone);
    RC_ASSERT(block.size() <= kPropertyBlockMax);
    PropertyDirectory again;
    RC_ASSERT(parse_property_block(block, again) == PropertyError::kNone);
    RC_ASSERT(again == tree);
    ++fitted;
  }));
  EXPECT_GT(fitted, 20);
}

TEST(PropertyBlock, ChangedBlocksAreAnswered) {
  EXPECT_TRUE(rc::check("parse is total near good blocks", [] {
    Words words = kLinuxBlock;
    const auto changes = *rc::gen::inRange(1, 6);
    for (int i = 0; i < changes; ++i) {
      const auto at = *rc::gen::inRange<size_t>(0, words.size());
      words[at] = *rc::gen::oneOf(rc::gen::arbitrary<uint32_t>(),
                                  rc::gen::inRange<uint32_t>(0, 0x60), rc::gen::just(0x44000014u));
    }
    PropertyDirectory root;
    if (parse_property_block(words, root) != PropertyError::kNone) return;
    Words block;
    const PropertyError error = build_property_block(root, block);
    RC_ASSERT(error == PropertyError::kNone || error == PropertyError::kTooLong);
  }));
}

TEST(PropertyBlock, EveryTruncationIsRefused) {
  for (size_t n = 0; n < kLinuxBlock.size(); ++n) {
    const PropertyError error = parse({kLinuxBlock.begin(), kLinuxBlock.begin() + long(n)});
    EXPECT_EQ(error, n < 2 ? PropertyError::kBadMagic : PropertyError::kOutOfBlock) << n;
  }
}

// One word of the block changed, and what it must lead to.
TEST(PropertyBlock, LiesAreRefused) {
  struct Case {
    size_t at;
    uint32_t value;
    PropertyError wanted;
  };
  const Case cases[] = {
      {0, 0x55584402, PropertyError::kBadMagic},
      {1, 27, PropertyError::kBadLength},
      {1, 54, PropertyError::kOutOfBlock},
      {1, 55, PropertyError::kOutOfBlock},
      {1, 56, PropertyError::kOutOfBlock},
      {1, 0xffffffff, PropertyError::kOutOfBlock},
      {4, 0x76000002, PropertyError::kBadLength},  // a value of two words
      {4, 0x76000000, PropertyError::kBadLength},  // and of none
      {8, 0x74000000, PropertyError::kBadLength},  // a text of no word
      {9, 53, PropertyError::kNone},               // a text in the last two words
      {9, 54, PropertyError::kOutOfBlock},
      {9, 0xffffffff, PropertyError::kOutOfBlock},  // an offset that wraps
      {20, 0x44000000, PropertyError::kBadLength},
      {20, 0x44000003, PropertyError::kBadLength},  // a directory without room for its UUID
      {20, 0x44000013, PropertyError::kBadLength},  // and with three quarters of an entry
      {20, 0x44000015, PropertyError::kOutOfBlock},
      {20, 0x4400ffff, PropertyError::kOutOfBlock},
      {21, 36, PropertyError::kOutOfBlock},
      {21, 0, PropertyError::kCycle},          // the root as its own child
      {21, 29, PropertyError::kCycle},         // overlapping its last entry
      {20, 0x58000014, PropertyError::kNone},  // a type nobody knows is left out
  };
  for (const Case& c : cases) {
    Words words = kLinuxBlock;
    words[c.at] = c.value;
    EXPECT_EQ(parse(words), c.wanted)
        << c.at << " = " << c.value << ": " << property_error_name(parse(words));
  }
}

TEST(PropertyBlock, UnknownTypesAreLeftOut) {
  Words words = kLinuxBlock;
  words[20] = 0x58000014;
  PropertyDirectory root;
  ASSERT_EQ(parse_property_block(words, root), PropertyError::kNone);
  EXPECT_EQ(root.entries.size(), 6u);
}

// A chain of directories below the root, each the child of the one before.
PropertyDirectory chain(unsigned depth) {
  PropertyDirectory dir;
  for (unsigned i = 0; i < depth; ++i) {
    PropertyDirectory parent;
    parent.add("down", std::move(dir));
    dir = std::move(parent);
  }
  return dir;
}

TEST(PropertyBlock, EightLevelsAreTheLimit) {
  Words block;
  ASSERT_EQ(build_property_block(chain(kPropertyDepthMax), block), PropertyError::kNone);
  EXPECT_EQ(parse(block), PropertyError::kNone);
  EXPECT_EQ(build_property_block(chain(kPropertyDepthMax + 1), block), PropertyError::kTooDeep);
}

// Nine levels cannot be built, so one is written by hand: level i at word 6 + 9i.
TEST(PropertyBlock, ANinthLevelIsRefused) {
  Words words = {0x55584401, 4, 0, 0, 0x44000008, 6};
  for (uint32_t level = 1; level <= 9; ++level) {
    words.insert(words.end(), {0, 0, 0, 0, 0, 0, 0x44000008, 6 + 8 * level});
  }
  words.insert(words.end(), {0, 0, 0, 0, 0, 0, 0x76000001, 0});
  EXPECT_EQ(parse(words), PropertyError::kTooDeep);
}

TEST(PropertyBlock, ADirectoryInsideItselfIsACycle) {
  const Words words = {0x55584401, 4, 0, 0, 0x44000008, 6, 0, 0, 0, 0, 0, 0, 0x44000008, 6};
  EXPECT_EQ(parse(words), PropertyError::kCycle);
}

TEST(PropertyBlock, TwoThatContainEachOtherAreACycle) {
  const Words words = {0x55584401, 4, 0, 0, 0x44000008, 6,                  //
                       0,          0, 0, 0, 0,          0, 0x44000008, 14,  //
                       0,          0, 0, 0, 0,          0, 0x44000008, 6};
  EXPECT_EQ(parse(words), PropertyError::kCycle);
}

// Each level names the next one eight times: 8^8 directories in 300 words, if one let it.
TEST(PropertyBlock, SharedDirectoriesDoNotMultiply) {
  Words words = {0x55584401, 32};
  const auto eight_times = [&words](uint32_t next) {
    for (int i = 0; i < 8; ++i) words.insert(words.end(), {0, 0, 0x44000024, next});
  };
  eight_times(34);
  for (uint32_t level = 1; level <= 7; ++level) {
    words.insert(words.end(), {0, 0, 0, 0});
    eight_times(34 + 36 * level);
  }
  words.insert(words.end(), 36, 0);
  ASSERT_LE(words.size(), kPropertyBlockMax);
  EXPECT_EQ(parse(words), PropertyError::kTooManyEntries);
}

TEST(PropertyBlock, LongerThanABlockMayBeIsRefusedBothWays) {
  Words words(kPropertyBlockMax + 1);
  words[0] = 0x55584401;
  EXPECT_EQ(parse(words), PropertyError::kTooLong);
  words.pop_back();
  EXPECT_EQ(parse(words), PropertyError::kNone);
  PropertyDirectory root;
  root.add("text", std::string(4 * (kPropertyBlockMax - 6) - 1, 'x'));
  Words block;
  EXPECT_EQ(build_property_block(root, block), PropertyError::kNone);
  EXPECT_EQ(block.size(), kPropertyBlockMax);
  root.add("one", 1u);
  EXPECT_EQ(build_property_block(root, block), PropertyError::kTooLong);
  EXPECT_EQ(block.size(), kPropertyBlockMax);
}

TEST(PropertyBlock, AZeroInsideATextIsNotBuilt) {
  PropertyDirectory root;
  root.add("text", std::string_view("a\0b", 3));
  Words block;
  EXPECT_EQ(build_property_block(root, block), PropertyError::kBadText);
}

}  // namespace
}  // namespace tbt::wire::tb
