// ReadyList: the queue pairs of one rail that may have something to send, in turn (intrusive FIFO).
// A queue pair stands in at most one list.
#pragma once

#include "base/assert.h"
#include "engine/queue_pair.h"

namespace tbt::engine {

class ReadyList {
 public:
  [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }
  [[nodiscard]] QueuePair* front() const noexcept { return head_; }

  void push(QueuePair& qp) noexcept {
    TBT_DCHECK(!qp.ready);
    qp.ready = true;
    qp.ready_next = nullptr;
    (head_ == nullptr ? head_ : tail_->ready_next) = &qp;
    tail_ = &qp;
  }

  void pop() noexcept {
    head_->ready = false;
    head_ = head_->ready_next;
  }

  // The front has used its share: it goes to the end.
  void rotate() noexcept {
    QueuePair& qp = *head_;
    if (qp.ready_next == nullptr) return;
    pop();
    push(qp);
  }

  void remove(QueuePair& qp) noexcept {
    QueuePair* before = nullptr;
    for (QueuePair* at = head_; at != nullptr; before = at, at = at->ready_next) {
      if (at != &qp) continue;
      (before == nullptr ? head_ : before->ready_next) = qp.ready_next;
      if (tail_ == &qp) tail_ = before;
      qp.ready = false;
      return;
    }
  }

 private:
  QueuePair* head_ = nullptr;
  QueuePair* tail_ = nullptr;
};

}  // namespace tbt::engine
