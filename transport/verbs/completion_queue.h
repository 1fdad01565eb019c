// CompletionQueue: a ring of work completions with the notification rules of verbs.
//
// A completion keeps the queue slot of its work request until it is polled (verbs: slots come back
// by completion processing), so an entry carries the counter to advance then. Overflow is never
// silent: the first lost completion marks the queue as broken for good. Threads: none of its own;
// device/ holds the endpoint's lock around every call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/time.h"
#include "tbt/types.h"

namespace tbt::verbs {

// Given back when the completion is polled: *counter = value.
struct SlotRelease {
  uint32_t* counter = nullptr;
  uint32_t value = 0;
};

class CompletionQueue {
 public:
  explicit CompletionQueue(uint32_t entries, void* user);

  // False when there is no room, and ever after: the completion is lost, the queue is overflowed().
  bool push(const Wc& wc, const SlotRelease& release, const void* owner) noexcept;
  // Copies out the oldest completions and returns how many.
  uint32_t pop(std::span<Wc> out) noexcept;
  // Drops the completions of a queue pair that is being destroyed.
  void purge(const void* owner) noexcept;
  // False if the queued completions would not fit; nothing is lost then.
  bool resize(uint32_t entries);

  void arm(bool solicited_only) noexcept;
  // Whether the queue is armed for such a completion.
  [[nodiscard]] bool awaits(bool solicited) const noexcept {
    return armed_ == Armed::kAny || (armed_ == Armed::kSolicited && solicited);
  }
  // Such a completion has come. True if it was awaited and is to be told of now; disarms. False
  // also while moderation wants to see more of them first.
  bool take_notification(bool solicited) noexcept;
  void disarm() noexcept;
  // An event only after `count` completions, or after the time if one has come by then. Either
  // being 0: at once.
  void moderate(uint32_t count, Duration period) noexcept;
  [[nodiscard]] Duration moderation_period() const noexcept { return moderation_period_; }

  [[nodiscard]] uint32_t entries() const noexcept { return static_cast<uint32_t>(ring_.size()); }
  [[nodiscard]] uint32_t queued() const noexcept { return tail_ - head_; }
  [[nodiscard]] bool armed() const noexcept { return armed_ != Armed::kNo; }
  [[nodiscard]] bool overflowed() const noexcept { return overflowed_; }
  [[nodiscard]] void* user() const noexcept { return user_; }

  uint32_t users = 0;          // queue pairs attached
  bool notify_queued = false;  // engine: stands in the list of queues with an event to deliver
  CompletionQueue* notify_next = nullptr;
  Instant put_off_until = Instant::never();  // engine: its event comes then, if not before
  bool put_off_listed = false;               // engine: and a timer stands for it

 private:
  enum class Armed : uint8_t { kNo, kSolicited, kAny };
  struct Entry {
    Wc wc;
    SlotRelease release;
    const void* owner = nullptr;
  };
  [[nodiscard]] Entry& at(uint32_t index) noexcept { return ring_[index & (ring_.size() - 1)]; }

  std::vector<Entry> ring_;
  uint32_t head_ = 0;  // counts completions; restarts at 0 whenever the ring changes its size
  uint32_t tail_ = 0;
  Armed armed_ = Armed::kNo;
  uint32_t moderation_count_ = 1;
  uint32_t put_off_ = 0;  // completions since the arming
  Duration moderation_period_{};
  bool overflowed_ = false;
  void* user_;
};

}  // namespace tbt::verbs
