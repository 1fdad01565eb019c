// Stock Wireshark reads our packets: a capture file with one packet of every opcode is given to
// tshark, which must find the opcode, the addresses and the extension headers in it and call
// nothing malformed. Exits with 77 (skipped) where there is no tshark.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "samples.h"

namespace tbt::wire {
namespace {

using testing::build_packet;
using testing::sample_headers;

// Wireshark 4.0 knows no LINKTYPE_INFINIBAND (247) in capture files; what it reads is InfiniBand
// packets in ERF records (16 bytes before each packet, docs/wire.md).
constexpr uint32_t kLinkTypeErf = 197;
constexpr uint8_t kErfInfiniband = 21;
constexpr uint8_t kErfVaryingLength = 4;
constexpr size_t kErfBytes = 16;

struct Packet {
  uint8_t opcode;
  bool grh;
  uint32_t payload;
};

std::vector<Packet> packets() {
  std::vector<Packet> all;
  for (uint8_t opcode : testing::known_opcodes()) {
    for (bool grh : {false, true}) {
      all.push_back({opcode, grh, opcode_has(opcode, kOpPayload) ? 61u : 0u});
    }
  }
  all.push_back({static_cast<uint8_t>(Opcode::kRcWriteFirst), true, 4096});
  return all;
}

void put(std::string& file, uint32_t v) {
  file.append(reinterpret_cast<const char*>(&v), sizeof v);
}

// Classic pcap in this machine's byte order, which the magic number announces.
std::string pcap_of(const std::vector<Packet>& all) {
  std::string file;
  for (uint32_t v : {0xa1b2c3d4u, 0x00040002u, 0u, 0u, 65535u, kLinkTypeErf}) put(file, v);
  for (const Packet& p : all) {
    auto bytes = build_packet(sample_headers(p.opcode, p.grh), p.payload);
    testing::append_check(bytes, crc32c(bytes));
    bytes.resize(bytes.size() + 2);  // VCRC
    std::vector<std::byte> record(kErfBytes);
    record[8] = std::byte{kErfInfiniband};
    record[9] = std::byte{kErfVaryingLength};
    base::store_be<uint16_t>(&record[10], static_cast<uint16_t>(kErfBytes + bytes.size()));
    base::store_be<uint16_t>(&record[14], static_cast<uint16_t>(bytes.size()));
    record.insert(record.end(), bytes.begin(), bytes.end());
    const auto size = static_cast<uint32_t>(record.size());
    for (uint32_t v : {1u, 0u, size, size}) put(file, v);
    file.append(reinterpret_cast<const char*>(record.data()), record.size());
  }
  return file;
}

class Capture {
 public:
  explicit Capture(const std::string& contents) {
    char name[] = "/tmp/tbt_wire_XXXXXX";
    const int fd = mkstemp(name);
    path_ = name;
    EXPECT_EQ(write(fd, contents.data(), contents.size()), static_cast<ssize_t>(contents.size()));
    close(fd);
  }
  ~Capture() { unlink(path_.c_str()); }

  // One string per packet: the asked fields, separated by commas.
  std::vector<std::string> fields(const std::string& names) const {
    const std::string command = std::string(TBT_TSHARK) + " -n -r " + path_ +
                                " -T fields -E separator=, -E occurrence=f" + names +
                                " 2>/dev/null";
    FILE* pipe = popen(command.c_str(), "r");
    std::string text;
    std::array<char, 4096> buffer{};
    while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe))
      text.append(buffer.data(), n);
    EXPECT_EQ(pclose(pipe), 0) << command;
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }

 private:
  std::string path_;
};

// Wireshark 4.0 does not dissect our own opcodes, nor those of XRC, FLUSH and ATOMIC WRITE, beyond
// the BTH.
bool dissected(uint8_t opcode) {
  return (opcode_info(opcode).flags & (kOpControl | kOpFeth | kOpAtomicWrite)) == 0 &&
         opcode_service(opcode) != opcode_service(kXrcBase);
}

