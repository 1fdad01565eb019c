#include "engine/queue_pair.h"

#include <algorithm>

namespace tbt::engine {

QueuePair::QueuePair(const QpCaps& granted, QpType qp_type)
    : type(qp_type),
      sq(granted, qp_type == QpType::kUd),
      rq(granted.max_recv_wr, granted.max_recv_sge) {
  attr.cap = granted;
}

Instant QueuePair::deadline() const noexcept {
  return std::min({req.ack_deadline, req.rnr_deadline, uc.request_deadline, lost_deadline});
}

}  // namespace tbt::engine
