// Deadlines: when which queue pair's timers are due, a binary heap that is corrected lazily.
//
// Moving a deadline further away (every acknowledge does) costs nothing: the entry stays, and is
// put back when it comes up too early. Moving it closer adds an entry. Entries name QPNs, so a
// destroyed pair needs no removal.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/time.h"
#include "engine/queue_pair.h"

namespace tbt::engine {

// `kQueued` is where a queue pair notes the earliest entry it has.
template <Instant QueuePair::*kQueued>
class DeadlineHeap {
 public:
  void update(QueuePair& qp, Instant due) {
    if (due.is_never() || due >= qp.*kQueued) return;
    qp.*kQueued = due;
    add(qp.number, due);
  }

  // For what is no queue pair: `number` is none's.
  void add(uint32_t number, Instant due) {
    heap_.push_back({due, number});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }

  [[nodiscard]] Instant next() const noexcept {
    return heap_.empty() ? Instant::never() : heap_.front().due;
  }

  // The QPN of an entry that is due, or 0. Its queue pair, if it lives, then has no entry.
  uint32_t pop_due(Instant now) {
    if (heap_.empty() || heap_.front().due > now) return 0;
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const uint32_t number = heap_.back().number;
    heap_.pop_back();
    return number;
  }

 private:
  struct Entry {
    Instant due;
    uint32_t number;
  };
  static bool later(const Entry& a, const Entry& b) noexcept {
    return a.due != b.due ? a.due > b.due : a.number > b.number;
  }
  std::vector<Entry> heap_;
};

// Stands in the heap for completion queues whose events are put off.
inline constexpr uint32_t kModerationTimer = 1u << 24;

using Deadlines = DeadlineHeap<&QueuePair::deadline_queued>;
using ProbeDeadlines = DeadlineHeap<&QueuePair::probe_queued>;

}  // namespace tbt::engine
