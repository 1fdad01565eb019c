// Capture files: our packets in the pcapng format, as stock Wireshark reads them (docs/wire.md,
// section 5).
//
// An encoder, without files: blocks are appended to a text that the caller takes and writes away.
// Blocks are in this machine's byte order, which the section header announces; ERF headers are as
// their makers fixed them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tbt::tool {

// A packet as it passed a rail: from the LRH to the pad, and the check of its frame.
struct CapturedPacket {
  int64_t time_ns = 0;  // since 1970
  bool sent = false;    // by the host that captures
  std::span<const std::byte> packet;
  uint32_t check = 0;
};

class PcapngEncoder {
 public:
  // Begins the section: the first block of a file.
  explicit PcapngEncoder(const std::string& application);

  // Returns the interface's number, from 0 in the order of the calls.
  uint32_t add_interface(const std::string& name, const std::string& description);
  void add_packet(uint32_t interface, const CapturedPacket& packet);
  // At the end: what the interface saw and what of it is missing here.
  void add_statistics(uint32_t interface, int64_t time_ns, uint64_t seen, uint64_t lost);

  // The bytes since the last call.
  std::string take();

 private:
  struct Option {
    uint16_t code;
    std::string value;
  };
  void add_block(uint32_t type, const std::string& body, const std::vector<Option>& options);

  std::string bytes_;
  uint32_t interfaces_ = 0;
};

}  // namespace tbt::tool
