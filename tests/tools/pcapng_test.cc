// Capture files: the blocks are well formed, and tshark finds interfaces, times, directions and
// packets.
#include "tbt/pcapng.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "wire/crc32c.h"
#include "wire/packet.h"

namespace tbt::tool {
namespace {

uint32_t word(const std::string& text, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, text.data() + at, sizeof value);
  return value;
}

std::vector<std::byte> sample_packet(uint32_t psn) {
  wire::PacketHeaders h;
  h.opcode = static_cast<uint8_t>(wire::Opcode::kRcSendOnly);
  h.slid = 64;
  h.dlid = 128;
  h.dest_qp = 0x40001;
  h.psn = psn;
  std::vector<std::byte> bytes(wire::kMaxHeaderBytes);
  bytes.resize(wire::encode_headers(h, 5, bytes));
  bytes.resize(bytes.size() + 8);  // 5 and the pad
  return bytes;
}

std::string sample_file() {
  PcapngEncoder encoder("test");
  EXPECT_EQ(encoder.add_interface("tbt0c0", "cable 0"), 0u);
  EXPECT_EQ(encoder.add_interface("tbt0c1", "cable 1"), 1u);
  for (uint32_t i = 0; i < 4; ++i) {
    const auto packet = sample_packet(i);
    encoder.add_packet(i / 2, {.time_ns = 1700000000123456789 + i,
                               .sent = i % 2 == 0,
                               .packet = packet,
                               .check = wire::crc32c(packet)});
  }
  encoder.add_statistics(0, 1700000001000000000, 9, 7);
  return encoder.take();
}

TEST(Pcapng, BlocksFollowEachOtherAndSayTheirLengthTwice) {
  const std::string file = sample_file();
  std::vector<uint32_t> types;
  size_t at = 0;
  while (at < file.size()) {
    ASSERT_LE(at + 12, file.size());
    const uint32_t length = word(file, at + 4);
    ASSERT_EQ(length % 4, 0u);
    ASSERT_LE(at + length, file.size());
    ASSERT_EQ(word(file, at + length - 4), length);
    types.push_back(word(file, at));
    at += length;
  }
  EXPECT_EQ(types, (std::vector<uint32_t>{0x0a0d0d0a, 1, 1, 6, 6, 6, 6, 5}));
}

TEST(Pcapng, TakeGivesEachByteOnce) {
  PcapngEncoder encoder("test");
  const std::string first = encoder.take();
  EXPECT_FALSE(first.empty());
  EXPECT_TRUE(encoder.take().empty());
  encoder.add_interface("a", "b");
  EXPECT_EQ(word(encoder.take(), 0), 1u);
}

class TsharkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access(TBT_TSHARK, X_OK) != 0) GTEST_SKIP() << "no tshark";
    const int fd = mkstemp(path_);
    const std::string file = sample_file();
    ASSERT_EQ(write(fd, file.data(), file.size()), static_cast<ssize_t>(file.size()));
    close(fd);
  }
  void TearDown() override { unlink(path_); }

  std::vector<std::string> lines(const std::string& arguments) {
    const std::string command =
        std::string(TBT_TSHARK) + " -n -r " + path_ + " " + arguments + " 2>/dev/null";
    FILE* pipe = popen(command.c_str(), "r");
    std::string text;
    std::array<char, 4096> buffer{};
    while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe))
      text.append(buffer.data(), n);
    EXPECT_EQ(pclose(pipe), 0) << command;
    std::vector<std::string> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(line);
    return all;
  }

 private:
  char path_[32] = "/tmp/tbt_pcapng_XXXXXX";
};

TEST_F(TsharkTest, FindsInterfacesTimesAndDirections) {
  const auto found = lines(
      "-T fields -E separator=, -e frame.interface_name -e frame.time_epoch -e "
      "frame.packet_flags_direction"
      " -e infiniband.bth.psn -e erf.types.type");
  ASSERT_EQ(found.size(), 4u);
  // Directions of the specification: 1 inbound, 2 outbound.
  EXPECT_EQ(found[0], "tbt0c0,1700000000.123456789,0x00000002,0,21");
  EXPECT_EQ(found[1], "tbt0c0,1700000000.123456790,0x00000001,1,21");
  EXPECT_EQ(found[2], "tbt0c1,1700000000.123456791,0x00000002,2,21");
  EXPECT_EQ(found[3], "tbt0c1,1700000000.123456792,0x00000001,3,21");
}

TEST_F(TsharkTest, FindsNothingMalformed) {
  // Wireshark's guess at RPC over RDMA reads 16 bytes of any RC SEND, and calls shorter ones
  // malformed.
  const std::string no_guess = "--disable-heuristic rpcrdma_infiniband ";
  EXPECT_TRUE(lines(no_guess + "-Y _ws.malformed").empty());
  EXPECT_EQ(lines(no_guess + "-Y infiniband.bth").size(), 4u);
}

}  // namespace
}  // namespace tbt::tool
