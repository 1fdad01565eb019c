// CRC32C by multiplication without carries, on 512 bits at a time; for wire/crc32c.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tbt::wire {

// Whether processor and kernel have AVX-512 and VPCLMULQDQ.
[[nodiscard]] bool machine_can_fold() noexcept;

// Below this the crc32 instruction is as fast.
inline constexpr size_t kFoldingMin = 256;

// Carries `state` over the whole 128-byte pieces at the front of a buffer of at least kFoldingMin
// bytes, and returns the bytes taken. Only where machine_can_fold().
size_t crc32c_fold(uint32_t& state, const std::byte* from, size_t n) noexcept;
// The same, and copies what it takes.
size_t crc32c_fold_copy(uint32_t& state, std::byte* to, const std::byte* from, size_t n) noexcept;

}  // namespace tbt::wire
