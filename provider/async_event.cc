// Asynchronous events. Acknowledging is left to the real library: its ibv_ack_async_event counts in
// the public part of the affiliated object.
#include "forward.h"
#include "objects.h"

namespace tbt::provider {

// The user pointer that we gave the transport with each object is the object itself.
void AsyncQueue::on_async_event(const AsyncEvent& event) noexcept {
  QueuedAsyncEvent queued{.event = {}, .object = event.object, .reads = nullptr};
  queued.event.event_type = static_cast<ibv_event_type>(event.type);
  switch (event.type) {
    case AsyncEventType::kCqErr: {
      auto* cq = static_cast<Cq*>(event.object);
      queued.event.element.cq = ibv_cq_ex_to_cq(cq);
      queued.reads = &cq->async_reads;
      break;
    }
    case AsyncEventType::kSrqErr:
    case AsyncEventType::kSrqLimitReached: {
      auto* srq = static_cast<Srq*>(event.object);
      queued.event.element.srq = srq;
      queued.reads = &srq->async_reads;
      break;
    }
    case AsyncEventType::kDeviceFatal:
    case AsyncEventType::kPortActive:
    case AsyncEventType::kPortErr:
    case AsyncEventType::kGidChange:
      queued.event.element.port_num = kPort;
      break;
    default: {
      auto* qp = static_cast<Qp*>(event.object);
      queued.event.element.qp = &qp->qp_base;
      queued.reads = &qp->async_reads;
      break;
    }
  }
  queue_.push(queued);
}

}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB int ibv_get_async_event(ibv_context* context, ibv_async_event* event) {
  if (!is_ours(context)) TBT_FORWARD(ibv_get_async_event, -1, context, event);
  QueuedAsyncEvent queued;
  if (!state_of(context).async.pop(queued)) return -1;
  *event = queued.event;
  return 0;
}
