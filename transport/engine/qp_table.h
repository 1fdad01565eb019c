// QpTable: queue pairs of this process by QPN, one load and one comparison.
//
// Numbers are handed out in sequence, so their low bits spread evenly and the table is
// direct-mapped; a number whose place is taken by a living pair is skipped by the allocator
// (occupied()).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/queue_pair.h"

namespace tbt::engine {

class QpTable {
 public:
  QpTable() : slots_(kSlots) {}

  [[nodiscard]] bool occupied(uint32_t number) const noexcept {
    return slots_[index(number)] != nullptr;
  }
  [[nodiscard]] QueuePair* find(uint32_t number) const noexcept {
    QueuePair* qp = slots_[index(number)].get();
    return qp != nullptr && qp->number == number ? qp : nullptr;
  }
  QueuePair& insert(std::unique_ptr<QueuePair> qp) noexcept {
    auto& slot = slots_[index(qp->number)];
    slot = std::move(qp);
    ++count_;
    return *slot;
  }
  void erase(QueuePair& qp) noexcept {
    slots_[index(qp.number)].reset();
    --count_;
  }
  [[nodiscard]] uint32_t size() const noexcept { return count_; }

  template <typename F>
  void for_each(F&& visit) {
    for (auto& slot : slots_) {
      if (slot) visit(*slot);
    }
  }

 private:
  static constexpr uint32_t kSlots = 2 * limits::kMaxQp;
  static uint32_t index(uint32_t number) noexcept { return number & (kSlots - 1); }
  std::vector<std::unique_ptr<QueuePair>> slots_;
  uint32_t count_ = 0;
};

}  // namespace tbt::engine
