// SharedRail: what the rails of one host have in common: buffers with marks, inboxes by slot,
// reclaiming.
//
// Dispatching (taking packets and handing them to slots) is done by one process at a time, the
// holder of the rail's dispatching lock: the receive lock of an NHI rail, the transmit lock of the
// loopback. Functions that need it held say so.
#pragma once

#include <cstdint>
#include <span>

#include "rail/buffer_pool.h"
#include "rail/capture.h"
#include "rail/inbox.h"
#include "rail/rail.h"
#include "rail/shared_state.h"

namespace tbt::rail {

// A process that takes nothing from its inbox for so long is stopped, not slow: when buffers run
// short its frames are dropped. Until then the sender is held up instead, so that no frame is lost
// to a busy receiver.
inline constexpr int64_t kStuckNs = 100 * 1000 * 1000;

// So long a caller waits for the transmit lock. Whoever holds it for longer does not run; then the
// ring is as good as full, and the caller has timers and other rails to see to.
inline constexpr int64_t kLockNs = 2 * 1000 * 1000;

class SharedRail : public Rail {
 public:
  [[nodiscard]] const Capabilities& capabilities() const noexcept override { return capabilities_; }
  void rx_release(std::span<const RxPacket> packets) noexcept override;
  [[nodiscard]] RailStats stats() const noexcept override;

 protected:
  // kBusy after kLockNs; from then on at once, until the lock is free again.
  sys::LockOutcome lock_tx_in_time() noexcept;

  SharedRail(HostMemory& memory, uint32_t rail, SlotId slot, Classifier classify) noexcept;

  [[nodiscard]] Inbox inbox_of(SlotId slot) const noexcept { return {state_, geometry_, slot}; }
  size_t take_inbox(std::span<RxPacket> out) noexcept;

  // With the dispatching lock held.
  [[nodiscard]] bool is_attached(SlotId slot) noexcept;
  void put_inbox(SlotId slot, const InboxEntry& entry) noexcept;
  // Wakes the slots that got something since; after the lock was given back.
  void wake_receivers() noexcept;
  // Whether a slot has so long ignored an inbox of at least `few` packets that it must be stopped.
  bool is_stuck(SlotId slot) noexcept;
  // After the death of a dispatcher: marks that say "in an inbox" and are not go free. `keep` says
  // which of the other marks that only a dispatcher sets are still right; the rest go free.
  template <typename Keep>
  void repair_marks(Keep keep) noexcept;
  void reclaim_buffers(SlotId dead) noexcept;

  [[nodiscard]] RxPacket packet_of(const InboxEntry& entry) const noexcept;
  void free_entry(const InboxEntry& entry) noexcept;
  void mark_entry(const InboxEntry& entry, BufferMark mark) noexcept;

  HostMemory& memory_;
  const RailGeometry geometry_;
  RailState& state_;
  BufferPool pool_;
  CaptureRing capture_;
  const SlotId slot_;
  const Classifier classify_;
  Inbox inbox_;
  Capabilities capabilities_;

 private:
  uint64_t to_wake_ = 0;
  bool tx_held_up_ = false;
};

template <typename Keep>
void SharedRail::repair_marks(Keep keep) noexcept {
  for (uint32_t b = 0; b < pool_.size(); ++b) {
    const BufferMark mark = pool_.mark(b);
    if (mark == kMarkPosted || mark == kMarkKept) {
      if (!keep(b, mark)) pool_.set(b, kMarkFree);
      continue;
    }
    const auto slot = static_cast<SlotId>(mark & 0xffff);
    if (mark < mark_inbox(0) || slot >= kSlotsMax) continue;
    // The owner of the inbox may take it just now; then the mark has changed, and it stays the
    // owner's.
    if (!inbox_of(slot).holds(b)) pool_.change(b, mark, kMarkFree);
  }
}

}  // namespace tbt::rail
