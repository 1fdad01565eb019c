// Byte order: loads and stores of big and little endian integers at any alignment. Bounds are the
// caller's duty; wire/ checks a length once and then uses these.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tbt::base {

template <typename T>
inline T load(const std::byte* p) noexcept {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename T>
inline void store(std::byte* p, T v) noexcept {
  std::memcpy(p, &v, sizeof v);
}

constexpr uint16_t byteswap(uint16_t v) noexcept { return __builtin_bswap16(v); }
constexpr uint32_t byteswap(uint32_t v) noexcept { return __builtin_bswap32(v); }
constexpr uint64_t byteswap(uint64_t v) noexcept { return __builtin_bswap64(v); }

template <typename T>
constexpr T to_big(T v) noexcept {
  return std::endian::native == std::endian::little ? byteswap(v) : v;
}
template <typename T>
constexpr T to_little(T v) noexcept {
  return std::endian::native == std::endian::little ? v : byteswap(v);
}

template <typename T>
inline T load_be(const std::byte* p) noexcept {
  return to_big(load<T>(p));
}
template <typename T>
inline T load_le(const std::byte* p) noexcept {
  return to_little(load<T>(p));
}
template <typename T>
inline void store_be(std::byte* p, T v) noexcept {
  store(p, to_big(v));
}
template <typename T>
inline void store_le(std::byte* p, T v) noexcept {
  store(p, to_little(v));
}

}  // namespace tbt::base
