// Frame header and the checks on what a rail delivered. The order of the checks is that of
// docs/wire.md: shape, version, length, check, and only then the tag, so that a damaged tag counts
// as damage.
#include "wire/frame.h"

#include "base/bytes.h"
#include "wire/crc32c.h"

namespace tbt::wire {
namespace {

constexpr uint8_t kKnownFlags = kFlagPayloadChecked;

bool shape_is_legal(const RawFrame& head, const RawFrame& payload) noexcept {
  const bool has_payload = !payload.bytes.empty();
  if (head.sof == kSofPacket && head.eof == kEofHead) {
    return has_payload && payload.sof == kSofPayload && payload.eof == kEofPayload;
  }
  if (has_payload) return false;
  return (head.sof == kSofPacket && head.eof == kEofWhole) ||
         (head.sof == kSofControl && head.eof == kEofControl);
}

bool check_matches(std::span<const std::byte> head, std::span<const std::byte> payload,
                   uint8_t flags) noexcept {
  const size_t covered = head.size() - kCheckBytes;
  uint32_t state = crc32c_update(kCrc32cInit, head.first(covered));
  if (flags & kFlagPayloadChecked) state = crc32c_update(state, payload);
  return ~state == base::load_be<uint32_t>(head.data() + covered);
}

}  // namespace

void encode_frame_header(const FrameHeader& header, std::byte* out) noexcept {
  out[0] = static_cast<std::byte>(header.version);
  out[1] = static_cast<std::byte>(header.flags);
  base::store_be<uint16_t>(out + 2, header.length);
  base::store_be<uint32_t>(out + 4, header.tag);
}

FrameHeader decode_frame_header(const std::byte* in) noexcept {
  FrameHeader header;
  header.version = static_cast<uint8_t>(in[0]);
  header.flags = static_cast<uint8_t>(in[1]);
  header.length = base::load_be<uint16_t>(in + 2);
  header.tag = base::load_be<uint32_t>(in + 4);
  return header;
}

FrameError check_frame(const RawFrame& head, const RawFrame& payload, uint32_t tag,
                       bool accept_any_tag, FrameView& out) noexcept {
  if (!shape_is_legal(head, payload)) return FrameError::kBadPdf;
  const size_t size = head.bytes.size();
  if (size < kFrameHeaderBytes + kCheckBytes) return FrameError::kTruncated;
  if (size > kFrameBytesMax || payload.bytes.size() > kFrameBytesMax) return FrameError::kBadLength;
  out.header = decode_frame_header(head.bytes.data());
  if (out.header.version != kFrameVersion || (out.header.flags & ~kKnownFlags) != 0) {
    return FrameError::kBadVersion;
  }
  const size_t carried = size - kFrameHeaderBytes - kCheckBytes;
  if (out.header.length != carried + payload.bytes.size()) return FrameError::kBadLength;
  if (!check_matches(head.bytes, payload.bytes, out.header.flags)) return FrameError::kBadCheck;
  if (!accept_any_tag && out.header.tag != tag) return FrameError::kStaleTag;
  out.bytes = head.bytes.subspan(kFrameHeaderBytes, carried);
  out.payload = payload.bytes;
  return FrameError::kNone;
}

const char* frame_error_name(FrameError error) noexcept {
  switch (error) {
    case FrameError::kNone:
      return "none";
    case FrameError::kTruncated:
      return "truncated";
    case FrameError::kBadVersion:
      return "bad version";
    case FrameError::kBadPdf:
      return "bad pdf";
    case FrameError::kBadLength:
      return "bad length";
    case FrameError::kStaleTag:
      return "stale tag";
    case FrameError::kBadCheck:
      return "bad check";
  }
  return "?";
}

}  // namespace tbt::wire
