#include "rail/nhi/owned_ring.h"

#include <cstring>

#include "base/assert.h"
#include "rail/shared_state.h"

namespace tbt::rail::nhi {

// The memory of one of the two rings, here and as the controller sees it.
struct OwnedRing::Half {
  Descriptor* descriptors;
  std::byte* buffers;
  uint64_t descriptors_iova, buffers_iova;
  uint32_t entries, buffer_bytes;

  [[nodiscard]] Descriptor& at(uint32_t index) const noexcept {
    return descriptors[index % entries];
  }
  [[nodiscard]] std::byte* buffer(uint32_t index) const noexcept {
    return buffers + size_t{index % entries} * buffer_bytes;
  }
  [[nodiscard]] uint64_t buffer_iova(uint32_t index) const noexcept {
    return buffers_iova + uint64_t{index % entries} * buffer_bytes;
  }
};

OwnedRing::OwnedRing(HostMemory& memory, PciDevice& device, const OwnedRingShape& shape) noexcept
    : memory_(memory),
      device_(device),
      quirks_(quirks_of(device.identity())),
      shape_(shape),
      hop_count_(nhi::hop_count(device)),
      interrupt_(memory, device, quirks_, hop_count_ + shape.hop, hop_count_) {}

// Descriptors of both rings first, then, on pages of their own, the buffers.
OwnedRing::Half OwnedRing::half(bool tx) const noexcept {
  std::byte* const area = memory_.base() + shape_.memory_offset;
  const size_t all_buffers = 2 * size_t{shape_.entries} * shape_.buffer_bytes;
  const size_t rings = tx ? 0 : shape_.entries * sizeof(Descriptor);
  const size_t pages = (all_buffers + 4095) / 4096 * 4096;
  const size_t buffers = bytes() - pages + (tx ? 0 : all_buffers / 2);
  return {reinterpret_cast<Descriptor*>(area + rings),
          area + buffers,
          iova_ + rings,
          iova_ + buffers,
          shape_.entries,
          shape_.buffer_bytes};
}

bool OwnedRing::is_enabled() noexcept {
  return shape_.hop < hop_count_ &&
         (device_.read32(tx_options_register(shape_.hop)) & kOptionEnable) != 0;
}

// In the order of a rail's rings (bring_up.cc), without end-to-end flow control.
Status OwnedRing::start() noexcept {
  TBT_ASSERT(!running_);
  if (device_.read32(kRegCapabilities) == kDeviceGone)
    return Status(ENODEV, "the controller is gone");
  if (shape_.hop >= hop_count_) return Status(ENODEV, "the controller has no such ring");
  if (is_enabled()) return Status(EBUSY, "the controller's ring is in use");
  auto iova = device_.dma_map(shape_.memory_offset, bytes());
  if (!iova) return iova.error();
  iova_ = *iova;
  std::memset(static_cast<void*>(half(true).descriptors), 0,
              2 * shape_.entries * sizeof(Descriptor));
  for (const bool tx : {true, false}) {
    const auto reg = tx ? tx_ring_register : rx_ring_register;
    const uint32_t options = tx ? tx_options_register(shape_.hop) : rx_options_register(shape_.hop);
    const uint64_t base = half(tx).descriptors_iova;
    const uint32_t buffer_field = (shape_.buffer_bytes & 0xfff) << 16;  // 0 is 4096
    device_.write32(reg(shape_.hop, 0), static_cast<uint32_t>(base));
    device_.write32(reg(shape_.hop, 4), static_cast<uint32_t>(base >> 32));
    device_.write32(reg(shape_.hop, kRingSize),
                    tx ? shape_.entries : shape_.entries | buffer_field);
    device_.write32(options + 4, tx ? 0 : uint32_t{shape_.sof_mask} << 16 | shape_.eof_mask);
    device_.write32(options, kOptionEnable | (shape_.raw ? kOptionRaw : 0));
  }
  choose_interrupt_clear(device_, quirks_);
  wire_vector(device_, quirks_, hop_count_ + shape_.hop, kDaemonVector);
  tx_head_ = tx_tail_ = rx_tail_ = 0;
  running_ = true;
  for (uint32_t i = 0; i < shape_.entries - 1; ++i) post(i);
  device_.write32(rx_ring_register(shape_.hop, kRingIndex), shape_.entries - 1);
  return {};
}

Status OwnedRing::take_over() noexcept {
  TBT_ASSERT(!running_);
  if (device_.read32(kRegCapabilities) == kDeviceGone)
    return Status(ENODEV, "the controller is gone");
  // The transmit ring's descriptors are the first of what was mapped.
  const uint64_t low = device_.read32(tx_ring_register(shape_.hop, 0));
  disable(low | uint64_t{device_.read32(tx_ring_register(shape_.hop, 4))} << 32);
  return start();
}

void OwnedRing::stop() noexcept {
  if (!running_) return;
  running_ = false;
  interrupt_.disable();
  disable(iova_);
}

// The address goes last, so that whoever takes over from somebody who died in here still finds it.
void OwnedRing::disable(uint64_t iova) noexcept {
  for (const bool tx : {true, false}) {
    device_.write32(tx ? tx_options_register(shape_.hop) : rx_options_register(shape_.hop), 0);
  }
  (void)device_.dma_unmap(iova, bytes());
  for (const bool tx : {true, false}) {
    for (const uint32_t field : {0u, 4u, kRingIndex, kRingSize}) {
      device_.write32(
          tx ? tx_ring_register(shape_.hop, field) : rx_ring_register(shape_.hop, field), 0);
    }
  }
}

void OwnedRing::post(uint32_t index) noexcept {
  const Half rx = half(false);
  rx.at(index).address.store(rx.buffer_iova(index), std::memory_order_relaxed);
  rx.at(index).word.store(kPosted | kRequestInterrupt, std::memory_order_release);
}

uint32_t OwnedRing::room() noexcept {
  if (!running_) return 0;
  const Half tx = half(true);
  while (tx_tail_ != tx_head_ &&
         (tx.at(tx_tail_).word.load(std::memory_order_acquire) & kCompleted) != 0) {
    ++tx_tail_;
  }
  return shape_.entries - 1 - (tx_head_ - tx_tail_);
}

bool OwnedRing::send(uint8_t sof, uint8_t eof, std::span<const std::byte> bytes) noexcept {
  TBT_ASSERT(running_ && bytes.size() <= shape_.buffer_bytes && sof < 16 && eof < 16);
  if (room() == 0) return false;
  const Half tx = half(true);
  std::memcpy(tx.buffer(tx_head_), bytes.data(), bytes.size());
  Descriptor& d = tx.at(tx_head_);
  d.address.store(tx.buffer_iova(tx_head_), std::memory_order_relaxed);
  d.word.store(pack_frame(static_cast<uint32_t>(bytes.size()), sof, eof) | kPosted,
               std::memory_order_release);
  ++tx_head_;
  device_.write32(tx_ring_register(shape_.hop, kRingIndex), tx_head_ % shape_.entries << 16);
  return true;
}

// An overrun says that others before this one were lost; this one is whole. What is longer than a
// buffer cannot be.
bool OwnedRing::peek(OwnedFrame& frame) noexcept {
  if (!running_) return false;
  const Half rx = half(false);
  const uint32_t word = rx.at(rx_tail_).word.load(std::memory_order_acquire);
  if ((word & kCompleted) == 0) return false;
  const uint32_t length = word_length(word);
  frame = {word_sof(word),
           word_eof(word),
           (word & kCrcError) != 0,
           {rx.buffer(rx_tail_), length <= shape_.buffer_bytes ? length : 0}};
  return true;
}

void OwnedRing::consume() noexcept {
  const Half rx = half(false);
  const uint32_t word = rx.at(rx_tail_).word.load(std::memory_order_relaxed);
  TBT_ASSERT((word & kCompleted) != 0);
  if ((word & kBufferOverrun) != 0) ++overruns_;
  post(rx_tail_ + shape_.entries - 1);  // the one that was unused
  ++rx_tail_;
  device_.write32(rx_ring_register(shape_.hop, kRingIndex),
                  (rx_tail_ + shape_.entries - 1) % shape_.entries);
}

bool OwnedRing::arm() noexcept {
  OwnedFrame frame;
  if (!running_) return true;
  if (interrupt_.enable() && !peek(frame)) return true;
  interrupt_.disable();
  return false;
}

}  // namespace tbt::rail::nhi
