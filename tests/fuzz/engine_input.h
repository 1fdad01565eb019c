// The fuzzer's bytes as a row of choices. When they are used up every choice is 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : bytes_(data, size) {}

  [[nodiscard]] bool done() const noexcept { return at_ == bytes_.size(); }
  uint8_t byte() noexcept { return done() ? uint8_t{0} : bytes_[at_++]; }
  uint32_t below(uint32_t bound) noexcept { return byte() % bound; }
  uint32_t word() noexcept {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }
  template <typename T, size_t N>
  T pick(const T (&choices)[N]) noexcept {
    return choices[below(N)];
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

}  // namespace tbt::fuzz
