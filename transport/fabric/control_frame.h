// Control messages in frames (PDFs 4/4): what two daemons exchange on a cable. docs/wire.md is
// normative.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "rail/rail.h"

namespace tbt::fabric {

// Writes frame header, message and check into `out` (kFrameBytes) and returns the frame to commit.
rail::TxFrame encode_control_frame(std::span<const std::byte> message, uint32_t tag,
                                   std::byte* out) noexcept;

struct ControlFrame {
  uint32_t tag = 0;
  std::span<const std::byte> message;  // points into the frame
};
// False if it is no control frame or is damaged.
bool decode_control_frame(const rail::RxPacket& packet, ControlFrame& out) noexcept;

}  // namespace tbt::fabric
