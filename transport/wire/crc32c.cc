// The forms of CRC32C, chosen at the first call by what the machine has; the one on 512 bits is in
// crc32c_folding.cc.
//
// The x86 crc32 instruction takes three cycles but one can start in each, so long buffers are cut
// into three streams whose states are joined afterwards: appending N zero bytes to a message
// multiplies its CRC by x^(8N) modulo the polynomial, which is linear and so four table lookups for
// a fixed N. Copying rides along in the same loop (template parameter), since the bytes are in a
// register anyway.
#include "wire/crc32c.h"

#include <array>
#include <atomic>

#include "base/assert.h"
#include "base/bytes.h"
#include "wire/crc32c_folding.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace tbt::wire {
namespace {

// `to` is written only by the copying forms.
using Function = uint32_t (*)(uint32_t state, std::byte* to, const std::byte* from,
                              size_t n) noexcept;
using Table = std::array<std::array<uint32_t, 256>, 4>;

constexpr uint32_t kPolynomial = 0x82f63b78;

constexpr uint32_t times_x(uint32_t a) { return (a >> 1) ^ ((a & 1) != 0 ? kPolynomial : 0); }

// Slicing by 8: tables[k][b] is the state after byte b and k zero bytes.
constexpr std::array<std::array<uint32_t, 256>, 8> make_slices() {
  std::array<std::array<uint32_t, 256>, 8> slices{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = times_x(state);
    slices[0][byte] = state;
  }
  for (size_t k = 1; k < slices.size(); ++k) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = slices[k - 1][byte];
      slices[k][byte] = (before >> 8) ^ slices[0][before & 0xff];
    }
  }
  return slices;
}
constexpr auto kSlices = make_slices();

template <bool kCopy>
uint32_t run_table(uint32_t state, std::byte* to, const std::byte* from, size_t n) noexcept {
  for (; n >= 8; n -= 8, from += 8) {
    const auto word = base::load<uint64_t>(from);
    if constexpr (kCopy) {
      base::store(to, word);
      to += 8;
    }
    const uint64_t w = base::to_little(word) ^ state;
    state = 0;
    for (size_t i = 0; i < 8; ++i) state ^= kSlices[7 - i][(w >> (8 * i)) & 0xff];
  }
  for (; n > 0; --n, ++from) {
    if constexpr (kCopy) *to++ = *from;
    state = (state >> 8) ^ kSlices[0][(state ^ static_cast<uint8_t>(*from)) & 0xff];
  }
  return state;
}

#if defined(__x86_64__)

constexpr size_t kLongStream = 1024;
constexpr size_t kShortStream = 128;

constexpr Table make_shift(size_t zero_bytes) {
  Table table{};
  for (uint32_t bit = 0; bit < 32; ++bit) {
    uint32_t column = 1u << bit;
    for (size_t i = 0; i < zero_bytes; ++i) column = (column >> 8) ^ kSlices[0][column & 0xff];
    table[bit / 8][1u << (bit % 8)] = column;
  }
  for (auto& slice : table) {
    for (uint32_t v = 1; v < 256; ++v) slice[v] = slice[v & (v - 1)] ^ slice[v & (0u - v)];
  }
  return table;
}
constexpr Table kLongShift = make_shift(kLongStream);
constexpr Table kShortShift = make_shift(kShortStream);

inline uint32_t append_zeros(const Table& table, uint32_t state) noexcept {
  return table[0][state & 0xff] ^ table[1][(state >> 8) & 0xff] ^ table[2][(state >> 16) & 0xff] ^
         table[3][state >> 24];
}

template <bool kCopy>
__attribute__((target("sse4.2"))) inline uint64_t step(uint64_t state, std::byte* to,
                                                       const std::byte* from, size_t at) noexcept {
  const auto word = base::load<uint64_t>(from + at);
  if constexpr (kCopy) base::store(to + at, word);
  return _mm_crc32_u64(state, word);
}

