// The native frame: how an InfiniBand packet, or a message between two hosts, stands in Thunderbolt
// frames.
//
//   whole   SOF 1 EOF 1   [frame header 8][LRH .. ext][payload][pad][check 4]
//   head    SOF 1 EOF 2   [frame header 8][LRH .. ext][check 4]     followed directly by:
//   payload SOF 3 EOF 3   [payload][pad]
//   control SOF 4 EOF 4   [frame header 8][message][check 4]
//
// Each is at most 4096 bytes.
// The check is CRC32C over everything before it and, when kFlagPayloadChecked is set, over payload
// and pad too; big endian. The tag is the low 32 bits of the session that the two hosts agreed on
// in their hello, so a frame of an earlier incarnation is dropped. docs/wire.md is normative.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::wire {

inline constexpr size_t kFrameBytesMax = 4096;
inline constexpr size_t kFrameHeaderBytes = 8;
inline constexpr size_t kCheckBytes = 4;
inline constexpr uint8_t kFrameVersion = 1;

enum Pdf : uint8_t {
  kSofPacket = 1,
  kSofPayload = 3,
  kSofControl = 4,
  kEofWhole = 1,
  kEofHead = 2,
  kEofPayload = 3,
  kEofControl = 4,
};

enum FrameFlags : uint8_t { kFlagPayloadChecked = 1 };

struct FrameHeader {
  uint8_t version = kFrameVersion;  // byte 0
  uint8_t flags = 0;                // byte 1
  uint16_t length = 0;  // bytes 2-3: packet (LRH to pad) or message, without header and check
  uint32_t tag = 0;     // bytes 4-7
};

void encode_frame_header(const FrameHeader& header, std::byte* out) noexcept;
FrameHeader decode_frame_header(const std::byte* in) noexcept;

enum class FrameError : uint8_t {
  kNone,
  kTruncated,
  kBadVersion,
  kBadPdf,
  kBadLength,
  kStaleTag,
  kBadCheck
};
const char* frame_error_name(FrameError error) noexcept;

// A received frame or pair of frames, checked. The spans point into the frames.
struct FrameView {
  FrameHeader header;
  // Packet from the LRH (whole frame: to the pad; head: to the last header), or message.
  std::span<const std::byte> bytes;
  std::span<const std::byte> payload;  // of the payload frame, with pad; empty otherwise
};

struct RawFrame {
  std::span<const std::byte> bytes;
  uint8_t sof = 0;
  uint8_t eof = 0;
};

// Checks one whole or control frame, or a head with its payload frame (`payload.bytes` empty
// otherwise). `tag` is the session's; frames with another are kStaleTag unless `accept_any_tag`
// (hello needs that).
FrameError check_frame(const RawFrame& head, const RawFrame& payload, uint32_t tag,
                       bool accept_any_tag, FrameView& out) noexcept;

}  // namespace tbt::wire
