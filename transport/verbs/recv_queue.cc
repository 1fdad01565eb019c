#include "verbs/recv_queue.h"

#include <algorithm>
#include <bit>

namespace tbt::verbs {

RecvQueue::RecvQueue(uint32_t max_wr, uint32_t max_sge)
    : capacity_(max_wr),
      mask_(std::bit_ceil(std::max(max_wr, 1u)) - 1),
      max_sge_(max_sge),
      slots_(size_t{mask_} + 1),
      sges_(slots_.size() * max_sge) {}

bool RecvQueue::post(const RecvWr& wr) noexcept {
  if (tail_ - released_ >= capacity_) return false;
  const uint32_t slot = tail_++ & mask_;
  slots_[slot] = {wr.wr_id, wr.num_sge};
  std::copy_n(wr.sg_list, wr.num_sge,
              sges_.begin() + static_cast<ptrdiff_t>(size_t{slot} * max_sge_));
  return true;
}

bool RecvQueue::take(RecvWqe& out) noexcept {
  if (head_ == tail_) return false;
  const uint32_t slot = head_ & mask_;
  out.index = head_++;
  out.wr_id = slots_[slot].wr_id;
  out.num_sge = slots_[slot].num_sge;
  out.capacity = 0;
  const Sge* from = sges_.data() + size_t{slot} * max_sge_;
  for (uint32_t i = 0; i < out.num_sge; ++i) {
    out.sges[i] = from[i];
    out.capacity += from[i].length;
  }
  return true;
}

bool RecvQueue::take_id(uint64_t& wr_id, uint32_t& index) noexcept {
  if (head_ == tail_) return false;
  wr_id = slots_[head_ & mask_].wr_id;
  index = head_++;
  return true;
}

bool RecvQueue::resize(uint32_t max_wr) {
  if (posted() > max_wr) return false;
  RecvQueue fresh(max_wr, max_sge_);
  for (uint32_t i = head_; i != tail_; ++i) {
    const Slot& slot = slots_[i & mask_];
    const RecvWr wr{slot.wr_id, sges_.data() + size_t{i & mask_} * max_sge_, slot.num_sge};
    fresh.post(wr);
  }
  *this = std::move(fresh);
  return true;
}

}  // namespace tbt::verbs
