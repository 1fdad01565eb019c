// Queue pairs: creation, state changes, and the two post calls.
#include <algorithm>
#include <new>

#include "forward.h"
#include "objects.h"
#include "scratch.h"
#include "send_builder.h"

namespace tbt::provider {
namespace {

// How many work requests of a chain are handed over at once.
constexpr size_t kPostBatch = 8;

QpCaps to_caps(const ibv_qp_cap& cap) noexcept {
  return {.max_send_wr = cap.max_send_wr,
          .max_recv_wr = cap.max_recv_wr,
          .max_send_sge = cap.max_send_sge,
          .max_recv_sge = cap.max_recv_sge,
          .max_inline_data = cap.max_inline_data};
}

ibv_qp_cap from_caps(const QpCaps& cap) noexcept {
  return {.max_send_wr = cap.max_send_wr,
          .max_recv_wr = cap.max_recv_wr,
          .max_send_sge = cap.max_send_sge,
          .max_recv_sge = cap.max_recv_sge,
          .max_inline_data = cap.max_inline_data};
}

uint8_t to_byte(unsigned int value) noexcept {
  return static_cast<uint8_t>(std::min(value, 0xffu));  // too large stays too large, and is refused
}

QpAttr to_attr(const ibv_qp_attr& in) noexcept {
  QpAttr out;
  out.qp_state = static_cast<QpState>(in.qp_state);
  out.cur_qp_state = static_cast<QpState>(in.cur_qp_state);
  out.path_mtu = to_byte(in.path_mtu);
  out.qkey = in.qkey;
  out.rq_psn = in.rq_psn;
  out.sq_psn = in.sq_psn;
  out.dest_qpn = in.dest_qp_num;
  out.access_flags = in.qp_access_flags & ~static_cast<unsigned int>(IBV_ACCESS_OPTIONAL_RANGE);
  out.cap = to_caps(in.cap);
  out.av = to_address_vector(in.ah_attr);
  out.pkey_index = in.pkey_index;
  out.en_sqd_async_notify = in.en_sqd_async_notify != 0;
  out.max_rd_atomic = in.max_rd_atomic;
  out.max_dest_rd_atomic = in.max_dest_rd_atomic;
  out.min_rnr_timer = in.min_rnr_timer;
  out.port_num = in.port_num;
  out.timeout = in.timeout;
  out.retry_cnt = in.retry_cnt;
  out.rnr_retry = in.rnr_retry;
  return out;
}

ibv_qp_attr from_attr(const QpAttr& in) noexcept {
  ibv_qp_attr out{};
  out.qp_state = static_cast<ibv_qp_state>(in.qp_state);
  out.cur_qp_state = static_cast<ibv_qp_state>(in.cur_qp_state);
  out.path_mtu = static_cast<ibv_mtu>(in.path_mtu);
  out.path_mig_state = IBV_MIG_MIGRATED;
  out.qkey = in.qkey;
  out.rq_psn = in.rq_psn;
  out.sq_psn = in.sq_psn;
  out.dest_qp_num = in.dest_qpn;
  out.qp_access_flags = in.access_flags;
  out.cap = from_caps(in.cap);
  out.ah_attr = from_address_vector(in.av);
  out.pkey_index = in.pkey_index;
  out.en_sqd_async_notify = in.en_sqd_async_notify ? 1 : 0;
  out.sq_draining = in.sq_draining ? 1 : 0;
  out.max_rd_atomic = in.max_rd_atomic;
  out.max_dest_rd_atomic = in.max_dest_rd_atomic;
  out.min_rnr_timer = in.min_rnr_timer;
  out.port_num = in.port_num;
  out.timeout = in.timeout;
  out.retry_cnt = in.retry_cnt;
  out.rnr_retry = in.rnr_retry;
  return out;
}

// The numbers of states are checked here: as an enum they could not be told from garbage later.
bool has_valid_states(const ibv_qp_attr& attr, int mask) noexcept {
  const bool state_ok = (mask & IBV_QP_STATE) == 0 || attr.qp_state <= IBV_QPS_ERR;
  const bool current_ok = (mask & IBV_QP_CUR_STATE) == 0 || attr.cur_qp_state <= IBV_QPS_ERR;
  return state_ok && current_ok;
}

bool is_supported(ibv_qp_type type) noexcept {
  return type == IBV_QPT_RC || type == IBV_QPT_UC || type == IBV_QPT_UD || type == IBV_QPT_XRC_SEND;
}

// `pd` is nullptr for an XRC target.
void fill(Qp& qp, ibv_context* context, ibv_pd* pd, const ibv_qp_init_attr& attr) noexcept {
  ibv_qp& base = qp.qp_base;
  base.context = context;
  base.qp_context = attr.qp_context;
  base.pd = pd;
  base.send_cq = attr.send_cq;
  base.recv_cq = attr.recv_cq;
  base.srq = attr.srq;
  base.qp_num = qp.impl->number();
  base.state = IBV_QPS_RESET;
  base.qp_type = attr.qp_type;
  pthread_mutex_init(&base.mutex, nullptr);
  pthread_cond_init(&base.cond, nullptr);
  qp.sq_sig_all = attr.sq_sig_all != 0;
}

// nullptr with errno. On success `attr` holds the granted capacities.
Qp* make_qp(ibv_pd* pd, ibv_qp_init_attr& attr) noexcept {
  if (!is_supported(attr.qp_type)) return fail(EOPNOTSUPP);
  const bool receives = attr.qp_type != IBV_QPT_XRC_SEND;
  if (attr.send_cq == nullptr || (receives && attr.recv_cq == nullptr)) return fail(EINVAL);
  auto qp = std::unique_ptr<Qp>(new (std::nothrow) Qp);
  if (!qp) return fail(ENOMEM);
  Result<tbt::Qp*> made = ours(pd).impl->create_qp(
      {.type = static_cast<QpType>(attr.qp_type),
       .send_cq = ours(attr.send_cq).impl,
       .recv_cq = receives ? ours(attr.recv_cq).impl : nullptr,
       .srq = receives && attr.srq != nullptr ? ours(attr.srq).impl : nullptr,
       .cap = to_caps(attr.cap),
       .sq_sig_all = attr.sq_sig_all != 0,
       .user = qp.get()});
  if (!made) return fail(made.error());
  qp->impl = *made;
  fill(*qp, pd->context, pd, attr);
  add_user(pd);
  QpAttr granted;
  qp->impl->query(granted);
  attr.cap = from_caps(granted.cap);
  return qp.release();
}

// An XRC target. nullptr with errno.
ibv_qp* make_target(ibv_context* context, ibv_qp_init_attr_ex& attr) noexcept {
  constexpr uint32_t kMay = IBV_QP_INIT_ATTR_XRCD | IBV_QP_INIT_ATTR_PD;  // the PD is not looked at
  if ((attr.comp_mask & ~kMay) != 0) return fail(EOPNOTSUPP);
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_XRCD) == 0 || attr.xrcd->context != context)
    return fail(EINVAL);
  auto qp = std::unique_ptr<Qp>(new (std::nothrow) Qp);
  if (!qp) return fail(ENOMEM);
  Result<tbt::Qp*> made =
      impl_of(attr.xrcd)->create_qp({.type = QpType::kXrcRecv, .user = qp.get()});
  if (!made) return fail(made.error());
  qp->impl = *made;
  attr.send_cq = attr.recv_cq = nullptr;
  attr.srq = nullptr;
  attr.cap = {};
  // The extended struct begins as the plain one.
  fill(*qp, context, nullptr, *reinterpret_cast<ibv_qp_init_attr*>(&attr));
  return &qp.release()->qp_base;
}

