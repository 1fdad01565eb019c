// CRC32C (Castagnoli, reflected polynomial 0x82f63b78), the check of every frame; docs/wire.md.
// Three forms of the same function, of which the fastest that the machine has is taken: a table, the
// instruction of SSE4.2 or ARMv8, and multiplication without carries on 512 bits (AVX-512 and
// VPCLMULQDQ: Ice Lake, Zen 4 and later), which checks and copies 4 KiB in about 70 ns instead of 250.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::wire {

inline constexpr uint32_t kCrc32cInit = 0xffffffff;

// Running form: start with kCrc32cInit, feed pieces in order, invert the result at the end.
uint32_t crc32c_update(uint32_t state, std::span<const std::byte> bytes) noexcept;

// Copies and feeds in one pass over the source.
uint32_t crc32c_copy(uint32_t state, std::byte* to, std::span<const std::byte> from) noexcept;

// For tests: one form. `form` must be one that this machine has.
enum class Crc32cForm : uint8_t { kTable, kInstruction, kFolding };
[[nodiscard]] bool has_crc32c_form(Crc32cForm form) noexcept;
uint32_t crc32c_update_by(Crc32cForm form, uint32_t state,
                          std::span<const std::byte> bytes) noexcept;
uint32_t crc32c_copy_by(Crc32cForm form, uint32_t state, std::byte* to,
                        std::span<const std::byte> from) noexcept;

inline uint32_t crc32c(std::span<const std::byte> bytes) noexcept {
  return ~crc32c_update(kCrc32cInit, bytes);
}

}  // namespace tbt::wire
