// What one daemon writes down of its paths, and the next one finds.
#include "fabric/path_memory.h"

#include <gtest/gtest.h>

#include <cstring>

#include "fabric/directory.h"

namespace tbt::fabric {
namespace {

constexpr uint64_t kIncarnation = 7;

std::unique_ptr<rail::HostMemory> make_memory() {
  rail::HostConfig config;
  config.cables = 2;
  config.ring_entries = 16;
  config.rx_buffers = 32;
  auto memory = rail::HostMemory::create(config);
  EXPECT_TRUE(memory.has_value()) << memory.error().text();
  return std::move(memory).value();
}

PathStatus path_of(uint32_t port) {
  PathStatus path;
  path.port = port;
  path.tx_ring = path.rx_ring = static_cast<uint16_t>(port + 1);
  path.out_hop_id = 12;
  path.peer.bytes[5] = 0x55;
  path.peer_incarnation = 9;
  path.peer_features = 1;
  path.generation = 3;
  return path;
}

TEST(PathMemory, HoldsThePathsThatAreUp) {
  const auto memory = make_memory();
  EXPECT_TRUE(kept_paths(*memory, kIncarnation).empty());
  keep_path(*memory, kIncarnation, path_of(0));
  keep_path(*memory, kIncarnation, path_of(1));
  EXPECT_EQ(kept_paths(*memory, kIncarnation).size(), 2u);
  forget_path(*memory, 0);
  const auto kept = kept_paths(*memory, kIncarnation);
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].port, 1u);
  EXPECT_EQ(kept[0].tx_ring, 2);
  EXPECT_EQ(kept[0].out_hop_id, 12);
  EXPECT_EQ(kept[0].peer.bytes[5], 0x55);
  EXPECT_EQ(kept[0].peer_incarnation, 9u);
  EXPECT_EQ(kept[0].generation, 3u);
  forget_paths(*memory);
  EXPECT_TRUE(kept_paths(*memory, kIncarnation).empty());
}

TEST(PathMemory, IsOfOneIncarnationAndOneVersion) {
  const auto memory = make_memory();
  keep_path(*memory, kIncarnation, path_of(1));
  EXPECT_TRUE(kept_paths(*memory, kIncarnation + 1).empty());
  // Whatever else lies there is not read: as if its first word were of another version.
  std::byte* const begin = memory->directory() + sizeof(Directory);
  for (size_t i = 0; i + 4 <= rail::kDirectoryBytes - sizeof(Directory); i += 4) {
    uint32_t word = 0;
    std::memcpy(&word, begin + i, sizeof word);
    if (word != kPathMemoryVersion) continue;
    word = kPathMemoryVersion + 1;
    std::memcpy(begin + i, &word, sizeof word);
    break;
  }
  EXPECT_TRUE(kept_paths(*memory, kIncarnation).empty());
}

TEST(PathMemory, LeavesTheDirectoryAlone) {
  const auto memory = make_memory();
  DirectoryData data;
  data.incarnation = kIncarnation;
  write_directory(*memory, data);
  for (uint32_t port = 0; port < 2 * kCablesMax; ++port) {
    keep_path(*memory, kIncarnation, path_of(port));
  }
  EXPECT_EQ(kept_paths(*memory, kIncarnation).size(), kCablesMax);
  write_directory(*memory, data);
  EXPECT_EQ(kept_paths(*memory, kIncarnation).size(), kCablesMax);
  DirectoryData found;
  recover_directory(*memory, found);
  EXPECT_EQ(found.incarnation, kIncarnation);
}

}  // namespace
}  // namespace tbt::fabric
