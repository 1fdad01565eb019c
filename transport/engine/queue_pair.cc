#include "engine/queue_pair.h"

#include <algorithm>

#include "wire/opcode.h"

namespace tbt::engine {

namespace {

constexpr uint8_t base_of(QpType type) noexcept {
  switch (type) {
    case QpType::kRc:
      return 0x00;
    case QpType::kUc:
      return 0x20;
    case QpType::kUd:
      return 0x60;
    case QpType::kXrcSend:
    case QpType::kXrcRecv:
      break;
  }
  return wire::kXrcBase;
}

}  // namespace

QueuePair::QueuePair(const QpCaps& granted, QpType qp_type)
    : type(qp_type),
      reliable(qp_type == QpType::kRc || base_of(qp_type) == wire::kXrcBase),
      opcode_base(base_of(qp_type)),
      sq(granted, qp_type == QpType::kUd),
      rq(granted.max_recv_wr, granted.max_recv_sge) {
  attr.cap = granted;
}

Instant QueuePair::deadline() const noexcept {
  return std::min({req.ack_deadline, req.rnr_deadline, uc.request_deadline, lost_deadline});
}

}  // namespace tbt::engine
