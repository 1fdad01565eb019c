// Shared receive queues. ibv_create_srq_ex comes here for XRC and for what we lack (tag matching):
// for the basic kind verbs.h calls ibv_create_srq.
#include <new>

#include "forward.h"
#include "objects.h"

namespace tbt::provider {

namespace {

// What an XRC one has beside the basic kind.
struct XrcPart {
  tbt::Xrcd* xrcd = nullptr;
  tbt::Cq* cq = nullptr;
};

// nullptr with errno. On success `attr` holds the granted sizes.
ibv_srq* make_srq(ibv_pd* pd, ibv_srq_init_attr& attr, const XrcPart& xrc) noexcept {
  auto srq = std::unique_ptr<Srq>(new (std::nothrow) Srq{});
  if (!srq) return fail(ENOMEM);
  Result<tbt::Srq*> made = ours(pd).impl->create_srq({.max_wr = attr.attr.max_wr,
                                                      .max_sge = attr.attr.max_sge,
                                                      .limit = 0,
                                                      .user = srq.get(),
                                                      .xrcd = xrc.xrcd,
                                                      .cq = xrc.cq});
  if (!made) return fail(made.error());
  srq->impl = *made;
  srq->context = pd->context;
  srq->srq_context = attr.srq_context;
  srq->pd = pd;
  pthread_mutex_init(&srq->mutex, nullptr);
  pthread_cond_init(&srq->cond, nullptr);
  const SrqOptions granted = srq->impl->query();
  attr.attr.max_wr = granted.max_wr;
  attr.attr.max_sge = granted.max_sge;
  add_user(pd);
  return srq.release();
}

// nullptr with errno.
ibv_srq* make_xrc_srq(ibv_context* context, ibv_srq_init_attr_ex& attr) noexcept {
  constexpr uint32_t kNeeded =
      IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
  if ((attr.comp_mask & ~kNeeded) != 0) return fail(EOPNOTSUPP);
  if (attr.comp_mask != kNeeded || attr.pd->context != context || attr.xrcd->context != context ||
      attr.cq->context != context) {
    return fail(EINVAL);
  }
  // The extended struct begins as the plain one.
  return make_srq(attr.pd, *reinterpret_cast<ibv_srq_init_attr*>(&attr),
                  {.xrcd = impl_of(attr.xrcd), .cq = ours(attr.cq).impl});
}

}  // namespace

int post_srq_recv(ibv_srq* srq, ibv_recv_wr* wr, ibv_recv_wr** bad) noexcept {
  return post_receives(*ours(srq).impl, wr, bad);
}

ibv_srq* create_srq_ex(ibv_context* context, ibv_srq_init_attr_ex* attr) noexcept {
  constexpr uint32_t kSupported = IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_TYPE;
  if ((attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) != 0 && attr->srq_type == IBV_SRQT_XRC)
    return make_xrc_srq(context, *attr);
  const bool basic =
      (attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE) == 0 || attr->srq_type == IBV_SRQT_BASIC;
  if ((attr->comp_mask & ~kSupported) != 0 || !basic) return fail(EOPNOTSUPP);
  if ((attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) == 0 || attr->pd->context != context)
    return fail(EINVAL);
  // The extended struct begins as the plain one.
  return ibv_create_srq(attr->pd, reinterpret_cast<ibv_srq_init_attr*>(attr));
}

int get_srq_num(ibv_srq* srq, uint32_t* number) noexcept {
  *number = ours(srq).impl->number();
  return 0;
}

}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_srq* ibv_create_srq(ibv_pd* pd, ibv_srq_init_attr* attr) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_create_srq, nullptr, pd, attr);
  return make_srq(pd, *attr, {});
}

TBT_VERB int ibv_modify_srq(ibv_srq* srq, ibv_srq_attr* attr, int mask) {
  if (!is_ours(srq->context)) TBT_FORWARD(ibv_modify_srq, EOPNOTSUPP, srq, attr, mask);
  if ((mask & ~(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT)) != 0) return EINVAL;
  tbt::Srq& impl = *ours(srq).impl;
  tbt::Status status;
  if ((mask & IBV_SRQ_MAX_WR) != 0) status = impl.resize(attr->max_wr);
  if (status && (mask & IBV_SRQ_LIMIT) != 0) status = impl.modify_limit(attr->srq_limit);
  return status.code();
}

TBT_VERB int ibv_query_srq(ibv_srq* srq, ibv_srq_attr* attr) {
  if (!is_ours(srq->context)) TBT_FORWARD(ibv_query_srq, EOPNOTSUPP, srq, attr);
  const tbt::SrqOptions now = ours(srq).impl->query();
  attr->max_wr = now.max_wr;
  attr->max_sge = now.max_sge;
  attr->srq_limit = now.limit;
  return 0;
}

TBT_VERB int ibv_destroy_srq(ibv_srq* ibv_srq) {
  if (!is_ours(ibv_srq->context)) TBT_FORWARD(ibv_destroy_srq, EOPNOTSUPP, ibv_srq);
  Srq& srq = ours(ibv_srq);
  if (const tbt::Status status = srq.impl->destroy(); !status) return status.code();
  state_of(srq.context).async.purge(&srq);
  wait_for_acks(srq.mutex, srq.cond, srq.events_completed, srq.async_reads);
  remove_user(srq.pd);
  delete &srq;
  return 0;
}
