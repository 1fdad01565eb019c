// RecvQueue: posted receives, of one queue pair or shared (SRQ), in post order.
//
// take() copies the oldest receive out, because the message that fills it may outlive its turn in
// the ring. A queue pair's slot stays taken until the completion is polled; a shared queue's is
// free at once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tbt/types.h"

namespace tbt::verbs {

struct ProtectionDomain;
class CompletionQueue;

// Only its address matters: what shares it belongs together.
struct XrcDomain {};

// A receive that a message is being placed into.
struct RecvWqe {
  uint64_t wr_id = 0;
  uint32_t num_sge = 0;
  uint64_t capacity = 0;  // bytes of all SGEs
  uint32_t index = 0;     // in its queue
  std::vector<Sge> sges;  // sized once, for the largest receive
};

class RecvQueue {
 public:
  RecvQueue(uint32_t max_wr, uint32_t max_sge);

  // False if full.
  bool post(const RecvWr& wr) noexcept;
  // Copies the oldest posted receive into `out`; false if there is none.
  bool take(RecvWqe& out) noexcept;
  // Copies only the wr_id of the oldest one (for flushing).
  bool take_id(uint64_t& wr_id, uint32_t& index) noexcept;

  [[nodiscard]] uint32_t posted() const noexcept { return tail_ - head_; }
  [[nodiscard]] uint32_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] uint32_t max_sge() const noexcept { return max_sge_; }
  [[nodiscard]] uint32_t* release_counter() noexcept { return &released_; }
  void release_all_taken() noexcept { released_ = head_; }
  void clear() noexcept { released_ = head_ = tail_ = 0; }
  // Keeps what is posted; false if it would not fit.
  bool resize(uint32_t max_wr);

 private:
  struct Slot {
    uint64_t wr_id = 0;
    uint32_t num_sge = 0;
  };
  uint32_t capacity_;
  uint32_t mask_;
  uint32_t max_sge_;
  std::vector<Slot> slots_;
  std::vector<Sge> sges_;
  uint32_t released_ = 0;  // released <= head <= tail, free-running
  uint32_t head_ = 0;
  uint32_t tail_ = 0;
};

// What hears of each receive that is posted to an SRQ: a base of the engine's queue pairs of type
// UC.
struct SrqListener {
  SrqListener* srq_next = nullptr;
  SrqListener** srq_place = nullptr;  // what points here; nullptr: in no list
};

struct SharedReceiveQueue {
  SharedReceiveQueue(ProtectionDomain* domain, const uint32_t max_wr, uint32_t max_sge, void* owner)
      : pd(domain), queue(max_wr, max_sge), user(owner) {}

  ProtectionDomain* pd;
  RecvQueue queue;
  uint32_t limit = 0;  // armed when not 0: an event once fewer are posted
  uint32_t number = 0;
  uint32_t users = 0;  // queue pairs attached
  SrqListener* listeners = nullptr;
  // XRC: who may name it, and where its completions go.
  const XrcDomain* xrcd = nullptr;
  CompletionQueue* cq = nullptr;
  void* user;

  void add(SrqListener& listener) noexcept {
    listener.srq_next = listeners;
    listener.srq_place = &listeners;
    if (listeners != nullptr) listeners->srq_place = &listener.srq_next;
    listeners = &listener;
  }
  static void remove(SrqListener& listener) noexcept {
    if (listener.srq_place == nullptr) return;
    *listener.srq_place = listener.srq_next;
    if (listener.srq_next != nullptr) listener.srq_next->srq_place = listener.srq_place;
    listener = {};
  }
};

}  // namespace tbt::verbs