// Whether the transport knows the operation. TSO it does not; a FLUSH has no form here.
bool is_supported(const ibv_send_wr& wr) noexcept {
  if (wr.opcode == IBV_WR_BIND_MW) return may_post_bind(wr.bind_mw.mw, wr.bind_mw.rkey);
  return (wr.opcode <= IBV_WR_SEND_WITH_INV || wr.opcode == IBV_WR_ATOMIC_WRITE) && wr.num_sge >= 0;
}

// What the operations of RC and UC have beside their data.
void translate_remote(const ibv_send_wr& in, SendWr& out) noexcept {
  switch (in.opcode) {
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      out.remote_addr = in.wr.atomic.remote_addr;
      out.rkey = in.wr.atomic.rkey;
      out.compare_add = in.wr.atomic.compare_add;
      out.swap = in.wr.atomic.swap;
      return;
    case IBV_WR_BIND_MW:
      fill_bind(in.bind_mw.bind_info, in.bind_mw.rkey, out);
      out.num_sge = 0;
      return;
    case IBV_WR_LOCAL_INV:
      out.num_sge = 0;
      [[fallthrough]];
    case IBV_WR_SEND_WITH_INV:
      out.rkey = in.invalidate_rkey;
      return;
    default:
      out.remote_addr = in.wr.rdma.remote_addr;
      out.rkey = in.wr.rdma.rkey;
  }
}

