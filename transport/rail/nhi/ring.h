// TxRing and RxRing: the driver's side of one descriptor ring pair, in shared memory. Indices count
// on for ever; the register holds them modulo the ring's size. Empty: head == tail; one descriptor
// stays unused, so that a full ring (size - 1) looks different from an empty one.
//
//   TX   [tail, head) is the NHI's: it sets kCompleted in order. [head, tail + size - 1) is ours.
//   RX   [tail, head) is posted: the NHI fills it in order. The rest is ours.
//
// Only descriptors are read, never the NHI's index registers. Callers hold the transmit or receive
// lock, except for RxRing::ready().
#pragma once

#include <cstdint>
#include <span>

#include "rail/buffer_pool.h"
#include "rail/nhi/nhi_regs.h"
#include "rail/rail.h"
#include "rail/shared_state.h"

namespace tbt::rail::nhi {

class TxRing {
 public:
  TxRing(std::byte* area, const RailGeometry& geometry, TxState& state) noexcept;

  // Descriptors that may be filled now; looks for completions only when fewer than `wanted` are
  // known.
  uint32_t room(uint32_t wanted) noexcept;
  // Buffer of the i-th descriptor from the head on: buffer and descriptor belong together for ever.
  [[nodiscard]] std::byte* buffer(uint32_t i) const noexcept {
    const uint32_t at = (state_.head.load(std::memory_order_relaxed) + i) & mask_;
    return buffers_ + size_t{at} * kFrameBytes;
  }
  // Whether the NHI is done with all descriptors before the one that `head` counts to.
  bool passed(uint32_t head) noexcept {
    reap();
    return static_cast<int32_t>(state_.tail.load(std::memory_order_relaxed) - head) >= 0;
  }
  // Fills descriptors and moves the head; the doorbell is the caller's. A frame that names memory
  // of its own leaves its descriptor's buffer unused this time.
  void post(std::span<const TxFrame> frames, uint64_t iova) noexcept;
  // How many the NHI has not completed.
  uint32_t unsent() noexcept;
  void reset() noexcept;
  // What the producer half of the index register must hold.
  [[nodiscard]] uint32_t doorbell() const noexcept;

 private:
  void reap() noexcept;

  Descriptor* descriptors_;
  std::byte* buffers_;
  size_t buffers_offset_;  // from the beginning of the DMA area
  uint32_t mask_;
  TxState& state_;
};

enum class Arrival { kNone, kGood, kDamaged, kOverrun };

class RxRing {
 public:
  RxRing(std::byte* area, const RailGeometry& geometry, RxState& state) noexcept;

  // Whether a frame has arrived. Without the lock: a guess that is right once nobody else
  // dispatches.
  [[nodiscard]] bool ready() const noexcept;
  [[nodiscard]] uint32_t posted() const noexcept;
  // The number of the oldest, from the ring's start on.
  [[nodiscard]] uint32_t tail() const noexcept { return tail_of(window()); }

  // The oldest frame, if it has arrived. It stays until consume().
  Arrival peek(RxFrame& frame, const BufferPool& pool) const noexcept;
  void consume() noexcept;

  // Posts free buffers until `most` are posted, the ring is full or none is left; returns how many.
  // publish() follows.
  uint32_t fill(BufferPool& pool, uint64_t iova, uint32_t most = UINT32_MAX) noexcept;
  [[nodiscard]] uint32_t doorbell() const noexcept;

  // Whether the ring has `buffer` posted: the truth after a death.
  [[nodiscard]] bool holds(uint32_t buffer) const noexcept;
  void reset() noexcept { state_.window.store(0, std::memory_order_release); }

 private:
  [[nodiscard]] uint64_t window() const noexcept {
    return state_.window.load(std::memory_order_acquire);
  }
  static uint32_t head_of(uint64_t window) noexcept { return static_cast<uint32_t>(window >> 32); }
  static uint32_t tail_of(uint64_t window) noexcept { return static_cast<uint32_t>(window); }
  void set_window(uint32_t head, uint32_t tail) noexcept {
    state_.window.store(uint64_t{head} << 32 | tail, std::memory_order_release);
  }

  Descriptor* descriptors_;
  std::atomic<uint32_t>* buffers_;  // which buffer a descriptor has posted
  size_t buffers_offset_;
  uint32_t mask_;
  RxState& state_;
};

}  // namespace tbt::rail::nhi
