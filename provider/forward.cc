// Finds the real libibverbs, and the verbs that exist for our objects only to say no.
#include "forward.h"

#include <dlfcn.h>

#include "objects.h"
#include "verbs_abi.h"

namespace tbt::provider {

void* real_symbol(const char* name) noexcept {
  // Already loaded as our dependency; a second dlopen of the same path only finds it again.
  static std::atomic<void*> found{nullptr};
  void* library = found.load(std::memory_order_acquire);
  if (library == nullptr) {
    library = dlopen(TBT_REAL_LIBIBVERBS, RTLD_LAZY | RTLD_LOCAL);
    found.store(library, std::memory_order_release);
  }
  return library != nullptr ? dlsym(library, name) : nullptr;
}

}  // namespace tbt::provider

using tbt::provider::is_ours;

TBT_VERB int ibv_attach_mcast(ibv_qp* qp, const ibv_gid* gid, uint16_t lid) {
  if (!is_ours(qp->context)) TBT_FORWARD(ibv_attach_mcast, EOPNOTSUPP, qp, gid, lid);
  return EOPNOTSUPP;
}

TBT_VERB int ibv_detach_mcast(ibv_qp* qp, const ibv_gid* gid, uint16_t lid) {
  if (!is_ours(qp->context)) TBT_FORWARD(ibv_detach_mcast, EOPNOTSUPP, qp, gid, lid);
  return EOPNOTSUPP;
}

// Only RoCE needs an Ethernet address; our port says that it is InfiniBand.
TBT_VERB int ibv_resolve_eth_l2_from_gid(ibv_context* context, ibv_ah_attr* attr,
                                         uint8_t eth_mac[ETHERNET_LL_SIZE], uint16_t* vid) {
  if (!is_ours(context)) {
    TBT_FORWARD(ibv_resolve_eth_l2_from_gid, -EOPNOTSUPP, context, attr, eth_mac, vid);
  }
  errno = EOPNOTSUPP;
  return -EOPNOTSUPP;
}