void translate(const ibv_send_wr& in, ibv_qp_type type, SendWr& out) noexcept {
  constexpr unsigned int kFlags = kSendFence | kSendSignaled | kSendSolicited | kSendInline;
  out = {.wr_id = in.wr_id,
         .sg_list = to_sges(in.sg_list),
         .num_sge = static_cast<uint32_t>(in.num_sge),
         .opcode = static_cast<WrOpcode>(in.opcode),
         .flags = in.send_flags & kFlags,
         .imm_be = in.imm_data};
  if (type == IBV_QPT_UD) {
    out.ah = in.wr.ud.ah != nullptr ? ours(in.wr.ud.ah).impl : nullptr;
    out.remote_qpn = in.wr.ud.remote_qpn;
    out.remote_qkey = in.wr.ud.remote_qkey;
  } else {
    translate_remote(in, out);
    if (type == IBV_QPT_XRC_SEND) out.remote_qpn = in.qp_type.xrc.remote_srqn;
  }
}

ibv_send_wr* nth(ibv_send_wr* first, size_t n) noexcept {
  for (; n > 0; --n) first = first->next;
  return first;
}

}  // namespace

Qp::~Qp() {
  if (builder != nullptr) delete_send_builder(builder);
}

// The chain is cut into batches: translated on the stack, posted, and so on until the end or the
// first refusal.
int post_send(ibv_qp* ibv_qp, ibv_send_wr* wr, ibv_send_wr** bad) noexcept {
  Scratch<SendWr, kPostBatch> batch;
  Qp& qp = ours(ibv_qp);
  while (wr != nullptr) {
    ibv_send_wr* const first = wr;
    size_t count = 0;
    for (; wr != nullptr && count < batch.size() && is_supported(*wr); wr = wr->next) {
      translate(*wr, ibv_qp->qp_type, batch[count++]);
    }
    size_t posted = 0;
    const Status status =
        count > 0 ? qp.impl->post_send({batch.data(), count}, posted) : Status(EINVAL);
    if (!status) {
      *bad = nth(first, posted);
      return status.code();
    }
  }
  return 0;
}

int post_recv(ibv_qp* ibv_qp, ibv_recv_wr* wr, ibv_recv_wr** bad) noexcept {
  return post_receives(*ours(ibv_qp).impl, wr, bad);
}

