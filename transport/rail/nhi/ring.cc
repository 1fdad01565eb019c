#include "rail/nhi/ring.h"

#include <algorithm>

#include "sys/barrier.h"

namespace tbt::rail::nhi {

TxRing::TxRing(std::byte* area, const RailGeometry& geometry, TxState& state) noexcept
    : descriptors_(reinterpret_cast<Descriptor*>(area + geometry.dma)),
      buffers_(area + geometry.tx_buffers),
      buffers_offset_(geometry.tx_buffers - geometry.dma),
      mask_(geometry.ring_entries - 1),
      state_(state) {}

uint32_t TxRing::room(uint32_t wanted) noexcept {
  const uint32_t head = state_.head.load(std::memory_order_relaxed);
  uint32_t free = mask_ - (head - state_.tail.load(std::memory_order_relaxed));
  if (free >= wanted) return free;
  reap();
  return mask_ - (head - state_.tail.load(std::memory_order_relaxed));
}

void TxRing::reap() noexcept {
  const uint32_t head = state_.head.load(std::memory_order_relaxed);
  uint32_t tail = state_.tail.load(std::memory_order_relaxed);
  while (tail != head &&
         (descriptors_[tail & mask_].word.load(std::memory_order_acquire) & kCompleted) != 0) {
    ++tail;
  }
  state_.tail.store(tail, std::memory_order_relaxed);
}

void TxRing::post(std::span<const TxFrame> frames, uint64_t iova) noexcept {
  uint32_t head = state_.head.load(std::memory_order_relaxed);
  for (const TxFrame& frame : frames) {
    const uint32_t at = head++ & mask_;
    Descriptor& d = descriptors_[at];
    const uint64_t own = iova + buffers_offset_ + uint64_t{at} * kFrameBytes;
    d.address.store(frame.direct.iova != 0 ? frame.direct.iova : own, std::memory_order_relaxed);
    d.time.store(0, std::memory_order_relaxed);
    d.word.store(pack_frame(frame.length, frame.sof, frame.eof) | kPosted,
                 std::memory_order_relaxed);
  }
  sys::to_device();
  state_.head.store(head, std::memory_order_release);
}

uint32_t TxRing::unsent() noexcept {
  reap();
  return state_.head.load(std::memory_order_relaxed) - state_.tail.load(std::memory_order_relaxed);
}

// On to the next lap: the descriptors begin anew, and what was posted before has been passed.
void TxRing::reset() noexcept {
  const uint32_t lap = (state_.head.load(std::memory_order_relaxed) + mask_) & ~mask_;
  state_.head.store(lap, std::memory_order_relaxed);
  state_.tail.store(lap, std::memory_order_relaxed);
}

uint32_t TxRing::doorbell() const noexcept {
  return (state_.head.load(std::memory_order_relaxed) & mask_) << 16;
}

RxRing::RxRing(std::byte* area, const RailGeometry& geometry, RxState& state) noexcept
    : descriptors_(reinterpret_cast<Descriptor*>(area + geometry.rx_descriptors)),
      buffers_(reinterpret_cast<std::atomic<uint32_t>*>(area + geometry.ring_buffers)),
      buffers_offset_(geometry.rx_buffers - geometry.dma),
      mask_(geometry.ring_entries - 1),
      state_(state) {}

// An empty ring's tail may still carry the flag of its last frame, so the window is asked too.
bool RxRing::ready() const noexcept {
  const uint64_t w = window();
  if (head_of(w) == tail_of(w)) return false;
  return (descriptors_[tail_of(w) & mask_].word.load(std::memory_order_acquire) & kCompleted) != 0;
}

uint32_t RxRing::posted() const noexcept {
  const uint64_t w = window();
  return head_of(w) - tail_of(w);
}

// The word is read once: what the flags mean is only known from the flags read with them.
Arrival RxRing::peek(RxFrame& frame, const BufferPool& pool) const noexcept {
  const uint64_t w = window();
  if (head_of(w) == tail_of(w)) return Arrival::kNone;
  const uint32_t at = tail_of(w) & mask_;
  const uint32_t word = descriptors_[at].word.load(std::memory_order_acquire);
  if ((word & kCompleted) == 0) return Arrival::kNone;
  sys::from_device();
  frame.buffer = buffers_[at].load(std::memory_order_relaxed);
  frame.data = pool.data(frame.buffer);
  frame.length = word_length(word);
  frame.sof = word_sof(word);
  frame.eof = word_eof(word);
  if ((word & kCrcError) != 0) return Arrival::kDamaged;
  return (word & kBufferOverrun) != 0 ? Arrival::kOverrun : Arrival::kGood;
}

void RxRing::consume() noexcept {
  const uint64_t w = window();
  set_window(head_of(w), tail_of(w) + 1);
}

// The length field is stale until completion, so it carries the lap: two postings of one descriptor
// then differ, which lets the NHI model complete a descriptor exactly once although the process
// that runs it may be killed and the step repeated (emulated/dma_engine.cc).
uint32_t RxRing::fill(BufferPool& pool, uint64_t iova, uint32_t most) noexcept {
  const uint64_t w = window();
  uint32_t head = head_of(w);
  while (head - tail_of(w) < std::min(mask_, most)) {
    const uint32_t buffer = pool.take();
    if (buffer == kNoBuffer) break;
    const uint32_t at = head & mask_;
    buffers_[at].store(buffer, std::memory_order_relaxed);
    pool.set(buffer, kMarkPosted);
    Descriptor& d = descriptors_[at];
    d.address.store(iova + buffers_offset_ + uint64_t{buffer} * kFrameBytes,
                    std::memory_order_relaxed);
    d.time.store(0, std::memory_order_relaxed);
    const uint32_t lap = (head / (mask_ + 1)) & 0xfff;
    d.word.store(lap | kPosted | kRequestInterrupt, std::memory_order_release);
    ++head;
  }
  sys::to_device();
  set_window(head, tail_of(w));
  return head - head_of(w);
}

uint32_t RxRing::doorbell() const noexcept { return head_of(window()) & mask_; }

bool RxRing::holds(uint32_t buffer) const noexcept {
  const uint64_t w = window();
  for (uint32_t i = tail_of(w); i != head_of(w); ++i) {
    if (buffers_[i & mask_].load(std::memory_order_relaxed) == buffer) return true;
  }
  return false;
}

}  // namespace tbt::rail::nhi
