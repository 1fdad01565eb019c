#include "verbs/send_queue.h"

#include <algorithm>
#include <bit>

namespace tbt::verbs {

namespace {
constexpr uint32_t kInlineLeast = 8;  // an ATOMIC WRITE may always carry its bytes
}  // namespace

SendQueue::SendQueue(const QpCaps& caps, bool with_paths)
    : capacity_(caps.max_send_wr),
      mask_(std::bit_ceil(std::max(caps.max_send_wr, 1u)) - 1),
      max_sge_(caps.max_send_sge),
      max_inline_(std::max(caps.max_inline_data, kInlineLeast)),
      wqes_(size_t{mask_} + 1),
      sges_(wqes_.size() * max_sge_),
      inline_(wqes_.size() * max_inline_),
      paths_(with_paths ? wqes_.size() : 0) {}

}  // namespace tbt::verbs