ibv_qp* create_qp_ex(ibv_context* context, ibv_qp_init_attr_ex* attr) noexcept {
  constexpr uint32_t kSupported =
      IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS | IBV_QP_INIT_ATTR_CREATE_FLAGS;
  if (attr->qp_type == IBV_QPT_XRC_RECV) return make_target(context, *attr);
  const bool extended = (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) != 0;
  const bool has_create_flags =
      (attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) != 0 && attr->create_flags != 0;
  if ((attr->comp_mask & ~kSupported) != 0 || has_create_flags) return fail(EOPNOTSUPP);
  if ((attr->comp_mask & IBV_QP_INIT_ATTR_PD) == 0 || attr->pd->context != context)
    return fail(EINVAL);
  if (extended && is_supported(attr->qp_type) &&
      (attr->send_ops_flags & ~supported_send_ops(static_cast<QpType>(attr->qp_type))) != 0) {
    return fail(EOPNOTSUPP);
  }
  // The extended struct begins as the plain one.
  Qp* qp = make_qp(attr->pd, *reinterpret_cast<ibv_qp_init_attr*>(attr));
  if (qp == nullptr) return nullptr;
  if (extended && !attach_send_builder(*qp, to_caps(attr->cap))) {
    (void)qp->impl->destroy();
    remove_user(attr->pd);
    delete qp;
    return fail(ENOMEM);
  }
  return &qp->qp_base;
}

}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* attr) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_create_qp, nullptr, pd, attr);
  Qp* qp = make_qp(pd, *attr);
  return qp != nullptr ? &qp->qp_base : nullptr;
}

TBT_VERB int ibv_modify_qp(ibv_qp* qp, ibv_qp_attr* attr, int mask) {
  if (!is_ours(qp->context)) TBT_FORWARD(ibv_modify_qp, EOPNOTSUPP, qp, attr, mask);
  constexpr int kKnown = (IBV_QP_DEST_QPN << 1) - 1;
  if ((mask & ~kKnown) != 0 || !has_valid_states(*attr, mask)) return EINVAL;
  const tbt::Status status = ours(qp).impl->modify(to_attr(*attr), static_cast<uint32_t>(mask));
  if (status && (mask & IBV_QP_STATE) != 0) qp->state = attr->qp_state;
  return status.code();
}

// All attributes are filled, whatever the mask asks for.
TBT_VERB int ibv_query_qp(ibv_qp* ibv_qp, ibv_qp_attr* attr, int mask,
                          ibv_qp_init_attr* init_attr) {
  if (!is_ours(ibv_qp->context))
    TBT_FORWARD(ibv_query_qp, EOPNOTSUPP, ibv_qp, attr, mask, init_attr);
  Qp& qp = ours(ibv_qp);
  tbt::QpAttr now;
  qp.impl->query(now);
  *attr = from_attr(now);
  if ((mask & IBV_QP_STATE) != 0) ibv_qp->state = attr->qp_state;
  *init_attr = {};
  init_attr->qp_context = ibv_qp->qp_context;
  init_attr->send_cq = ibv_qp->send_cq;
  init_attr->recv_cq = ibv_qp->recv_cq;
  init_attr->srq = ibv_qp->srq;
  init_attr->cap = attr->cap;
  init_attr->qp_type = ibv_qp->qp_type;
  init_attr->sq_sig_all = qp.sq_sig_all ? 1 : 0;
  return 0;
}

// Frames of one message may travel over several cables: the bytes arrive in no promised order.
TBT_VERB int ibv_query_qp_data_in_order(ibv_qp* qp, ibv_wr_opcode op, uint32_t flags) {
  if (!is_ours(qp->context)) TBT_FORWARD(ibv_query_qp_data_in_order, 0, qp, op, flags);
  return 0;
}

TBT_VERB ibv_qp_ex* ibv_qp_to_qp_ex(ibv_qp* qp) {
  if (!is_ours(qp->context)) TBT_FORWARD(ibv_qp_to_qp_ex, nullptr, qp);
  return ours(qp).builder != nullptr ? &ours(qp) : nullptr;
}

TBT_VERB int ibv_destroy_qp(ibv_qp* ibv_qp) {
  if (!is_ours(ibv_qp->context)) TBT_FORWARD(ibv_destroy_qp, EOPNOTSUPP, ibv_qp);
  Qp& qp = ours(ibv_qp);
  if (const tbt::Status status = qp.impl->destroy(); !status) return status.code();
  state_of(ibv_qp->context).async.purge(&qp);
  wait_for_acks(ibv_qp->mutex, ibv_qp->cond, ibv_qp->events_completed, qp.async_reads);
  if (ibv_qp->pd != nullptr) remove_user(ibv_qp->pd);
  delete &qp;
  return 0;
}
