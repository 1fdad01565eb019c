// Bringing a ring pair up and down, in the order that Linux uses (drivers/thunderbolt/nhi.c).
#include "rail/nhi/interrupts.h"
#include "rail/nhi/nhi_rail.h"
#include "rail/shared_rail.h"

namespace tbt::rail {
namespace nhi {
namespace {

// PDFs of wire/frame.h: SOF packet 1, payload 3, control 4; EOF whole 1, head 2, payload 3,
// control 4; of wire/tb/credit_frame.h both.
constexpr uint32_t kCredit = 1u << wire::tb::kPdfCredit;
constexpr uint32_t kSofMask = 1u << 1 | 1u << 3 | 1u << 4 | kCredit;
constexpr uint32_t kEofMask = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | kCredit;

}  // namespace

void NhiRail::program_tx_ring(uint64_t iova, RingFlow flow) noexcept {
  device_.write32(tx_ring_register(hop_, 0), static_cast<uint32_t>(iova));
  device_.write32(tx_ring_register(hop_, 4), static_cast<uint32_t>(iova >> 32));
  device_.write32(tx_ring_register(hop_, kRingSize), geometry_.ring_entries);
  device_.write32(tx_options_register(hop_) + 4, 0);
  device_.write32(tx_options_register(hop_), kOptionEnable);
  if (flow == RingFlow::kNone) return;
  device_.write32(tx_options_register(hop_), kOptionEnable | kOptionE2e);
}

void NhiRail::program_rx_ring(uint64_t iova, RingFlow flow) noexcept {
  state_.shared.flow.store(static_cast<uint32_t>(flow), std::memory_order_relaxed);
  const uint64_t base = iova + (geometry_.rx_descriptors - geometry_.dma);
  device_.write32(rx_ring_register(hop_, 0), static_cast<uint32_t>(base));
  device_.write32(rx_ring_register(hop_, 4), static_cast<uint32_t>(base >> 32));
  device_.write32(rx_ring_register(hop_, kRingSize), geometry_.ring_entries);
  device_.write32(rx_options_register(hop_) + 4, kSofMask << 16 | kEofMask);
  device_.write32(rx_options_register(hop_), kOptionEnable);
  if (flow == RingFlow::kNone) return;
  device_.write32(rx_options_register(hop_),
                  kOptionEnable | kOptionE2e | quirks_.e2e_ring_of(hop_) << kOptionE2eHopShift);
}

// One vector per ring as far as they go; no throttling, because who sleeps wants to be woken at
// once, and the interrupt is off while anybody polls. The mask stays clear until somebody arms.
void NhiRail::wire_interrupt() noexcept {
  choose_interrupt_clear(device_, quirks_);
  wire_vector(device_, quirks_, rx_bit(), hop_ % vector_count(device_));
}

// 1. addresses  2. TX ring  3. RX ring  4. interrupt wiring  5. receive buffers, once the ring
// runs. The paths between the hosts come afterwards (fabric/connection_manager.h): one that leads
// into a ring that stands still holds up the sender.
Status NhiRail::start() noexcept {
  if (device_.read32(kRegCapabilities) == kDeviceGone)
    return Status(ENODEV, "the controller is gone");
  if (hop_ >= hop_count_) return Status(ENODEV, "the controller has no ring pair for this cable");
  if ((device_.read32(tx_options_register(hop_)) & kOptionEnable) != 0) {
    return Status(EBUSY, "the ring pair is in use");
  }
  const uint32_t rail = hop_ - quirks_.first_data_ring();
  auto iova =
      device_.dma_map(RailMemory::dma_offset(memory_, rail), RailMemory::dma_bytes(memory_));
  if (!iova) return iova.error();
  state_.shared.iova.store(*iova, std::memory_order_relaxed);
  credits_.end();
  reset_rings();
  program_tx_ring(*iova, RingFlow::kE2e);
  program_rx_ring(*iova, RingFlow::kE2e);
  wire_interrupt();
  state_.rx.starved.store(1, std::memory_order_relaxed);
  state_.shared.up.store(kRailUp, std::memory_order_release);
  refill();
  return {};
}

// Buffers that processes hold, or have in their inboxes, stay theirs.
void NhiRail::reset_rings() noexcept {
  tx_.reset();
  rx_.reset();
  state_.rx.kept.buffer = kNoBuffer;
  repair_marks([](uint32_t, BufferMark) { return false; });
}

void NhiRail::disable_rings() noexcept {
  for (const bool tx : {true, false}) {
    device_.write32(tx ? tx_options_register(hop_) : rx_options_register(hop_), 0);
    for (const uint32_t field : {0u, 4u, kRingIndex, kRingSize}) {
      device_.write32(tx ? tx_ring_register(hop_, field) : rx_ring_register(hop_, field), 0);
    }
  }
}

// Mask, stop, forget. Frames in flight are lost; buffers in inboxes stay with their owners.
Status NhiRail::stop() noexcept {
  if (state_.shared.up.exchange(0) == 0) return Status(EINVAL, "the rail is not up");
  const uint32_t at = rx_bit();
  device_.write32(kRegInterruptMaskClear + at / 32 * 4, 1u << (at % 32));
  disable_rings();
  return device_.dma_unmap(state_.shared.iova.load(std::memory_order_relaxed),
                           RailMemory::dma_bytes(memory_));
}

namespace {

SlotId nobody(std::span<const std::byte>, uint8_t, uint8_t) noexcept { return kNoSlot; }

}  // namespace
}  // namespace nhi

Status bring_up_nhi_rail(HostMemory& memory, uint32_t rail, nhi::PciDevice& device) {
  if (rail >= memory.cables()) return Status(EINVAL, "no such cable");
  return nhi::NhiRail(memory, rail, device, kDaemonSlot, nhi::nobody).start();
}

Status shut_down_nhi_rail(HostMemory& memory, uint32_t rail, nhi::PciDevice& device) {
  if (rail >= memory.cables()) return Status(EINVAL, "no such cable");
  return nhi::NhiRail(memory, rail, device, kDaemonSlot, nhi::nobody).stop();
}

std::unique_ptr<Rail> open_nhi_rail(HostMemory& memory, uint32_t rail, nhi::PciDevice& device,
                                    SlotId slot, Classifier classify) {
  return std::make_unique<nhi::NhiRail>(memory, rail, device, slot, classify);
}

}  // namespace tbt::rail
