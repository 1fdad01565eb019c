// Control packets and property blocks are sequences of 32-bit words. Codecs work on their values;
// control_packet.cc alone turns them into big endian bytes and back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/assert.h"
#include "wire/tb/uuid.h"

namespace tbt::wire::tb {

// A sequence of bounded length without allocation. What is not used stays 0, so that equal
// sequences are equal objects.
template <size_t kMax>
class DwordList {
 public:
  void push(uint32_t value) {
    TBT_ASSERT(count_ < kMax);
    values_[count_++] = value;
  }
  void push(const Uuid& uuid) {
    for (unsigned i = 0; i < 4; ++i) push(uuid_dword(uuid, i));
  }
  void push(std::span<const uint32_t> values) {
    for (const uint32_t value : values) push(value);
  }
  [[nodiscard]] size_t size() const noexcept { return count_; }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::span<const uint32_t> span() const noexcept { return {values_.data(), count_}; }

  friend bool operator==(const DwordList&, const DwordList&) = default;

 private:
  std::array<uint32_t, kMax> values_{};
  size_t count_ = 0;
};

// Takes words from the front. Past the end it yields zeros and remembers it.
class DwordReader {
 public:
  explicit DwordReader(std::span<const uint32_t> words) : rest_(words) {}

  uint32_t take() {
    const std::span<const uint32_t> word = take(1);
    return word.empty() ? 0 : word[0];
  }
  Uuid take_uuid() {
    const std::span<const uint32_t> words = take(4);
    return words.empty() ? Uuid{} : uuid_from_dwords({words[0], words[1], words[2], words[3]});
  }
  std::span<const uint32_t> take(size_t count) {
    if (count > rest_.size()) {
      truncated_ = true;
      rest_ = {};
      return {};
    }
    const std::span<const uint32_t> taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  [[nodiscard]] std::span<const uint32_t> rest() const noexcept { return rest_; }
  // Everything was there and nothing is left.
  [[nodiscard]] bool exhausted() const noexcept { return !truncated_ && rest_.empty(); }
  [[nodiscard]] bool truncated() const noexcept { return truncated_; }

 private:
  std::span<const uint32_t> rest_;
  bool truncated_ = false;
};

}  // namespace tbt::wire::tb
