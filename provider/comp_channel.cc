// Completion channels. Acknowledging is left to the real library, whose ibv_ack_cq_events works on
// the public struct alone.
#include <new>

#include "forward.h"
#include "objects.h"

using namespace tbt::provider;

TBT_VERB ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  if (!is_ours(context)) TBT_FORWARD(ibv_create_comp_channel, nullptr, context);
  auto channel = std::unique_ptr<CompChannel>(new (std::nothrow) CompChannel{});
  if (!channel) return fail(ENOMEM);
  if (!channel->queue.open()) return nullptr;
  channel->context = context;
  channel->fd = channel->queue.fd();
  return channel.release();
}

TBT_VERB int ibv_destroy_comp_channel(ibv_comp_channel* channel) {
  if (!is_ours(channel->context)) TBT_FORWARD(ibv_destroy_comp_channel, EOPNOTSUPP, channel);
  ibv_context* context = channel->context;
  pthread_mutex_lock(&context->mutex);
  const bool in_use = channel->refcnt > 0;
  pthread_mutex_unlock(&context->mutex);
  if (in_use) return EBUSY;
  delete &ours(channel);
  return 0;
}

TBT_VERB int ibv_get_cq_event(ibv_comp_channel* channel, ibv_cq** cq, void** cq_context) {
  if (!is_ours(channel->context)) TBT_FORWARD(ibv_get_cq_event, -1, channel, cq, cq_context);
  CompletionEvent event;
  if (!ours(channel).queue.pop(event)) return -1;
  *cq = ibv_cq_ex_to_cq(event.cq);
  *cq_context = event.cq->cq_context;
  return 0;
}
