// Thread domains and parent domains.
//
// A parent domain is a name for its protection domain: the transport sees the protection domain
// only, so objects made on either work with each other. The memory of queues is the transport's,
// not the provider's: custom allocators are kept to the rules and never called. Nor does a thread
// domain take a lock away; it promises more than we need.
#include <new>

#include "forward.h"
#include "objects.h"

namespace tbt::provider {
namespace {

bool is_valid(ibv_context* context, const ibv_parent_domain_init_attr& attr) noexcept {
  constexpr uint32_t kKnown =
      IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
  if ((attr.comp_mask & ~kKnown) != 0) return false;
  const bool allocators = (attr.comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) != 0;
  if (allocators && (attr.alloc == nullptr || attr.free == nullptr)) return false;
  if (attr.pd == nullptr || attr.pd->context != context || ours(attr.pd).protection != nullptr) {
    return false;
  }
  return attr.td == nullptr || attr.td->context == context;
}

}  // namespace

ibv_td* alloc_td(ibv_context* context, ibv_td_init_attr* attr) noexcept {
  if (attr->comp_mask != 0) return fail(EINVAL);
  auto* td = new (std::nothrow) Td{};
  if (td == nullptr) return fail(ENOMEM);
  td->context = context;
  return td;
}

int dealloc_td(ibv_td* td) noexcept {
  if (ours(td).users != 0) return EBUSY;
  delete &ours(td);
  return 0;
}

ibv_pd* alloc_parent_domain(ibv_context* context, ibv_parent_domain_init_attr* attr) noexcept {
  if (!is_valid(context, *attr)) return fail(EINVAL);
  auto* pd = new (std::nothrow) Pd{};
  if (pd == nullptr) return fail(ENOMEM);
  pd->context = context;
  pd->impl = ours(attr->pd).impl;
  pd->protection = &ours(attr->pd);
  pd->thread = attr->td != nullptr ? &ours(attr->td) : nullptr;
  ++pd->protection->users;
  if (pd->thread != nullptr) ++pd->thread->users;
  return pd;
}

int dealloc_parent_domain(Pd& pd) noexcept {
  if (pd.users != 0) return EBUSY;
  --pd.protection->users;
  if (pd.thread != nullptr) --pd.thread->users;
  delete &pd;
  return 0;
}

}  // namespace tbt::provider
