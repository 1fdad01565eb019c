// Deadlines: when which queue pair's timers are due, a binary heap that is corrected lazily.
//
// Moving a deadline further away (every acknowledge does) costs nothing: the entry stays, and is
// put back when it comes up too early. Moving it closer adds an entry. Entries name QPNs, so a
// destroyed pair needs no removal. There is room for twice as many entries as there are pairs, made
// when a pair is: noting a deadline allocates nothing. When it is full, the entries that mean
// nothing any more are dropped; with long timeouts they would pile up otherwise, by destroyed
// pairs, or by one whose deadline is moved closer and further again (an RNR wait before each
// repetition).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/time.h"
#include "engine/qp_table.h"
#include "engine/queue_pair.h"

namespace tbt::engine {

// `kQueued` is where a queue pair notes the earliest entry it has.
template <Instant QueuePair::*kQueued>
class DeadlineHeap {
 public:
  explicit DeadlineHeap(const QpTable& pairs) : pairs_(pairs) { heap_.reserve(kLeast); }

  // Before there are so many pairs. Throws std::bad_alloc.
  void make_room(size_t pairs) {
    if (heap_.capacity() < 2 * pairs) heap_.reserve(4 * pairs);
  }

  void update(QueuePair& qp, Instant due) noexcept {
    if (due.is_never() || due >= qp.*kQueued) return;
    if (heap_.size() == heap_.capacity()) drop_stale();
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

  [[nodiscard]] size_t entries() const noexcept { return heap_.size(); }

 private:
  static constexpr size_t kLeast = 64;

  struct Entry {
    Instant due;
    uint32_t number;
    bool operator==(const Entry&) const noexcept = default;
  };
  static bool later(const Entry& a, const Entry& b) noexcept {
    return a.due != b.due ? a.due > b.due : a.number > b.number;
  }

  // One entry per living pair is left: its earliest. In ascending order they are a heap.
  void drop_stale() noexcept {
    std::erase_if(heap_, [this](const Entry& entry) {
      const QueuePair* qp = pairs_.find(entry.number);
      return qp == nullptr || qp->*kQueued != entry.due;
    });
    std::sort(heap_.begin(), heap_.end(),
              [](const Entry& a, const Entry& b) { return later(b, a); });
    heap_.erase(std::unique(heap_.begin(), heap_.end()), heap_.end());
  }

  const QpTable& pairs_;
  std::vector<Entry> heap_;
};

// Stands in the heap for completion queues whose events are put off.
inline constexpr uint32_t kModerationTimer = 1u << 24;

using Deadlines = DeadlineHeap<&QueuePair::deadline_queued>;
using ProbeDeadlines = DeadlineHeap<&QueuePair::probe_queued>;

}  // namespace tbt::engine
