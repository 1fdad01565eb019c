// CRC32C (Castagnoli, reflected polynomial 0x82f63b78), the check of every frame; docs/wire.md.
// Uses the SSE4.2 or ARMv8 instruction where the machine has it, a table otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::wire {

inline constexpr uint32_t kCrc32cInit = 0xffffffff;

// Running form: start with kCrc32cInit, feed pieces in order, invert the result at the end.
uint32_t crc32c_update(uint32_t state, std::span<const std::byte> bytes) noexcept;

// The form of machines without the instruction; the same result everywhere.
uint32_t crc32c_update_by_table(uint32_t state, std::span<const std::byte> bytes) noexcept;

// Copies and feeds in one pass over the source.
uint32_t crc32c_copy(uint32_t state, std::byte* to, std::span<const std::byte> from) noexcept;

inline uint32_t crc32c(std::span<const std::byte> bytes) noexcept {
  return ~crc32c_update(kCrc32cInit, bytes);
}

}  // namespace tbt::wire
