// FrameJoiner: puts a head frame and its payload frame, which a capture holds one after the other,
// together again. Frames that the host sent and frames that it received are interleaved, each
// direction in order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "rail/shared_rail.h"
#include "wire/frame.h"

namespace tbt::tool {

// One frame, or a head with its payload frame. The bytes are in the joiner until its next call.
struct JoinedFrame {
  int64_t time_ns = 0;
  bool sent = false;
  wire::RawFrame head;
  wire::RawFrame payload;  // bytes empty: there is none

  // False for control frames and for what is too short to be a frame.
  [[nodiscard]] bool has_packet() const noexcept;
  // From the LRH to the pad, whether or not it is valid.
  [[nodiscard]] std::vector<std::byte> packet() const;
  [[nodiscard]] uint32_t check() const noexcept;
};

class FrameJoiner {
 public:
  // Nothing if a payload frame must come first, or if this is a payload frame whose head is
  // missing.
  std::optional<JoinedFrame> add(const rail::CapturedFrame& frame,
                                 std::span<const std::byte> bytes);
  // Heads and payload frames that stayed without the other.
  [[nodiscard]] uint64_t orphans() const noexcept { return orphans_; }

 private:
  struct Stored {
    std::array<std::byte, wire::kFrameBytesMax> data;
    rail::CapturedFrame frame;
    bool waits = false;  // is a head whose payload frame has not come
  };
  static wire::RawFrame raw_of(const Stored& stored) noexcept;

  std::array<Stored, 2> heads_;  // [sent]
  Stored payload_;
  uint64_t orphans_ = 0;
};

}  // namespace tbt::tool
