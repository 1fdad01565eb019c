// The extended poll interface: one completion at a time, read field by field.
//
// A completion leaves the transport's queue when start_poll or next_poll presents it, so end_poll
// has nothing to advance and is harmless after any ENOENT.
#include <ctime>

#include "cq.h"

namespace tbt::provider {
namespace {

constexpr uint64_t kSupportedFlags = uint64_t{IBV_WC_STANDARD_FLAGS} |
                                     IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
                                     IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK;

// 0, ENOENT or the error of an overflowed CQ.
int present_next(Cq& cq) noexcept {
  const int got = cq.impl->poll({&cq.current, 1});
  if (got == 0) return ENOENT;
  if (got < 0) return -got;
  cq.wr_id = cq.current.wr_id;
  cq.status = static_cast<ibv_wc_status>(cq.current.status);
  return 0;
}

int start_poll(ibv_cq_ex* ex, ibv_poll_cq_attr* attr) {
  Cq& cq = ours(ex);
  if (attr != nullptr && attr->comp_mask != 0) return EINVAL;
  if (!cq.single_threaded) cq.polling.lock();
  const int code = present_next(cq);
  cq.in_poll = code == 0;
  if (code != 0 && !cq.single_threaded) cq.polling.unlock();
  return code;
}

int next_poll(ibv_cq_ex* ex) { return present_next(ours(ex)); }

void end_poll(ibv_cq_ex* ex) {
  Cq& cq = ours(ex);
  if (!cq.in_poll) return;
  cq.in_poll = false;
  if (!cq.single_threaded) cq.polling.unlock();
}

const Wc& current(ibv_cq_ex* ex) noexcept { return ours(ex).current; }

ibv_wc_opcode read_opcode(ibv_cq_ex* cq) { return static_cast<ibv_wc_opcode>(current(cq).opcode); }
uint32_t read_vendor_err(ibv_cq_ex* cq) { return current(cq).vendor_err; }
uint32_t read_byte_len(ibv_cq_ex* cq) { return current(cq).byte_len; }
__be32 read_imm_data(ibv_cq_ex* cq) { return current(cq).imm_be; }
uint32_t read_qp_num(ibv_cq_ex* cq) { return current(cq).qp_num; }
uint32_t read_src_qp(ibv_cq_ex* cq) { return current(cq).src_qp; }
unsigned int read_wc_flags(ibv_cq_ex* cq) { return current(cq).flags; }
uint32_t read_slid(ibv_cq_ex* cq) { return current(cq).slid; }
uint8_t read_sl(ibv_cq_ex* cq) { return current(cq).sl; }
uint8_t read_dlid_path_bits(ibv_cq_ex*) { return 0; }
uint64_t read_completion_ts(ibv_cq_ex* cq) { return current(cq).timestamp_ns; }

uint64_t realtime_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// How long ago the completion was made, told on the wall clock.
uint64_t read_completion_wallclock(ibv_cq_ex* cq) {
  const uint64_t age = state_of(cq->context).impl->now_ns() - current(cq).timestamp_ns;
  return realtime_ns() - age;
}

void set_poll_functions(Cq& cq) noexcept {
  cq.start_poll = start_poll;
  cq.next_poll = next_poll;
  cq.end_poll = end_poll;
  cq.read_opcode = read_opcode;
  cq.read_vendor_err = read_vendor_err;
  cq.read_byte_len = read_byte_len;
  cq.read_imm_data = read_imm_data;
  cq.read_qp_num = read_qp_num;
  cq.read_src_qp = read_src_qp;
  cq.read_wc_flags = read_wc_flags;
  cq.read_slid = read_slid;
  cq.read_sl = read_sl;
  cq.read_dlid_path_bits = read_dlid_path_bits;
  cq.read_completion_ts = read_completion_ts;
  cq.read_completion_wallclock_ns = read_completion_wallclock;
}

bool is_parent_domain(ibv_context* context, ibv_pd* pd) noexcept {
  return pd != nullptr && pd->context == context && ours(pd).protection != nullptr;
}

}  // namespace

ibv_cq_ex* create_cq_ex(ibv_context* context, ibv_cq_init_attr_ex* attr) noexcept {
  constexpr uint32_t kSupportedMask = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
  constexpr uint32_t kSupportedCreateFlags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
  const uint32_t create_flags =
      (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS) != 0 ? attr->flags : 0;
  if ((attr->comp_mask & ~kSupportedMask) != 0 || (attr->wc_flags & ~kSupportedFlags) != 0 ||
      (create_flags & ~kSupportedCreateFlags) != 0) {
    return fail(EOPNOTSUPP);
  }
  ibv_pd* const parent =
      (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) != 0 ? attr->parent_domain : nullptr;
  if ((attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) != 0 && !is_parent_domain(context, parent)) {
    return fail(EINVAL);
  }
  Cq* cq = make_cq({context, attr->cqe, attr->cq_context, attr->channel, attr->comp_vector});
  if (cq == nullptr) return nullptr;
  cq->single_threaded = (create_flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED) != 0;
  set_poll_functions(*cq);
  cq->parent_domain = parent;
  if (parent != nullptr) add_user(parent);
  return cq;
}

}  // namespace tbt::provider
