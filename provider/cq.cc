// Completion queues: creation, polling, arming. The extended poll interface is in cq_ex.cc.
#include "cq.h"

#include <algorithm>
#include <new>

#include "forward.h"
#include "scratch.h"

namespace tbt::provider {
namespace {

// How many completions are translated at once: half a page of stack.
constexpr size_t kPollBatch = 16;

void translate(const Wc& in, ibv_wc& out) noexcept {
  out.wr_id = in.wr_id;
  out.status = static_cast<ibv_wc_status>(in.status);
  out.opcode = static_cast<ibv_wc_opcode>(in.opcode);
  out.vendor_err = in.vendor_err;
  out.byte_len = in.byte_len;
  out.imm_data = in.imm_be;
  out.qp_num = in.qp_num;
  out.src_qp = in.src_qp;
  out.wc_flags = in.flags;
  out.pkey_index = 0;
  out.slid = in.slid;
  out.sl = in.sl;
  out.dlid_path_bits = 0;
}

// A channel counts its CQs under the context's mutex, as the real library does.
void count_on_channel(ibv_context* context, ibv_comp_channel* channel, int by) noexcept {
  if (channel == nullptr) return;
  pthread_mutex_lock(&context->mutex);
  channel->refcnt += by;
  pthread_mutex_unlock(&context->mutex);
}

bool is_valid(const CqRequest& request) noexcept {
  return request.entries > 0 && request.entries <= limits::kMaxCqe && request.comp_vector >= 0 &&
         request.comp_vector < request.context->num_comp_vectors;
}

void fill(Cq& cq, const CqRequest& request) noexcept {
  cq.context = request.context;
  cq.channel = request.channel;
  cq.cq_context = request.cq_context;
  cq.cqe = static_cast<int>(cq.impl->entries());
}

}  // namespace

Cq* make_cq(const CqRequest& request) noexcept {
  if (!is_valid(request)) return fail(EINVAL);
  auto cq = std::unique_ptr<Cq>(new (std::nothrow) Cq{});
  if (!cq) return fail(ENOMEM);
  if (request.channel != nullptr) {
    cq->sink.reset(new (std::nothrow) ChannelSink(cq.get(), &ours(request.channel)));
    if (!cq->sink) return fail(ENOMEM);
  }
  pthread_mutex_init(&cq->mutex, nullptr);
  pthread_cond_init(&cq->cond, nullptr);
  Result<tbt::Cq*> made = state_of(request.context)
                              .impl->create_cq({.entries = static_cast<uint32_t>(request.entries),
                                                .sink = cq->sink.get(),
                                                .user = cq.get()});
  if (!made) return fail(made.error());
  cq->impl = *made;
  fill(*cq, request);
  count_on_channel(request.context, request.channel, 1);
  return cq.release();
}

int poll_cq(ibv_cq* cq, int count, ibv_wc* out) noexcept {
  Scratch<Wc, kPollBatch> batch;
  tbt::Cq& impl = *ours(cq).impl;
  int done = 0;
  while (done < count) {
    const size_t wanted = std::min(static_cast<size_t>(count - done), kPollBatch);
    const int got = impl.poll({batch.data(), wanted});
    if (got < 0) return done > 0 ? done : got;
    for (int i = 0; i < got; ++i) translate(batch[static_cast<size_t>(i)], out[done + i]);
    done += got;
    if (static_cast<size_t>(got) < wanted) break;
  }
  return done;
}

int modify_cq(ibv_cq* cq, ibv_modify_cq_attr* attr) noexcept {
  if (attr->attr_mask != IBV_CQ_ATTR_MODERATE) return EINVAL;
  return ours(cq).impl->moderate(attr->moderate.cq_count, attr->moderate.cq_period).code();
}

int req_notify_cq(ibv_cq* cq, int solicited_only) noexcept {
  if (ours(cq).sink && !ours(cq).sink->promise()) return ENOMEM;
  ours(cq).impl->arm(solicited_only != 0);
  return 0;
}

}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_cq* ibv_create_cq(ibv_context* context, int cqe, void* cq_context,
                               ibv_comp_channel* channel, int comp_vector) {
  if (!is_ours(context)) {
    TBT_FORWARD(ibv_create_cq, nullptr, context, cqe, cq_context, channel, comp_vector);
  }
  Cq* cq = make_cq({context, cqe, cq_context, channel, comp_vector});
  return cq != nullptr ? ibv_cq_ex_to_cq(cq) : nullptr;
}

TBT_VERB int ibv_resize_cq(ibv_cq* cq, int cqe) {
  if (!is_ours(cq->context)) TBT_FORWARD(ibv_resize_cq, EOPNOTSUPP, cq, cqe);
  if (cqe <= 0) return EINVAL;
  const tbt::Status status = ours(cq).impl->resize(static_cast<uint32_t>(cqe));
  if (status) cq->cqe = static_cast<int>(ours(cq).impl->entries());
  return status.code();
}

TBT_VERB int ibv_destroy_cq(ibv_cq* ibv_cq) {
  if (!is_ours(ibv_cq->context)) TBT_FORWARD(ibv_destroy_cq, EOPNOTSUPP, ibv_cq);
  Cq& cq = ours(ibv_cq);
  ibv_context* context = cq.context;
  if (const tbt::Status status = cq.impl->destroy(); !status) return status.code();
  // From here no new event comes. Unread ones are taken back, read ones must have been
  // acknowledged.
  if (cq.channel != nullptr) {
    cq.sink->take_back();
    ours(cq.channel).queue.purge([&cq](const CompletionEvent& event) { return event.cq == &cq; });
  }
  state_of(context).async.purge(&cq);
  wait_for_acks(cq.mutex, cq.cond, cq.comp_events_completed, cq.completion_reads);
  wait_for_acks(cq.mutex, cq.cond, cq.async_events_completed, cq.async_reads);
  count_on_channel(context, cq.channel, -1);
  if (cq.parent_domain != nullptr) remove_user(cq.parent_domain);
  delete &cq;
  return 0;
}
