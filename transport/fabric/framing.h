// Between packets and rail frames: where the frame header, the headers, the payload and the check
// stand (docs/wire.md, wire/frame.h). The payload is copied and checked in one pass on each side,
// or checked where it lies when the controller reads it there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "rail/rail.h"
#include "wire/frame.h"
#include "wire/packet.h"

namespace tbt::fabric {

// Frames that a packet may need: a head and its payload frame.
inline constexpr size_t kFramesPerPacketMax = 2;

// Writes a packet into the first of `buffers`, or into both if it does not fit one frame, fills in
// `frames` and returns how many were used. `payload` is the packet's payload in pieces, at most
// 4096 bytes together. With an IOVA, `payload` is one piece that the controller finds there: if it
// is what makes a payload frame, that one leaves straight from it and is not copied.
size_t write_packet(const wire::PacketHeaders& headers,
                    std::span<const std::span<const std::byte>> payload, uint32_t payload_bytes,
                    uint32_t tag, std::span<std::byte* const, kFramesPerPacketMax> buffers,
                    std::span<rail::TxFrame, kFramesPerPacketMax> frames,
                    uint64_t payload_iova = 0) noexcept;

// Why a received frame was not a packet for us.
struct FramingStats {
  std::array<uint64_t, 7> bad_frame{};   // by wire::FrameError
  std::array<uint64_t, 6> bad_packet{};  // by wire::ParseError
};

// Checks and parses what a rail delivered. False, and counted, if it is not a good packet of this
// session; `tag` 0 is none, and takes nothing.
bool read_packet(const rail::RxPacket& received, uint32_t tag, FramingStats& stats,
                 wire::ParsedPacket& packet, std::span<const std::byte>& payload) noexcept;

}  // namespace tbt::fabric