template <bool kCopy, size_t kStream>
__attribute__((target("sse4.2"))) inline uint32_t three_streams(const Table& shift, uint32_t state,
                                                                std::byte* to,
                                                                const std::byte* from) noexcept {
  uint64_t a = state, b = 0, c = 0;
  for (size_t i = 0; i < kStream; i += 8) {
    a = step<kCopy>(a, to, from, i);
    b = step<kCopy>(b, to, from, kStream + i);
    c = step<kCopy>(c, to, from, 2 * kStream + i);
  }
  const uint32_t ab = append_zeros(shift, static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
  return append_zeros(shift, ab) ^ static_cast<uint32_t>(c);
}

// Headers and small payloads are all of this: one word per step and one counter. Frames end on four
// bytes (docs/wire.md), so single bytes are rare.
template <bool kCopy>
__attribute__((target("sse4.2"))) inline uint32_t run_short(uint32_t state, std::byte* to,
                                                            const std::byte* from,
                                                            size_t n) noexcept {
  size_t at = 0;
  uint64_t wide = state;
  for (; at + 8 <= n; at += 8) wide = step<kCopy>(wide, to, from, at);
  state = static_cast<uint32_t>(wide);
  if ((n & 4) != 0) {
    const auto half = base::load<uint32_t>(from + at);
    if constexpr (kCopy) base::store(to + at, half);
    state = _mm_crc32_u32(state, half);
    at += 4;
  }
  for (; at < n; ++at) {
    if constexpr (kCopy) to[at] = from[at];
    state = _mm_crc32_u8(state, static_cast<uint8_t>(from[at]));
  }
  return state;
}

template <bool kCopy>
__attribute__((target("sse4.2"))) uint32_t run_hardware(uint32_t state, std::byte* to,
                                                        const std::byte* from, size_t n) noexcept {
  const auto advance = [&](size_t bytes) {
    if constexpr (kCopy) to += bytes;
    from += bytes;
    n -= bytes;
  };
  while (n >= 3 * kLongStream) {
    state = three_streams<kCopy, kLongStream>(kLongShift, state, to, from);
    advance(3 * kLongStream);
  }
  while (n >= 3 * kShortStream) {
    state = three_streams<kCopy, kShortStream>(kShortShift, state, to, from);
    advance(3 * kShortStream);
  }
  return run_short<kCopy>(state, to, from, n);
}

bool machine_has_crc() noexcept { return __builtin_cpu_supports("sse4.2") != 0; }

#elif defined(__aarch64__) && defined(__linux__)

template <bool kCopy>
__attribute__((target("+crc"))) uint32_t run_hardware(uint32_t state, std::byte* to,
                                                      const std::byte* from, size_t n) noexcept {
  for (; n >= 8; n -= 8, from += 8) {
    const auto word = base::load<uint64_t>(from);
    if constexpr (kCopy) {
      base::store(to, word);
      to += 8;
    }
    state = __crc32cd(state, word);
  }
  for (; n > 0; --n, ++from) {
    if constexpr (kCopy) *to++ = *from;
    state = __crc32cb(state, static_cast<uint8_t>(*from));
  }
  return state;
}

bool machine_has_crc() noexcept { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }

#else

template <bool kCopy>
uint32_t run_hardware(uint32_t state, std::byte* to, const std::byte* from, size_t n) noexcept {
  return run_table<kCopy>(state, to, from, n);
}

bool machine_has_crc() noexcept { return false; }

#endif

// Long buffers are folded; what is left of them, and short ones, are the instruction's.
template <bool kCopy>
uint32_t run_folding(uint32_t state, std::byte* to, const std::byte* from, size_t n) noexcept {
  if (n < kFoldingMin) return run_hardware<kCopy>(state, to, from, n);
  size_t done = 0;
  if constexpr (kCopy) {
    done = crc32c_fold_copy(state, to, from, n);
    to += done;
  } else {
    done = crc32c_fold(state, from, n);
  }
  return run_hardware<kCopy>(state, to, from + done, n - done);
}

bool machine_has(Crc32cForm form) noexcept {
  switch (form) {
    case Crc32cForm::kTable: return true;
    case Crc32cForm::kInstruction: return machine_has_crc();
    case Crc32cForm::kFolding: return machine_has_crc() && machine_can_fold();
  }
  return false;
}

template <bool kCopy>
Function function_of(Crc32cForm form) noexcept {
  switch (form) {
    case Crc32cForm::kFolding: return &run_folding<kCopy>;
    case Crc32cForm::kInstruction: return &run_hardware<kCopy>;
    case Crc32cForm::kTable: break;
  }
  return &run_table<kCopy>;
}

// The pointers start at a function that replaces them: nothing runs when the library is loaded, and
// every thread that races here stores the same value.
template <bool kCopy>
uint32_t choose(uint32_t state, std::byte* to, const std::byte* from, size_t n) noexcept;

template <bool kCopy>
constinit std::atomic<Function> chosen{&choose<kCopy>};

template <bool kCopy>
uint32_t choose(uint32_t state, std::byte* to, const std::byte* from, size_t n) noexcept {
  Crc32cForm best = Crc32cForm::kTable;
  if (machine_has(Crc32cForm::kInstruction)) best = Crc32cForm::kInstruction;
  if (machine_has(Crc32cForm::kFolding)) best = Crc32cForm::kFolding;
  const Function function = function_of<kCopy>(best);
  chosen<kCopy>.store(function, std::memory_order_relaxed);
  return function(state, to, from, n);
}

}  // namespace

uint32_t crc32c_update(uint32_t state, std::span<const std::byte> bytes) noexcept {
  return chosen<false>.load(std::memory_order_relaxed)(state, nullptr, bytes.data(), bytes.size());
}

uint32_t crc32c_copy(uint32_t state, std::byte* to, std::span<const std::byte> from) noexcept {
  return chosen<true>.load(std::memory_order_relaxed)(state, to, from.data(), from.size());
}

bool has_crc32c_form(Crc32cForm form) noexcept { return machine_has(form); }

uint32_t crc32c_update_by(Crc32cForm form, uint32_t state,
                          std::span<const std::byte> bytes) noexcept {
  TBT_ASSERT(machine_has(form));
  return function_of<false>(form)(state, nullptr, bytes.data(), bytes.size());
}

uint32_t crc32c_copy_by(Crc32cForm form, uint32_t state, std::byte* to,
                        std::span<const std::byte> from) noexcept {
  TBT_ASSERT(machine_has(form));
  return function_of<true>(form)(state, to, from.data(), from.size());
}

}  // namespace tbt::wire
