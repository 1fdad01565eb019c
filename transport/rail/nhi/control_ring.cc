#include "rail/nhi/control_ring.h"

#include <cstring>

#include "base/assert.h"
#include "rail/shared_state.h"

namespace tbt::rail::nhi {
namespace {

constexpr uint32_t kEntries = 16;
constexpr uint32_t kPacketBytes = 256;
constexpr uint32_t kVector = 0;
constexpr size_t kRingBytes = kEntries * sizeof(Descriptor);
constexpr size_t kBuffersAt = 4096;  // behind the rings' page
static_assert(2 * kRingBytes <= kBuffersAt);
static_assert(kBuffersAt + size_t{2} * kEntries * kPacketBytes <= kControlBytes);

}  // namespace

// The memory of one of the two rings, here and as the controller sees it.
struct ControlRing::Ring {
  Descriptor* descriptors;
  std::byte* buffers;
  uint64_t descriptors_iova, buffers_iova;

  [[nodiscard]] Descriptor& at(uint32_t index) const noexcept {
    return descriptors[index % kEntries];
  }
  [[nodiscard]] std::byte* buffer(uint32_t index) const noexcept {
    return buffers + size_t{index % kEntries} * kPacketBytes;
  }
  [[nodiscard]] uint64_t buffer_iova(uint32_t index) const noexcept {
    return buffers_iova + uint64_t{index % kEntries} * kPacketBytes;
  }
};

ControlRing::ControlRing(HostMemory& memory, PciDevice& device) noexcept
    : memory_(memory),
      device_(device),
      quirks_(quirks_of(device.identity())),
      hop_count_(nhi::hop_count(device)),
      interrupt_(memory, device, quirks_, hop_count_, hop_count_) {}

ControlRing::~ControlRing() { stop(); }

ControlRing::Ring ControlRing::ring(bool tx) const noexcept {
  std::byte* const area = memory_.base() + RailMemory::control_offset();
  const size_t rings = tx ? 0 : kRingBytes;
  const size_t buffers = kBuffersAt + (tx ? 0 : size_t{kEntries} * kPacketBytes);
  return {reinterpret_cast<Descriptor*>(area + rings), area + buffers, iova_ + rings,
          iova_ + buffers};
}

// In the order of a data ring (bring_up.cc), without end-to-end flow control.
Status ControlRing::start() noexcept {
  TBT_ASSERT(!running_);
  if (device_.read32(kRegCapabilities) == kDeviceGone)
    return Status(ENODEV, "the controller is gone");
  if ((device_.read32(tx_options_register(0)) & kOptionEnable) != 0) {
    return Status(EBUSY, "the controller's ring 0 is in use");
  }
  auto iova = device_.dma_map(RailMemory::control_offset(), kControlBytes);
  if (!iova) return iova.error();
  iova_ = *iova;
  std::memset(static_cast<void*>(ring(true).descriptors), 0, 2 * kRingBytes);
  for (const bool tx : {true, false}) {
    const auto reg = tx ? tx_ring_register : rx_ring_register;
    const uint32_t options = tx ? tx_options_register(0) : rx_options_register(0);
    const uint64_t base = ring(tx).descriptors_iova;
    device_.write32(reg(0, 0), static_cast<uint32_t>(base));
    device_.write32(reg(0, 4), static_cast<uint32_t>(base >> 32));
    device_.write32(reg(0, kRingSize), tx ? kEntries : kEntries | kPacketBytes << 16);
    device_.write32(options + 4, tx ? 0 : 0xffff'ffff);
    device_.write32(options, kOptionEnable | kOptionRaw);
  }
  choose_interrupt_clear(device_, quirks_);
  wire_vector(device_, quirks_, hop_count_, kVector);
  tx_head_ = tx_tail_ = rx_tail_ = 0;
  running_ = true;
  for (uint32_t i = 0; i < kEntries - 1; ++i) post(i);
  device_.write32(rx_ring_register(0, kRingIndex), kEntries - 1);
  return {};
}

Status ControlRing::take_over() noexcept {
  TBT_ASSERT(!running_);
  if (device_.read32(kRegCapabilities) == kDeviceGone)
    return Status(ENODEV, "the controller is gone");
  // The transmit ring's descriptors are the first of what was mapped.
  const uint64_t low = device_.read32(tx_ring_register(0, 0));
  disable(low | uint64_t{device_.read32(tx_ring_register(0, 4))} << 32);
  return start();
}

void ControlRing::stop() noexcept {
  if (!running_) return;
  running_ = false;
  interrupt_.disable();
  disable(iova_);
}

// The address goes last, so that whoever takes over from somebody who died in here still finds it.
void ControlRing::disable(uint64_t iova) noexcept {
  for (const bool tx : {true, false}) {
    device_.write32(tx ? tx_options_register(0) : rx_options_register(0), 0);
  }
  (void)device_.dma_unmap(iova, kControlBytes);
  for (const bool tx : {true, false}) {
    for (const uint32_t field : {0u, 4u, kRingIndex, kRingSize}) {
      device_.write32(tx ? tx_ring_register(0, field) : rx_ring_register(0, field), 0);
    }
  }
}

void ControlRing::post(uint32_t index) noexcept {
  const Ring rx = ring(false);
  rx.at(index).address.store(rx.buffer_iova(index), std::memory_order_relaxed);
  rx.at(index).word.store(kPosted | kRequestInterrupt, std::memory_order_release);
}

bool ControlRing::send(uint8_t pdf, std::span<const std::byte> bytes) noexcept {
  TBT_ASSERT(running_ && bytes.size() <= kPacketBytes && pdf < 16);
  const Ring tx = ring(true);
  while (tx_tail_ != tx_head_ &&
         (tx.at(tx_tail_).word.load(std::memory_order_acquire) & kCompleted) != 0) {
    ++tx_tail_;
  }
  if (tx_head_ - tx_tail_ >= kEntries - 1) return false;
  std::memcpy(tx.buffer(tx_head_), bytes.data(), bytes.size());
  Descriptor& d = tx.at(tx_head_);
  d.address.store(tx.buffer_iova(tx_head_), std::memory_order_relaxed);
  d.word.store(pack_frame(static_cast<uint32_t>(bytes.size()), pdf, pdf) | kPosted,
               std::memory_order_release);
  ++tx_head_;
  device_.write32(tx_ring_register(0, kRingIndex), tx_head_ % kEntries << 16);
  return true;
}

// An overrun says that packets before this one were lost; this one is whole. What is longer than a
// buffer cannot be.
bool ControlRing::peek(ControlPacketView& packet) noexcept {
  if (!running_) return false;
  const Ring rx = ring(false);
  const uint32_t word = rx.at(rx_tail_).word.load(std::memory_order_acquire);
  if ((word & kCompleted) == 0) return false;
  const uint32_t length = word_length(word);
  packet = {word_eof(word), {rx.buffer(rx_tail_), length <= kPacketBytes ? length : 0}};
  return true;
}

void ControlRing::consume() noexcept {
  const Ring rx = ring(false);
  const uint32_t word = rx.at(rx_tail_).word.load(std::memory_order_relaxed);
  TBT_ASSERT((word & kCompleted) != 0);
  if ((word & kBufferOverrun) != 0) ++overruns_;
  post(rx_tail_ + kEntries - 1);  // the one that was unused
  ++rx_tail_;
  device_.write32(rx_ring_register(0, kRingIndex), (rx_tail_ + kEntries - 1) % kEntries);
}

bool ControlRing::arm() noexcept {
  ControlPacketView packet;
  if (interrupt_.enable() && !peek(packet)) return true;
  interrupt_.disable();
  return false;
}

}  // namespace tbt::rail::nhi
