// Any bytes as what a rail delivers: byte 0 the PDFs of the first frame, byte 1 those of a second
// one, bytes 2-3 how many of the rest are the second frame. The check would stop nearly every
// input, so a bit of byte 0 asks for it to be made right first.
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "wire/crc32c.h"
#include "wire/dissect.h"
#include "wire/frame.h"
#include "wire/packet.h"

namespace {

using namespace tbt::wire;

void mend_check(std::vector<std::byte>& head, std::span<const std::byte> payload) {
  if (head.size() < kFrameHeaderBytes + kCheckBytes) return;
  const size_t covered = head.size() - kCheckBytes;
  uint32_t state = crc32c_update(kCrc32cInit, std::span(head).first(covered));
  if (head[1] == std::byte{kFlagPayloadChecked}) state = crc32c_update(state, payload);
  tbt::base::store_be<uint32_t>(head.data() + covered, ~state);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(4);
  const size_t wanted = tbt::base::load_be<uint16_t>(std::as_bytes(std::span(data, 4)).data() + 2);
  const size_t second = wanted < bytes.size() ? wanted : bytes.size();
  // Vectors of the exact size, so that a read beyond a frame is one beyond an allocation.
  std::vector<std::byte> head(bytes.begin(), bytes.end() - static_cast<ptrdiff_t>(second));
  const std::vector<std::byte> payload(bytes.end() - static_cast<ptrdiff_t>(second), bytes.end());
  if (data[0] & 0x80) mend_check(head, payload);
  const RawFrame first{head, static_cast<uint8_t>((data[0] >> 3) & 7),
                       static_cast<uint8_t>(data[0] & 7)};
  const RawFrame rest{payload, static_cast<uint8_t>(data[1] >> 4),
                      static_cast<uint8_t>(data[1] & 15)};
  TBT_ASSERT(!describe(first, rest).empty());
  FrameView view;
  if (check_frame(first, rest, 0, true, view) != FrameError::kNone) return 0;
  TBT_ASSERT(view.bytes.size() + view.payload.size() == view.header.length);
  ParsedPacket parsed;
  if (parse_packet(view.bytes, view.header.length, parsed) != ParseError::kNone) return 0;
  if (!view.payload.empty()) TBT_ASSERT(parsed.payload_bytes <= view.payload.size());
  return 0;
}
