// Packets of a network interface over a Thunderbolt cable, as frames of thunderbolt-net: an
// Ethernet packet of at most 64 KiB is cut into frames of at most 4096 bytes, each with a header of
// twelve (docs/wire.md, section 6.8; Linux: drivers/net/thunderbolt/main.c). Frames of a packet
// come one after the other; where one is missing the packet is gone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace tbt::ip {

inline constexpr size_t kFrameHeaderBytes = 12;
inline constexpr size_t kFrameBytesMax = 4096;
inline constexpr size_t kFramePayloadMax = kFrameBytesMax - kFrameHeaderBytes;
inline constexpr size_t kPacketBytesMax = 65536;
// Linux sends no frame with less than it could hold but the last; more frames than this it refuses.
inline constexpr uint32_t kFrameCountMax = 64;

struct FrameHeader {
  uint32_t size = 0;   // of the payload that follows, 1..kFramePayloadMax
  uint16_t index = 0;  // of the frame in its packet
  uint16_t id = 0;     // of the packet, the same in all of its frames
  uint32_t count = 0;  // frames of the packet, 1..kFrameCountMax
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

// Of a frame whose payload is there and whose fields are in their ranges.
std::optional<FrameHeader> decode_frame_header(std::span<const std::byte> frame) noexcept;
// `out` has kFrameHeaderBytes.
void encode_frame_header(const FrameHeader& header, std::byte* out) noexcept;

struct AssemblyStats {
  uint64_t packets = 0;
  uint64_t malformed = 0;  // frames whose header cannot be, or whose packet would be too long
  uint64_t missed = 0;     // frames that do not go on from the one before
};

class PacketAssembly {
 public:
  PacketAssembly() { packet_.reserve(kPacketBytesMax); }

  // True: a packet is complete, packet() until the next call.
  bool add(std::span<const std::byte> frame);
  [[nodiscard]] std::span<const std::byte> packet() const noexcept { return packet_; }
  // What was begun is given up: a frame was lost, or another peer comes.
  void reset() noexcept;
  [[nodiscard]] const AssemblyStats& stats() const noexcept { return stats_; }

 private:
  bool begins(const FrameHeader& header) noexcept;

  std::vector<std::byte> packet_;
  std::optional<FrameHeader> last_;  // of the packet that is being put together
  AssemblyStats stats_;
};

// The frames of one packet, in order.
class PacketFrames {
 public:
  // The packet outlives it; 1..kPacketBytesMax bytes.
  PacketFrames(std::span<const std::byte> packet, uint16_t id) noexcept;
  [[nodiscard]] uint32_t count() const noexcept { return header_.count; }
  // Empty after the last one; valid until the next call.
  std::span<const std::byte> next() noexcept;

 private:
  std::span<const std::byte> left_;
  FrameHeader header_;
  std::array<std::byte, kFrameBytesMax> frame_;
};

}  // namespace tbt::ip
