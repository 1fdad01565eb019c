// BufferPool: the receive buffers of a rail, kept by one mark each (shared_state.h). There is no
// free list to be torn by a killed process: a buffer is free if its mark says so.
//
// take() goes round within the buffers used so far, and uses further ones only when it finds none
// free there: few buffers in use means that they stay in the processor's cache. It belongs to the
// holder of the rail's dispatching lock; set() follows the table of marks in shared_state.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "rail/shared_state.h"

namespace tbt::rail {

class BufferPool {
 public:
  BufferPool(std::byte* area, const RailGeometry& geometry, RxState& rx) noexcept
      : marks_(reinterpret_cast<std::atomic<BufferMark>*>(area + geometry.marks)),
        data_(area + geometry.rx_buffers),
        buffers_(geometry.buffers),
        first_span_(std::min(geometry.buffers, geometry.ring_entries + kSlack)),
        rx_(rx) {}

  [[nodiscard]] uint32_t size() const noexcept { return buffers_; }
  [[nodiscard]] std::byte* data(uint32_t buffer) const noexcept {
    return data_ + size_t{buffer} * kFrameBytes;
  }
  [[nodiscard]] BufferMark mark(uint32_t buffer) const noexcept {
    return marks_[buffer].load(std::memory_order_acquire);
  }
  void set(uint32_t buffer, BufferMark mark) noexcept {
    marks_[buffer].store(mark, std::memory_order_release);
  }
  // False if another process changed it meanwhile.
  bool change(uint32_t buffer, BufferMark from, BufferMark to) noexcept {
    return marks_[buffer].compare_exchange_strong(from, to, std::memory_order_acq_rel);
  }

  // A free buffer, or kNoBuffer. The search is bounded; call again later.
  uint32_t take() noexcept {
    uint32_t span = std::clamp(rx_.span, first_span_, buffers_);
    uint32_t hand = rx_.hand;
    uint32_t found = kNoBuffer;
    for (uint32_t i = 0; i < kSearch && found == kNoBuffer; ++i) {
      if (hand >= span) hand = 0;
      if (mark(hand) == kMarkFree) found = hand;
      ++hand;
    }
    if (found == kNoBuffer && span < buffers_) {
      hand = span;
      span = std::min(buffers_, span + kSlack);
      if (mark(hand) == kMarkFree) found = hand;
      ++hand;
    }
    rx_.hand = hand;
    rx_.span = span;
    return found;
  }

  [[nodiscard]] uint32_t count(BufferMark mark_value) const noexcept {
    uint32_t n = 0;
    for (uint32_t i = 0; i < buffers_; ++i) n += mark(i) == mark_value ? 1 : 0;
    return n;
  }

 private:
  static constexpr uint32_t kSlack = 64;
  static constexpr uint32_t kSearch =
      96;  // > kSlack, and longer than the usual run of buffers in use

  std::atomic<BufferMark>* marks_;
  std::byte* data_;
  uint32_t buffers_;
  uint32_t first_span_;
  RxState& rx_;
};

}  // namespace tbt::rail
