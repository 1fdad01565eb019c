// Inbox: packets that somebody else took from the ring for this slot; one per slot and rail. One
// producer at a time (the holder of the rail's dispatching lock), one consumer (the slot's
// process). It holds as many entries as there are buffers, so it is never full.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rail/shared_state.h"

namespace tbt::rail {

class Inbox {
 public:
  Inbox(RailState& state, const RailGeometry& geometry, SlotId slot) noexcept
      : indices_(&state.inboxes[slot]),
        entries_(reinterpret_cast<InboxEntry*>(reinterpret_cast<std::byte*>(&state) +
                                               geometry.inbox_area) +
                 size_t{geometry.inbox_entries} * slot),
        mask_(geometry.inbox_entries - 1) {}

  [[nodiscard]] bool empty() const noexcept {
    return indices_->put.load(std::memory_order_acquire) ==
           indices_->taken.load(std::memory_order_relaxed);
  }
  [[nodiscard]] uint32_t count() const noexcept {
    return indices_->put.load(std::memory_order_acquire) -
           indices_->taken.load(std::memory_order_acquire);
  }

  // Producer.
  void put(const InboxEntry& entry) noexcept {
    const uint32_t at = indices_->put.load(std::memory_order_relaxed);
    entries_[at & mask_] = entry;
    indices_->put.store(at + 1, std::memory_order_release);
  }

  // Consumer; not when empty. The entry stays until drop_front.
  [[nodiscard]] const InboxEntry& front() const noexcept {
    return entries_[indices_->taken.load(std::memory_order_relaxed) & mask_];
  }
  void drop_front() noexcept {
    indices_->taken.store(indices_->taken.load(std::memory_order_relaxed) + 1,
                          std::memory_order_release);
  }

  // Producer: whether a buffer stands in it. The consumer may take it meanwhile.
  [[nodiscard]] bool holds(uint32_t buffer) const noexcept {
    const uint32_t put = indices_->put.load(std::memory_order_relaxed);
    uint32_t at = indices_->taken.load(std::memory_order_acquire);
    for (; at != put; ++at) {
      const InboxEntry& e = entries_[at & mask_];
      if (e.head_buffer == buffer || e.payload_buffer == buffer) return true;
    }
    return false;
  }

  // Producer: whether the consumer has taken nothing for `ns` since this was first asked about its
  // position.
  bool is_stuck(int64_t now_ns, int64_t ns) noexcept {
    const uint32_t taken = indices_->taken.load(std::memory_order_relaxed);
    const int64_t since = indices_->watched_since_ns.load(std::memory_order_relaxed);
    if (since != 0 && indices_->watched_taken.load(std::memory_order_relaxed) == taken) {
      return now_ns - since >= ns;
    }
    indices_->watched_taken.store(taken, std::memory_order_relaxed);
    indices_->watched_since_ns.store(now_ns, std::memory_order_relaxed);
    return false;
  }

  // For a dead consumer, by the holder of the dispatching lock.
  void clear() noexcept {
    indices_->taken.store(indices_->put.load(std::memory_order_relaxed), std::memory_order_release);
    indices_->watched_since_ns.store(0, std::memory_order_relaxed);
  }

 private:
  InboxIndices* indices_;
  InboxEntry* entries_;
  uint32_t mask_;
};

}  // namespace tbt::rail
