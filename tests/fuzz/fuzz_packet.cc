// Any bytes as a packet. The first two bytes are the packet's claimed size, so that head frames
// (whose bytes are only the beginning) are reached too. What is accepted must add up and encode to
// the same headers.
#include <array>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "wire/dissect.h"
#include "wire/packet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tbt::wire;
  if (size < 2) return 0;
  const auto bytes = std::as_bytes(std::span(data, size));
  const size_t claimed = tbt::base::load_be<uint16_t>(bytes.data());
  const auto packet = bytes.subspan(2);
  ParsedPacket parsed;
  if (parse_packet(packet, claimed, parsed) != ParseError::kNone) return 0;
  TBT_ASSERT(parsed.header_bytes <= packet.size());
  TBT_ASSERT(parsed.header_bytes + parsed.payload_bytes + parsed.headers.pad == claimed);
  TBT_ASSERT(!describe(parsed).empty());
  std::array<std::byte, kMaxHeaderBytes> again{};
  const size_t n = encode_headers(parsed.headers, parsed.payload_bytes, again);
  TBT_ASSERT(n == parsed.header_bytes);
  ParsedPacket second;
  // A sender pads as little as it can; a receiver takes any pad, so only then the lengths differ.
  const size_t least = n + ((parsed.payload_bytes + 3) & ~size_t{3});
  TBT_ASSERT(parse_packet(std::span(again).first(n), least, second) == ParseError::kNone);
  TBT_ASSERT(second.headers.psn == parsed.headers.psn &&
             second.headers.dest_qp == parsed.headers.dest_qp);
  return 0;
}
