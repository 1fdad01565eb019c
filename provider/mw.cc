// Memory windows. Type 1 is bound by ibv_bind_mw, which posts the work request itself; type 2 by
// the application's own work request.
#include <new>

#include "objects.h"

namespace tbt::provider {

ibv_mw* alloc_mw(ibv_pd* pd, ibv_mw_type type) noexcept {
  auto mw = std::unique_ptr<Mw>(new (std::nothrow) Mw{});
  if (!mw) return fail(ENOMEM);
  if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2) return fail(EINVAL);
  Result<tbt::Mw*> made = ours(pd).impl->alloc_mw(static_cast<MwType>(type));
  if (!made) return fail(made.error());
  mw->impl = *made;
  mw->context = pd->context;
  mw->pd = pd;
  mw->rkey = mw->impl->rkey();
  mw->type = type;
  add_user(pd);
  return mw.release();
}

int dealloc_mw(ibv_mw* ibv_mw) noexcept {
  Mw& mw = ours(ibv_mw);
  if (const Status status = mw.impl->destroy(); !status) return status.code();
  remove_user(mw.pd);
  delete &mw;
  return 0;
}

bool may_post_bind(const ibv_mw* mw, uint32_t rkey) noexcept {
  return mw != nullptr && mw->type == IBV_MW_TYPE_2 && (mw->rkey ^ rkey) >> 8 == 0;
}

void fill_bind(const ibv_mw_bind_info& info, uint32_t rkey, SendWr& wr) noexcept {
  wr.opcode = WrOpcode::kBindMw;
  wr.rkey = rkey;
  wr.imm_be = info.mr != nullptr ? info.mr->lkey : 0;
  wr.remote_addr = info.addr;
  wr.compare_add = info.length;
  wr.swap = info.mw_access_flags;
}

// The key changes with each bind, so that a peer that knows the old one is shut out.
int bind_mw(ibv_qp* qp, ibv_mw* mw, ibv_mw_bind* bind) noexcept {
  if ((bind->bind_info.mw_access_flags & IBV_ACCESS_ZERO_BASED) != 0) return EINVAL;
  SendWr wr{.wr_id = bind->wr_id, .flags = bind->send_flags & (kSendFence | kSendSignaled)};
  const uint32_t rkey = ibv_inc_rkey(mw->rkey);
  fill_bind(bind->bind_info, rkey, wr);
  size_t posted = 0;
  const Status status = ours(qp).impl->post_send({&wr, 1}, posted);
  if (status) mw->rkey = rkey;
  return status.code();
}

}  // namespace tbt::provider
