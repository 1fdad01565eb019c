// fabric.json: round trips, and refusal of damaged files.
#include "fabric/fabric_file.h"

#include <gtest/gtest.h>

namespace tbt::fabric {
namespace {

FabricFile sample() {
  return {"default", 3, "chain", 12, UINT64_MAX, {{0, 1, 0, 0}, {1, 2, 1, 0}}};
}

TEST(FabricFile, ComesBackAsItWas) {
  FabricFile out;
  ASSERT_EQ(parse_fabric_file(encode_fabric_file(sample()), out), "");
  EXPECT_EQ(out.name, "default");
  EXPECT_EQ(out.hosts, 3u);
  EXPECT_EQ(out.topology, "chain");
  EXPECT_EQ(out.seed, UINT64_MAX);
  ASSERT_EQ(out.cables.size(), 2u);
  EXPECT_EQ(out.cables[1].host_a, 1u);
  EXPECT_EQ(out.cables[1].host_b, 2u);
  EXPECT_EQ(out.cables[1].ordinal_a, 1u);
}

TEST(FabricFile, EveryShortenedFileIsRefused) {
  const std::string text = encode_fabric_file(sample());
  for (size_t n = 0; n + 2 < text.size(); n++) {  // without its newline it is whole
    FabricFile out;
    EXPECT_NE(parse_fabric_file(text.substr(0, n), out), "");
  }
}

TEST(FabricFile, AFieldOutOfRangeIsRefused) {
  const std::string whole = encode_fabric_file(sample());
  const struct {
    std::string from, to;
  } damages[] = {
      {"\"hosts\":3", "\"hosts\":1"},
      {"\"hosts\":3", "\"hosts\":9"},
      {"\"hosts\":3", "\"hosts\":\"3\""},
      {"\"hosts\":3", "\"hosts\":2"},  // cables lead to a host too many
      {"\"name\":\"default\"", "\"name\":\"../x\""},
      {"\"version\":1", "\"version\":2"},
      {"\"b\":2", "\"b\":1"},
      {"\"ordinal_a\":1", "\"ordinal_a\":8"},
      {"\"cables\":[", "\"cables\":[[],"},
  };
  for (const auto& [from, to] : damages) {
    std::string text = whole;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    FabricFile out;
    EXPECT_NE(parse_fabric_file(text, out), "") << text;
  }
}

TEST(FabricFile, NamesThatCouldLeaveTheFolderAreNotLegal) {
  for (const char* name :
       {"", ".", "..", ".x", "-x", "a/b", "a b", "\xc3\xa4", "123456789012345678901234567890123"}) {
    EXPECT_FALSE(fabric_name_is_legal(name)) << name;
  }
  for (const char* name : {"default", "a", "7", "a.b-c_d", "12345678901234567890123456789012"}) {
    EXPECT_TRUE(fabric_name_is_legal(name)) << name;
  }
}

}  // namespace
}  // namespace tbt::fabric
