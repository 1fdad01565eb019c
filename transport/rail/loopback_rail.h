// LoopbackRail: between the processes of one host, and to oneself. No ring and no device: the
// sender puts buffers into the receiver's inbox. The transmit lock is the dispatching lock; buffers
// are the rail's receive buffers, filled by the sender and freed by the receiver.
#pragma once

#include <array>

#include "rail/shared_rail_base.h"

namespace tbt::rail {

class LoopbackRail final : public SharedRail {
 public:
  LoopbackRail(HostMemory& memory, SlotId slot, Classifier classify) noexcept;

  size_t tx_begin(std::span<std::byte*> buffers) noexcept override;
  void tx_commit(std::span<const TxFrame> frames) noexcept override;
  // A frame is copied by its sender, in tx_commit: nothing of it is read later.
  [[nodiscard]] uint32_t tx_posted() const noexcept override { return 0; }
  bool tx_read(uint32_t) noexcept override { return true; }
  size_t rx_burst(std::span<RxPacket> out) noexcept override { return take_inbox(out); }
  [[nodiscard]] bool rx_pending() const noexcept override { return !inbox_.empty(); }
  // The sender wakes the receiver itself: there is no interrupt.
  bool arm() noexcept override { return inbox_.empty(); }
  void disarm() noexcept override {}
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }
  bool reclaim(SlotId dead) noexcept override;

 private:
  static constexpr uint32_t kBurst = 64;

  bool lock_tx() noexcept;
  bool is_congested() noexcept;
  [[nodiscard]] uint32_t limit() const noexcept { return pool_.size() / 4; }
  void deliver(const InboxEntry& entry) noexcept;

  std::array<uint32_t, kBurst> reserved_{};
  uint32_t reserved_count_ = 0;
};

}  // namespace tbt::rail
