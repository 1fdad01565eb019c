// Rng: a small seeded generator (xoshiro256**, Blackman and Vigna, public domain algorithm), the same
// sequence on every platform. The engine and the simulator draw only from this.
#pragma once

#include <bit>
#include <cstdint>

namespace tbt {

class Rng {
 public:
  explicit constexpr Rng(uint64_t seed) noexcept {
    for (uint64_t& word : state_) word = splitmix(seed);
  }

  constexpr uint64_t next() noexcept {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound); bound > 0. The bias of the multiply-shift is below 2^-32.
  constexpr uint32_t below(uint32_t bound) noexcept {
    return static_cast<uint32_t>(((next() >> 32) * bound) >> 32);
  }

  // True with probability parts_per_million / 10^6.
  constexpr bool chance_ppm(uint32_t parts_per_million) noexcept {
    return parts_per_million != 0 && below(1000000) < parts_per_million;
  }

 private:
  static constexpr uint64_t splitmix(uint64_t& seed) noexcept {
    uint64_t z = (seed += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  uint64_t state_[4] = {};
};

}  // namespace tbt
