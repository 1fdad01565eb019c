// The ring pair by which the daemon exchanges frames with a peer's thunderbolt-net over one cable:
// frame mode, SOF 1 and EOF 2 in every frame, no end-to-end flow control (Linux sends without it).
#pragma once

#include <cstdint>

#include "rail/nhi/owned_ring.h"
#include "rail/shared_state.h"

namespace tbt::rail::nhi {

inline constexpr uint8_t kIpFrameSof = 1, kIpFrameEof = 2;
static_assert(owned_ring_bytes(kIpRingEntries, kFrameBytes) == kIpRingBytes);

// Behind the rails' rings: that of the host's first cable.
constexpr uint32_t first_ip_ring(const Quirks& quirks, uint32_t cables) noexcept {
  return quirks.first_data_ring() + cables;
}

// Of port `port`, which may use the memory's share for it: port < memory.cables().
inline OwnedRingShape ip_ring_shape(HostMemory& memory, uint32_t hop, uint32_t port) noexcept {
  return {.hop = hop,
          .entries = kIpRingEntries,
          .buffer_bytes = kFrameBytes,
          .sof_mask = 1u << kIpFrameSof,
          .eof_mask = 1u << kIpFrameEof,
          .memory_offset = RailMemory::ip_ring_offset(memory, port)};
}

}  // namespace tbt::rail::nhi
