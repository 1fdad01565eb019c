// The directory's sequence lock, with a writer and readers at the same time.
#include "fabric/directory.h"

#include <gtest/gtest.h>

#include <thread>

namespace tbt::fabric {
namespace {

std::unique_ptr<rail::HostMemory> make_memory() {
  rail::HostConfig config;
  config.cables = 1;
  config.ring_entries = 16;
  config.rx_buffers = 32;
  auto memory = rail::HostMemory::create(config);
  EXPECT_TRUE(memory.has_value()) << memory.error().text();
  return std::move(memory).value();
}

TEST(Directory, IsEmptyBeforeTheDaemonWrites) {
  const auto memory = make_memory();
  DirectoryData data;
  EXPECT_EQ(read_directory(*memory, data), 0u);
  EXPECT_EQ(data.incarnation, 0u);
}

TEST(Directory, EachWriteIsANewGeneration) {
  const auto memory = make_memory();
  DirectoryData in;
  set_name(in.host_name, "host0");
  in.gone_count = 5;
  write_directory(*memory, in);
  const uint32_t first = directory_generation(*memory);
  in.gone_count = 6;
  write_directory(*memory, in);
  EXPECT_NE(directory_generation(*memory), first);
  DirectoryData out;
  EXPECT_EQ(read_directory(*memory, out), directory_generation(*memory));
  EXPECT_EQ(out.gone_count, 6u);
  EXPECT_STREQ(out.host_name.data(), "host0");
}

TEST(Directory, ASuccessorFindsWhatWasFinishedLast) {
  const auto memory = make_memory();
  DirectoryData found;
  recover_directory(*memory, found);
  EXPECT_EQ(found.incarnation, 0u);
  DirectoryData data;
  data.incarnation = 7;
  data.gone_count = 1;
  write_directory(*memory, data);
  data.gone_count = 2;
  write_directory(*memory, data);
  recover_directory(*memory, found);
  EXPECT_EQ(found.gone_count, 2u);
  // Killed in the middle of the next write.
  Directory& directory = directory_of(*memory);
  directory.generation.fetch_add(1);
  directory.data.incarnation = 0;
  directory.data.gone_count = 3;
  recover_directory(*memory, found);
  EXPECT_EQ(found.incarnation, 7u);
  EXPECT_EQ(found.gone_count, 2u);
  // The successor's write makes it whole again.
  write_directory(*memory, found);
  EXPECT_EQ(read_directory(*memory, data), directory_generation(*memory));
  EXPECT_EQ(data.gone_count, 2u);
}

TEST(Directory, AReaderNeverSeesHalfAWrite) {
  const auto memory = make_memory();
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    DirectoryData data;
    for (uint64_t i = 1; !stop; i++) {
      data.incarnation = i;
      for (PeerEntry& peer : data.peers) peer.incarnation = i;
      data.gone_count = i;
      write_directory(*memory, data);
      std::this_thread::yield();
    }
  });
  DirectoryData seen;
  while (seen.incarnation == 0) read_directory(*memory, seen);
  int torn = 0;
  for (int reads = 0; reads < 2000; reads++) {
    read_directory(*memory, seen);
    torn += seen.gone_count != seen.incarnation ? 1 : 0;
    for (const PeerEntry& peer : seen.peers) torn += peer.incarnation != seen.incarnation ? 1 : 0;
  }
  stop = true;
  writer.join();
  EXPECT_EQ(torn, 0);
}

TEST(Directory, AWriterKilledInTheMiddleDoesNotHoldReadersUp) {
  const auto memory = make_memory();
  DirectoryData in;
  in.incarnation = 9;
  write_directory(*memory, in);
  directory_of(*memory).generation.fetch_add(1);  // as if it had begun another
  DirectoryData out;
  out.incarnation = 8;
  EXPECT_EQ(read_directory(*memory, out) % 2, 1u);
  EXPECT_EQ(out.incarnation, 8u);  // what the reader had is better than half of two states
  in.incarnation = 10;
  write_directory(*memory, in);  // the next daemon
  EXPECT_EQ(read_directory(*memory, out) % 2, 0u);
  EXPECT_EQ(out.incarnation, 10u);
}

TEST(Directory, LongNamesAreCut) {
  std::array<char, 64> name;
  name.fill('x');
  set_name(name, std::string(100, 'y'));
  EXPECT_EQ(std::string(name.data()), std::string(63, 'y'));
  set_name(name, "a");
  EXPECT_EQ(std::string(name.begin(), name.end()), "a" + std::string(63, '\0'));
}

TEST(Directory, APeerThatCameBackHasDeparted) {
  DirectoryData before;
  for (uint16_t i = 0; i < 3; ++i) {
    before.peers[i].known = true;
    before.peers[i].incarnation = 100u + i;
    before.peers[i].ports[0].lid = static_cast<uint16_t>(64 * (i + 1));
    before.peers[i].ports[2].lid = static_cast<uint16_t>(64 * (i + 1) + 2);
  }
  using Lids = std::vector<uint16_t>;
  const auto departed = [](const DirectoryData& then, const DirectoryData& later) {
    const LidList lids = departed_lids(then, later);
    return Lids(lids.all().begin(), lids.all().end());
  };
  EXPECT_EQ(departed({}, before), Lids{}) << "who came has not departed";
  EXPECT_EQ(departed(before, before), Lids{});
  DirectoryData now = before;
  std::swap(now.peers[0], now.peers[5]);
  EXPECT_EQ(departed(before, now), Lids{}) << "it is the incarnation that counts";
  now.peers[1].gone = true;
  now.peers[7] = before.peers[1];
  now.peers[7].incarnation = 200;
  EXPECT_EQ(departed(before, now), (Lids{128, 130})) << "though the LIDs are there again";
  now.peers[2] = {};
  EXPECT_EQ(departed(before, now), (Lids{128, 130, 192, 194}));
  before.peers[2].gone = true;
  EXPECT_EQ(departed(before, now), (Lids{128, 130})) << "that one had gone before";
}

}  // namespace
}  // namespace tbt::fabric
