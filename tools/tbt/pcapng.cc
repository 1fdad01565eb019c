#include "tbt/pcapng.h"

#include <utility>

#include "base/bytes.h"

namespace tbt::tool {
namespace {

// Block types, options and values of the pcapng specification.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kInterfaceDescription = 1;
constexpr uint32_t kInterfaceStatistics = 5;
constexpr uint32_t kEnhancedPacket = 6;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr uint16_t kApplication = 4;
constexpr uint16_t kName = 2, kDescription = 3, kTimeResolution = 9;
constexpr uint16_t kFlags = 2;
constexpr uint16_t kReceived = 4, kDropped = 5;
constexpr uint32_t kInbound = 1, kOutbound = 2;
constexpr char kNanoseconds = 9;

// Link type and record type under which Wireshark finds InfiniBand packets.
constexpr uint16_t kLinkTypeErf = 197;
constexpr uint8_t kErfInfiniband = 21;
constexpr uint8_t kErfVaryingLength = 4;
constexpr size_t kErfHeaderBytes = 16;
constexpr size_t kVcrcBytes = 2;
constexpr int64_t kNsPerSecond = 1000000000;

template <typename T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
std::string text_of(T value) {
  std::string text;
  put(text, value);
  return text;
}

template <typename T>
void put_be(std::string& to, T value) {
  put(to, base::to_big(value));
}

void pad(std::string& text) { text.resize((text.size() + 3) & ~size_t{3}); }

// Seconds in the upper, their fraction in the lower 32 bits.
uint64_t erf_time(int64_t time_ns) {
  const auto seconds = static_cast<uint64_t>(time_ns / kNsPerSecond);
  const auto rest = static_cast<uint64_t>(time_ns % kNsPerSecond);
  return (seconds << 32) | ((rest << 32) / kNsPerSecond);
}

std::string erf_record(uint32_t interface, const CapturedPacket& p) {
  const size_t wire_bytes = p.packet.size() + sizeof p.check + kVcrcBytes;
  std::string record;
  put(record, base::to_little(erf_time(p.time_ns)));
  put(record, kErfInfiniband);
  put(record, static_cast<uint8_t>(kErfVaryingLength | (interface & 3)));
  put_be(record, static_cast<uint16_t>(kErfHeaderBytes + wire_bytes));
  put_be(record, uint16_t{0});  // none lost between this record and the one before
  put_be(record, static_cast<uint16_t>(wire_bytes));
  record.append(reinterpret_cast<const char*>(p.packet.data()), p.packet.size());
  put_be(record, p.check);
  record.append(kVcrcBytes, '\0');
  return record;
}

void put_time(std::string& body, int64_t time_ns) {
  put(body, static_cast<uint32_t>(static_cast<uint64_t>(time_ns) >> 32));
  put(body, static_cast<uint32_t>(time_ns));
}

}  // namespace

PcapngEncoder::PcapngEncoder(const std::string& application) {
  std::string body;
  put(body, kByteOrderMagic);
  put(body, uint16_t{1});  // version 1.0
  put(body, uint16_t{0});
  put(body, int64_t{-1});  // the section's length is not said
  add_block(kSectionHeader, body, {{kApplication, application}});
}

uint32_t PcapngEncoder::add_interface(const std::string& name, const std::string& description) {
  std::string body;
  put(body, kLinkTypeErf);
  put(body, uint16_t{0});
  put(body, uint32_t{0});  // packets are never cut
  add_block(kInterfaceDescription, body,
            {{kName, name}, {kDescription, description}, {kTimeResolution, {kNanoseconds}}});
  return interfaces_++;
}

void PcapngEncoder::add_packet(uint32_t interface, const CapturedPacket& packet) {
  const std::string record = erf_record(interface, packet);
  const auto size = static_cast<uint32_t>(record.size());
  std::string body;
  put(body, interface);
  put_time(body, packet.time_ns);
  put(body, size);
  put(body, size);
  body += record;
  pad(body);
  add_block(kEnhancedPacket, body, {{kFlags, text_of(packet.sent ? kOutbound : kInbound)}});
}

void PcapngEncoder::add_statistics(uint32_t interface, int64_t time_ns, uint64_t seen,
                                   uint64_t lost) {
  std::string body;
  put(body, interface);
  put_time(body, time_ns);
  add_block(kInterfaceStatistics, body, {{kReceived, text_of(seen)}, {kDropped, text_of(lost)}});
}

std::string PcapngEncoder::take() { return std::exchange(bytes_, {}); }

void PcapngEncoder::add_block(uint32_t type, const std::string& body,
                              const std::vector<Option>& options) {
  std::string tail;
  for (const Option& option : options) {
    put(tail, option.code);
    put(tail, static_cast<uint16_t>(option.value.size()));
    tail += option.value;
    pad(tail);
  }
  put(tail, uint32_t{0});  // end of the options
  const auto total = static_cast<uint32_t>(3 * sizeof(uint32_t) + body.size() + tail.size());
  put(bytes_, type);
  put(bytes_, total);
  bytes_ += body;
  bytes_ += tail;
  put(bytes_, total);
}

}  // namespace tbt::tool
