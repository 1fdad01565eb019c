// Opening and closing: a context of ours is made by the real library's own constructor, then filled
// with our operations.
//
// The struct that programs know, ibv_context, is the end of a verbs_context, which grows upwards
// from release to release. The real library's constructor fills its own, perhaps newer, layout with
// operations that answer EOPNOTSUPP, so that verbs invented after us fail politely. We look for the
// embedded ibv_context in what it made:
//
//   allocation          the real library's verbs_context                       ours
//   | kFrontReserve ... | newer operations ... | operations we know | sz | ibv_context | ->
//   ContextState |
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

#include "forward.h"
#include "objects.h"
#include "transport_library.h"

namespace tbt::provider {
namespace {

// Room for our own layout to begin before the real library's, should that be the older one.
constexpr size_t kFrontReserve = 1024;
constexpr size_t kAllocationBytes = 16384;

// rdma-core's constructor of contexts; the third parameter is an offset in the shape of a pointer.
using InitAndAllocContext = void* (*)(ibv_device*, int cmd_fd, size_t bytes, verbs_context* offset,
                                      uint32_t driver_id);
using UninitContext = void (*)(verbs_context*);

// The embedded ibv_context is where a word holds the size of the verbs_context that ends with it,
// followed by the device.
ibv_context* find_context(std::byte* real_view, const ibv_device* device) noexcept {
  constexpr size_t kLast = kAllocationBytes - kFrontReserve - sizeof(ibv_context) - sizeof(void*);
  for (size_t at = 0; at + sizeof(size_t) < kLast; at += sizeof(size_t)) {
    struct {
      size_t verbs_context_bytes;
      const ibv_device* device;
    } words{};
    std::memcpy(&words, real_view + at, sizeof words);
    if (words.device == device &&
        words.verbs_context_bytes == at + sizeof(size_t) + sizeof(ibv_context)) {
      return reinterpret_cast<ibv_context*>(real_view + at + sizeof(size_t));
    }
  }
  return nullptr;
}

verbs_context* our_view(ibv_context* context) noexcept {
  return reinterpret_cast<verbs_context*>(reinterpret_cast<std::byte*>(context) -
                                          offsetof(verbs_context, context));
}

void set_operations(ibv_context* context) noexcept {
  context->ops.poll_cq = poll_cq;
  context->ops.req_notify_cq = req_notify_cq;
  context->ops.post_send = post_send;
  context->ops.post_recv = post_recv;
  context->ops.post_srq_recv = post_srq_recv;
  context->ops.alloc_mw = alloc_mw;
  context->ops.bind_mw = bind_mw;
  context->ops.dealloc_mw = dealloc_mw;
  verbs_context* view = our_view(context);
  if (view->sz < sizeof(verbs_context)) view->sz = sizeof(verbs_context);
  view->query_port = query_port;
  view->query_device_ex = query_device_ex;
  view->query_rt_values = query_rt_values;
  view->create_cq_ex = create_cq_ex;
  view->create_qp_ex = create_qp_ex;
  view->create_srq_ex = create_srq_ex;
  view->get_srq_num = get_srq_num;
  view->open_xrcd = open_xrcd;
  view->close_xrcd = close_xrcd;
  view->alloc_dm = alloc_dm;
  view->free_dm = free_dm;
  view->reg_dm_mr = reg_dm_mr;
  view->modify_cq = modify_cq;
  view->alloc_td = alloc_td;
  view->dealloc_td = dealloc_td;
  view->alloc_parent_domain = alloc_parent_domain;
}

void destroy_allocation(ContextState& state) noexcept {
  if (state.context != nullptr) {
    if (state.context->cmd_fd >= 0) close(state.context->cmd_fd);
    // The descriptors are closed by their owners; the real library must not close them too.
    state.context->cmd_fd = -1;
    state.context->async_fd = -1;
  }
  static constinit RealFunction<UninitContext> uninit("verbs_uninit_context");
  if (state.real_view != nullptr && uninit.get() != nullptr) uninit.get()(state.real_view);
  std::free(state.allocation);
}

bool allocate(ContextState& state, Device& device) noexcept {
  static constinit RealFunction<InitAndAllocContext> find("_verbs_init_and_alloc_context");
  const auto init = find.get();
  if (init == nullptr) return fail(ENOSYS) != nullptr;
  // An id no kernel driver has.
  constexpr uint32_t kNoDriver = 0;
  state.allocation = init(&device, -1, kAllocationBytes,
                          reinterpret_cast<verbs_context*>(kFrontReserve), kNoDriver);
  if (state.allocation == nullptr) return fail(ENOMEM) != nullptr;  // errno is not always kept there
  auto* real_view = static_cast<std::byte*>(state.allocation) + kFrontReserve;
  state.real_view = reinterpret_cast<verbs_context*>(real_view);
  state.context = find_context(real_view, &device);
  if (state.context == nullptr) return fail(ENOSYS) != nullptr;
  *reinterpret_cast<ContextState**>(state.context + 1) = &state;
  return true;
}

// cmd_fd is an eventfd that nobody signals: programs dup() it or set flags on it.
bool fill(ContextState& state) noexcept {
  ibv_context* context = state.context;
  context->cmd_fd = eventfd(0, EFD_CLOEXEC);
  if (context->cmd_fd < 0) return false;
  context->async_fd = state.async.fd();
  const unsigned cores = std::thread::hardware_concurrency();
  context->num_comp_vectors = cores > 0 ? static_cast<int>(cores) : 1;
  set_operations(context);
  return true;
}

ibv_context* open_ours(Device& device) noexcept {
  const TransportLibrary* transport = transport_library();
  if (transport == nullptr) return fail(ENODEV);
  auto state = std::unique_ptr<ContextState>(new (std::nothrow) ContextState);
  if (!state) return fail(ENOMEM);
  if (!state->async.open()) return nullptr;
  if (!allocate(*state, device) || !fill(*state)) {
    const int code = errno;
    destroy_allocation(*state);
    return fail(code);
  }
  Result<tbt::Context*> opened = transport->open(device.name, &state->async);
  if (!opened) {
    destroy_allocation(*state);
    return fail(opened.error());
  }
  state->impl = *opened;
  return state.release()->context;
}

}  // namespace
}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_context* ibv_open_device(ibv_device* device) {
  if (!is_ours(device)) TBT_FORWARD(ibv_open_device, nullptr, device);
  return open_ours(ours(device));
}

TBT_VERB int ibv_close_device(ibv_context* context) {
  if (!is_ours(context)) TBT_FORWARD(ibv_close_device, EOPNOTSUPP, context);
  std::unique_ptr<ContextState> state(&state_of(context));
  forget_xrcds(context);
  state->impl->close();
  destroy_allocation(*state);
  return 0;
}
