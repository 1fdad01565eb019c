// Protection domains and memory regions.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "forward.h"
#include "objects.h"

// Exported since rdma-core 59 (IBVERBS_1.15) and 64 (IBVERBS_1.17); older headers do not declare
// them.
struct ibv_mr_init_attr;
struct ibv_buf;
TBT_VERB ibv_mr* ibv_reg_mr_ex(ibv_pd* pd, ibv_mr_init_attr* attr);
TBT_VERB void* ibv_alloc_buf(ibv_pd* pd, size_t size, ibv_buf** buf);
TBT_VERB void ibv_free_buf(ibv_buf* buf);
TBT_VERB ibv_mr* ibv_reg_buf_mr(ibv_pd* pd, ibv_buf* buf, void* addr, size_t length, int access);

namespace tbt::provider {
namespace {

// Hints that a device may ignore by definition.
constexpr unsigned int kOptionalAccess = IBV_ACCESS_OPTIONAL_RANGE;

// Rights that exist but that we do not give: a program may go on without them, so they are not
// EINVAL.
constexpr unsigned int kUnsupportedAccess = IBV_ACCESS_ON_DEMAND;

}  // namespace

ibv_mr* register_memory(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                        unsigned int access) noexcept {
  if ((access & kUnsupportedAccess) != 0) return fail(EOPNOTSUPP);
  auto mr = std::unique_ptr<Mr>(new (std::nothrow) Mr{});
  if (!mr) return fail(ENOMEM);
  access &= ~kOptionalAccess;
  if ((access & IBV_ACCESS_ZERO_BASED) != 0) {
    access &= ~static_cast<unsigned int>(IBV_ACCESS_ZERO_BASED);
    iova = 0;
  }
  Result<tbt::Mr*> made = ours(pd).impl->reg_mr(addr, length, iova, access);
  if (!made) return fail(made.error());
  mr->impl = *made;
  mr->access = access;
  mr->iova = iova;
  mr->context = pd->context;
  mr->pd = pd;
  mr->addr = addr;
  mr->length = length;
  mr->lkey = mr->impl->lkey();
  mr->rkey = mr->impl->rkey();
  add_user(pd);
  return mr.release();
}

namespace {

// The members of ibv_mr_init_attr that ordinary memory needs; it continues with descriptors and
// hints.
struct MrInitAttr {
  size_t length;
  int access;
  uint64_t comp_mask;
  uint64_t iova;
  void* addr;
};
enum MrInitMask : uint64_t { kMrIova = 1 << 0, kMrAddr = 1 << 1, kMrBuffer = 1 << 5 };

// What a re-registration asks for: the old values where its flags do not say otherwise.
struct Registration {
  ibv_pd* pd;
  void* addr;
  size_t length;
  uint64_t iova;
  unsigned int access;
};

// The keys stay, because peers that know the remote key go on using it.
int reregister(Mr& mr, const Registration& wanted) noexcept {
  const Status status =
      mr.impl->rereg(*ours(wanted.pd).impl, wanted.addr, wanted.length, wanted.iova, wanted.access);
  if (!status) {
    errno = status.code();
    return IBV_REREG_MR_ERR_INPUT;
  }
  add_user(wanted.pd);
  remove_user(mr.pd);
  mr.pd = wanted.pd;
  mr.addr = wanted.addr;
  mr.length = wanted.length;
  mr.iova = wanted.iova;
  mr.access = wanted.access;
  return 0;
}

// The buffers of ibv_alloc_buf that are ours; a handle says nothing else about whose it is.
constinit std::mutex buffers_mutex;
constinit std::vector<void*>* buffers = nullptr;

bool remember_buffer(void* memory) noexcept {
  const std::lock_guard lock(buffers_mutex);
  try {
    if (buffers == nullptr) buffers = new std::vector<void*>;
    buffers->push_back(memory);
    return true;
  } catch (...) {
    return false;
  }
}

bool forget_buffer(void* memory) noexcept {
  const std::lock_guard lock(buffers_mutex);
  return buffers != nullptr && std::erase(*buffers, memory) > 0;
}

// Of ordinary memory a region has some; only device memory may be registered without.
ibv_mr* register_some(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                      unsigned int access) noexcept {
  if (length == 0) return fail(EINVAL);
  return register_memory(pd, addr, length, iova, access);
}

}  // namespace
}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_pd* ibv_alloc_pd(ibv_context* context) {
  if (!is_ours(context)) TBT_FORWARD(ibv_alloc_pd, nullptr, context);
  auto pd = std::unique_ptr<Pd>(new (std::nothrow) Pd{});
  if (!pd) return fail(ENOMEM);
  tbt::Result<tbt::Pd*> made = state_of(context).impl->create_pd();
  if (!made) return fail(made.error());
  pd->impl = *made;
  pd->context = context;
  return pd.release();
}

TBT_VERB int ibv_dealloc_pd(ibv_pd* pd) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_dealloc_pd, EOPNOTSUPP, pd);
  if (ours(pd).protection != nullptr) return dealloc_parent_domain(ours(pd));
  if (ours(pd).users != 0) return EBUSY;
  const tbt::Status status = ours(pd).impl->destroy();
  if (status) delete &ours(pd);
  return status.code();
}

