// Device memory: the host's, because the transport copies with the processor and has no other.
// Programs get what they may rely on: offsets instead of addresses, and the limits of real device
// memory, so that what runs here runs there too.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "forward.h"
#include "objects.h"

namespace tbt::provider {
namespace {

constexpr size_t kPage = 4096;
constexpr uint32_t kLogAlignMax = 12;
constexpr size_t kCopyUnit = 4;  // what a device's bus moves at once

bool is_inside(const Dm& dm, uint64_t offset, size_t length) noexcept {
  return offset <= dm.length && length <= dm.length - offset;
}

bool can_copy(const Dm& dm, uint64_t offset, size_t length) noexcept {
  return offset % kCopyUnit == 0 && length % kCopyUnit == 0 && is_inside(dm, offset, length);
}

int copy_to(ibv_dm* ibv_dm, uint64_t offset, const void* from, size_t length) noexcept {
  Dm& dm = ours(ibv_dm);
  if (!can_copy(dm, offset, length)) return EINVAL;
  std::memcpy(dm.memory + offset, from, length);
  return 0;
}

int copy_from(void* to, ibv_dm* ibv_dm, uint64_t offset, size_t length) noexcept {
  Dm& dm = ours(ibv_dm);
  if (!can_copy(dm, offset, length)) return EINVAL;
  std::memcpy(to, dm.memory + offset, length);
  return 0;
}

}  // namespace

// Whole pages, so that no other object shares a page with what peers may write.
ibv_dm* alloc_dm(ibv_context* context, ibv_alloc_dm_attr* attr) noexcept {
  if (attr->comp_mask != 0 || attr->length == 0 || attr->log_align_req > kLogAlignMax) {
    return fail(EINVAL);
  }
  if (attr->length > kMaxDmBytes) return fail(ENOMEM);
  auto dm = std::unique_ptr<Dm>(new (std::nothrow) Dm{});
  void* memory = nullptr;
  const size_t bytes = (attr->length + kPage - 1) / kPage * kPage;
  if (!dm || posix_memalign(&memory, kPage, bytes) != 0) return fail(ENOMEM);
  std::memset(memory, 0, bytes);
  dm->context = context;
  dm->memcpy_to_dm = copy_to;
  dm->memcpy_from_dm = copy_from;
  dm->memory = static_cast<std::byte*>(memory);
  dm->length = attr->length;
  return dm.release();
}

int free_dm(ibv_dm* ibv_dm) noexcept {
  Dm& dm = ours(ibv_dm);
  if (dm.users != 0) return EBUSY;
  std::free(dm.memory);
  delete &dm;
  return 0;
}

// Device memory has no address: work requests and peers count from the start of the region.
ibv_mr* reg_dm_mr(ibv_pd* pd, ibv_dm* ibv_dm, uint64_t offset, size_t length,
                  unsigned int access) noexcept {
  Dm& dm = ours(ibv_dm);
  if (dm.context != pd->context || (access & IBV_ACCESS_ZERO_BASED) == 0 ||
      !is_inside(dm, offset, length)) {
    return fail(EINVAL);
  }
  ibv_mr* mr = register_memory(pd, dm.memory + offset, length, 0, access);
  if (mr == nullptr) return nullptr;
  mr->addr = nullptr;
  ours(mr).device_memory = &dm;
  ++dm.users;
  return mr;
}

}  // namespace tbt::provider