// The fields that FindsTheExtensionHeadersOfEveryOpcode asks for, as tshark prints the values of
// samples.h.
std::string expected_extensions(const Packet& p) {
  const uint32_t flags = dissected(p.opcode) ? opcode_info(p.opcode).flags : 0;
  std::string line;
  line += flags & (kOpReth | kOpAtomicEth) ? "0x1122334455667788," : ",";
  line += flags & kOpReth ? "74565," : ",";
  line += flags & kOpAtomicEth ? "1230066625199609624," : ",";
  line += flags & kOpAtomicAckEth ? "2387509390608836392," : ",";
  line += flags & kOpDeth ? "0x00654321," : ",";
  const bool aeth = (flags & kOpAeth) != 0 && (flags & kOpControl) == 0;  // not in our opcodes
  line += aeth ? "43981," : ",";
  line += flags & kOpImm ? "31323334," : ",";
  if (p.grh) line += "773615";
  return line;
}

TEST(Tshark, FindsTheFieldsOfEveryOpcode) {
  const auto all = packets();
  const Capture capture(pcap_of(all));
  const auto lines = capture.fields(
      " -e infiniband.bth.opcode -e infiniband.lrh.dlid -e infiniband.lrh.slid -e "
      "infiniband.bth.psn"
      " -e infiniband.bth.destqp -e infiniband.bth.padcnt");
  ASSERT_EQ(lines.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const uint32_t pad = testing::padded(all[i].payload) - all[i].payload;
    EXPECT_EQ(lines[i], std::to_string(all[i].opcode) + ",129,65," + std::to_string(0xfedcba) +
                            ",0x123456," + std::to_string(pad))
        << i;
  }
}

TEST(Tshark, FindsTheExtensionHeadersOfEveryOpcode) {
  const auto all = packets();
  const Capture capture(pcap_of(all));
  const auto lines = capture.fields(
      " -e infiniband.reth.va -e infiniband.reth.dmalen -e infiniband.atomiceth.cmpdt"
      " -e infiniband.atomicacketh.origremdt -e infiniband.deth.srcqp -e infiniband.aeth.msn"
      " -e infiniband.immdt -e infiniband.grh.flowlabel");
  ASSERT_EQ(lines.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(lines[i], expected_extensions(all[i])) << opcode_info(all[i].opcode).name;
  }
}

// Wireshark looks for the ICRC where the lengths say it is: there our check must stand.
TEST(Tshark, FindsTheCheckInThePlaceOfTheIcrc) {
  const auto all = packets();
  const Capture capture(pcap_of(all));
  const auto lines = capture.fields(" -e infiniband.invariant.crc");
  ASSERT_EQ(lines.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    char expected[16];
    const uint32_t check =
        crc32c(build_packet(sample_headers(all[i].opcode, all[i].grh), all[i].payload));
    std::snprintf(expected, sizeof expected, "0x%08x", check);
    EXPECT_EQ(lines[i], dissected(all[i].opcode) ? expected : "")
        << opcode_info(all[i].opcode).name;
  }
}

TEST(Tshark, CallsNothingMalformed) {
  const auto all = packets();
  const Capture capture(pcap_of(all));
  const auto lines = capture.fields(" -e frame.protocols -e _ws.malformed -e _ws.expert.message");
  ASSERT_EQ(lines.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(lines[i].rfind("erf:infiniband", 0), 0u) << lines[i];
    EXPECT_EQ(lines[i].find("alformed"), std::string::npos) << lines[i];
    EXPECT_EQ(lines[i].substr(lines[i].find(',')), ",,")
        << opcode_info(all[i].opcode).name << lines[i];
  }
}

}  // namespace
}  // namespace tbt::wire

int main(int argc, char** argv) {
  if (access(TBT_TSHARK, X_OK) != 0) {
    std::puts("skipped: no tshark");
    return 77;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