TBT_VERB ibv_mr* ibv_reg_mr(ibv_pd* pd, void* addr, size_t length, int access) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_reg_mr, nullptr, pd, addr, length, access);
  return register_some(pd, addr, length, reinterpret_cast<uintptr_t>(addr),
                       static_cast<unsigned int>(access));
}

TBT_VERB ibv_mr* ibv_reg_mr_iova(ibv_pd* pd, void* addr, size_t length, uint64_t iova, int access) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_reg_mr_iova, nullptr, pd, addr, length, iova, access);
  return register_some(pd, addr, length, iova, static_cast<unsigned int>(access));
}

TBT_VERB ibv_mr* ibv_reg_mr_iova2(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                                  unsigned int access) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_reg_mr_iova2, nullptr, pd, addr, length, iova, access);
  return register_some(pd, addr, length, iova, access);
}

TBT_VERB ibv_mr* ibv_reg_mr_ex(ibv_pd* pd, ibv_mr_init_attr* init_attr) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_reg_mr_ex, nullptr, pd, init_attr);
  const auto& attr = *reinterpret_cast<const MrInitAttr*>(init_attr);
  // A buffer of ibv_alloc_buf is ordinary memory; dma-bufs and steering hints we do not have.
  if ((attr.comp_mask & ~uint64_t{kMrIova | kMrAddr | kMrBuffer}) != 0) return fail(EOPNOTSUPP);
  if ((attr.comp_mask & kMrAddr) == 0) return fail(EINVAL);
  const bool has_iova = (attr.comp_mask & kMrIova) != 0;
  return register_some(pd, attr.addr, attr.length,
                       has_iova ? attr.iova : reinterpret_cast<uintptr_t>(attr.addr),
                       static_cast<unsigned int>(attr.access));
}

TBT_VERB ibv_mr* ibv_reg_dmabuf_mr(ibv_pd* pd, uint64_t offset, size_t length, uint64_t iova,
                                   int fd, int access) {
  if (!is_ours(pd->context)) {
    TBT_FORWARD(ibv_reg_dmabuf_mr, nullptr, pd, offset, length, iova, fd, access);
  }
  return fail(EOPNOTSUPP);
}

TBT_VERB int ibv_rereg_mr(ibv_mr* ibv_mr, int flags, ibv_pd* pd, void* addr, size_t length,
                          int access) {
  if (!is_ours(ibv_mr->context)) {
    TBT_FORWARD(ibv_rereg_mr, IBV_REREG_MR_ERR_INPUT, ibv_mr, flags, pd, addr, length, access);
  }
  Mr& mr = ours(ibv_mr);
  const bool new_range = (flags & IBV_REREG_MR_CHANGE_TRANSLATION) != 0;
  const bool new_pd = (flags & IBV_REREG_MR_CHANGE_PD) != 0;
  if ((flags & ~IBV_REREG_MR_FLAGS_SUPPORTED) != 0 || flags == 0 || mr.device_memory != nullptr ||
      (new_pd && pd == nullptr) || (new_range && (addr == nullptr || length == 0))) {
    errno = EINVAL;
    return IBV_REREG_MR_ERR_INPUT;
  }
  Registration wanted{mr.pd, mr.addr, mr.length, mr.iova, mr.access};
  if (new_pd) wanted.pd = pd;
  if (new_range) {
    wanted.addr = addr;
    wanted.length = length;
    wanted.iova = reinterpret_cast<uintptr_t>(addr);
  }
  if ((flags & IBV_REREG_MR_CHANGE_ACCESS) != 0) {
    wanted.access = static_cast<unsigned int>(access) & ~kOptionalAccess;
  }
  return reregister(mr, wanted);
}

TBT_VERB int ibv_dereg_mr(ibv_mr* mr) {
  if (!is_ours(mr->context)) TBT_FORWARD(ibv_dereg_mr, EOPNOTSUPP, mr);
  if (const tbt::Status status = ours(mr).impl->destroy(); !status) return status.code();
  remove_user(mr->pd);
  if (ours(mr).device_memory != nullptr) --ours(mr).device_memory->users;
  delete &ours(mr);
  return 0;
}

// Any memory will do for us: the buffer is its own handle.
TBT_VERB void* ibv_alloc_buf(ibv_pd* pd, size_t size, ibv_buf** buf) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_alloc_buf, nullptr, pd, size, buf);
  void* memory = nullptr;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (size == 0) return fail(EINVAL);
  if (const int code = posix_memalign(&memory, page, size); code != 0) return fail(code);
  if (!remember_buffer(memory)) {
    std::free(memory);
    return fail(ENOMEM);
  }
  *buf = static_cast<ibv_buf*>(memory);
  return memory;
}

TBT_VERB void ibv_free_buf(ibv_buf* buf) {
  if (buf == nullptr) return;
  if (!forget_buffer(buf)) TBT_FORWARD(ibv_free_buf, , buf);
  std::free(buf);
}

TBT_VERB ibv_mr* ibv_reg_buf_mr(ibv_pd* pd, ibv_buf* buf, void* addr, size_t length, int access) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_reg_buf_mr, nullptr, pd, buf, addr, length, access);
  return register_some(pd, addr, length, reinterpret_cast<uintptr_t>(addr),
                       static_cast<unsigned int>(access));
}
