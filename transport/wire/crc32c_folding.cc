// A message is a polynomial over GF(2), and its CRC the remainder modulo P of that times x^32. A piece
// of 128 bits that stands d bits before another may be replaced by its product with (x^d mod P), added
// to the other: the remainder stays the same. So eight pieces (two registers) are carried through the
// message, each multiplied and added to the piece 1024 bits further on, until the message is used
// up; of what they then hold the crc32 instruction takes the remainder.
//
// Bits are reflected: the lowest bit of a word is the coefficient of the highest power. The product of
// two reflected 64-bit words comes out one bit short in 128, that is, times x; so constants are for
// d - 1. A constant of 32 bits stands in the upper half of its word.
#include "wire/crc32c_folding.h"

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tbt::wire {

#if defined(__x86_64__)

namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;
constexpr size_t kStep = 128;  // bytes: two registers

constexpr uint64_t power_of_x(unsigned exponent) {
  uint32_t a = 0x80000000;
  for (unsigned i = 0; i < exponent; ++i) a = (a >> 1) ^ ((a & 1) != 0 ? kPolynomial : 0);
  return uint64_t{a} << 32;
}

// Of a piece that is moved on by kBits: the factor of its earlier half, which is 64 bits further
// away, and that of its later half.
template <unsigned kBits>
struct Factors {
  static constexpr auto kEarlier = static_cast<long long>(power_of_x(kBits + 64 - 1));
  static constexpr auto kLater = static_cast<long long>(power_of_x(kBits - 1));
};

#define TBT_FOLDING __attribute__((target("avx512f,vpclmulqdq,sse4.2")))

template <unsigned kBits>
TBT_FOLDING inline __m512i fold(__m512i pieces, __m512i onto) noexcept {
  using F = Factors<kBits>;
  const __m512i factors = _mm512_set_epi64(F::kLater, F::kEarlier, F::kLater, F::kEarlier,
                                           F::kLater, F::kEarlier, F::kLater, F::kEarlier);
  const __m512i earlier = _mm512_clmulepi64_epi128(pieces, factors, 0x00);
  const __m512i later = _mm512_clmulepi64_epi128(pieces, factors, 0x11);
  constexpr int kXorOfThree = 0x96;
  return _mm512_ternarylogic_epi64(earlier, later, onto, kXorOfThree);
}

template <bool kCopy>
TBT_FOLDING inline __m512i take(std::byte* to, const std::byte* from, size_t at) noexcept {
  const __m512i bytes = _mm512_loadu_si512(from + at);
  if constexpr (kCopy) _mm512_storeu_si512(to + at, bytes);
  return bytes;
}

template <bool kCopy>
TBT_FOLDING size_t fold_all(uint32_t& state, std::byte* to, const std::byte* from,
                            size_t n) noexcept {
  // The state is added to the first 32 bits of what follows.
  const __m512i start = _mm512_maskz_set1_epi32(1, static_cast<int>(state));
  __m512i a = _mm512_xor_si512(take<kCopy>(to, from, 0), start);
  __m512i b = take<kCopy>(to, from, kStep / 2);
  size_t at = kStep;
  for (; at + kStep <= n; at += kStep) {
    a = fold<1024>(a, take<kCopy>(to, from, at));
    b = fold<1024>(b, take<kCopy>(to, from, at + kStep / 2));
  }
  std::array<uint64_t, 8> words;
  _mm512_storeu_si512(words.data(), fold<512>(a, b));
  uint64_t remainder = 0;
  for (const uint64_t word : words) remainder = _mm_crc32_u64(remainder, word);
  state = static_cast<uint32_t>(remainder);
  return at;
}

}  // namespace

bool machine_can_fold() noexcept {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("vpclmulqdq") != 0;
}

size_t crc32c_fold(uint32_t& state, const std::byte* from, size_t n) noexcept {
  return fold_all<false>(state, nullptr, from, n);
}

size_t crc32c_fold_copy(uint32_t& state, std::byte* to, const std::byte* from, size_t n) noexcept {
  return fold_all<true>(state, to, from, n);
}

#else

bool machine_can_fold() noexcept { return false; }
size_t crc32c_fold(uint32_t&, const std::byte*, size_t) noexcept { return 0; }
size_t crc32c_fold_copy(uint32_t&, std::byte*, const std::byte*, size_t) noexcept { return 0; }

#endif

}  // namespace tbt::wire
