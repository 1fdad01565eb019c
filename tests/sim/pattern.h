// Pattern: the bytes of a message, made from its id, the same wherever they are computed. The first
// eight are the id itself; no two words of a message and no two messages are alike.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tbt::sim {

inline uint64_t pattern_word(uint64_t id, uint32_t index) noexcept {
  if (index == 0) return id;
  const uint64_t word = (id + index * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
  return word ^ word >> 29;
}

inline void fill(std::byte* to, uint64_t id, uint32_t bytes) noexcept {
  for (uint32_t at = 0; at < bytes; at += 8) {
    const uint64_t word = pattern_word(id, at / 8);
    std::memcpy(to + at, &word, std::min(bytes - at, 8u));
  }
}

inline bool holds(const std::byte* at, uint64_t id, uint32_t bytes) noexcept {
  uint64_t wrong = 0;
  uint32_t done = 0;
  for (; done + 8 <= bytes; done += 8) {
    uint64_t word = 0;
    std::memcpy(&word, at + done, 8);
    wrong |= word ^ pattern_word(id, done / 8);
  }
  const uint64_t tail = pattern_word(id, done / 8);
  return wrong == 0 && (done == bytes || std::memcmp(at + done, &tail, bytes - done) == 0);
}

}  // namespace tbt::sim
