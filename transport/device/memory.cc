// Protection domains, memory regions, address handles and shared receive queues.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "device/objects.h"

namespace tbt::device {

namespace {

constexpr uint32_t kKnownAccess = kAccessLocalWrite | kAccessRemoteWrite | kAccessRemoteRead |
                                  kAccessRemoteAtomic | kAccessMwBind | kAccessFlushGlobal;

// Brings the pages in, with the right to write if that is asked for. A page that is not there, or
// not so, is found now and not by a signal in the middle of a transfer.
Status check_mapping(void* addr, size_t length, bool write) noexcept {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(addr) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(addr) + length + page - 1) & ~(page - 1);
#if defined(MADV_POPULATE_READ) && defined(MADV_POPULATE_WRITE)
  const int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
#else
  const int advice = write ? 23 : 22;  // Linux 5.14
#endif
  if (::madvise(reinterpret_cast<void*>(first), end - first, advice) == 0) return {};
  if (errno == ENOMEM || errno == EFAULT || errno == EINVAL) {
    // EINVAL also means a kernel without this advice, or a mapping of a device: then only presence
    // can be checked.
    unsigned char resident = 0;
    const bool old_kernel =
        errno == EINVAL && ::mincore(reinterpret_cast<void*>(first), page, &resident) == 0;
    if (!old_kernel || write) return Status(EFAULT, "the memory is not mapped, or not writable");
  }
  return {};
}

Status check_registration(void* addr, size_t length, uint64_t iova, uint32_t access) noexcept {
  if ((access & kAccessFlushPersistent) != 0)
    return Status(EOPNOTSUPP, "memory of a process is not persistent");
  if ((access & ~kKnownAccess) != 0) return Status(EINVAL, "an access flag is not supported");
  if ((access & (kAccessRemoteWrite | kAccessRemoteAtomic)) != 0 &&
      (access & kAccessLocalWrite) == 0) {
    return Status(EINVAL, "remote write needs local write");
  }
  const auto start = reinterpret_cast<uintptr_t>(addr);
  if (start + length < start || iova + length < iova)
    return Status(EINVAL, "the range wraps around");
  return check_mapping(addr, length, (access & kAccessLocalWrite) != 0);
}

// Mapped for the controller, until somebody keeps it.
class NewMapping {
 public:
  NewMapping(Process& process, void* addr, size_t length)
      : process_(process), mapping_(process.direct().map(addr, length)) {}
  NewMapping(const NewMapping&) = delete;
  NewMapping& operator=(const NewMapping&) = delete;
  ~NewMapping() { process_.direct().unmap(mapping_); }

  [[nodiscard]] uint64_t dma() const noexcept { return mapping_.dma; }
  DirectRegions::Mapping keep() noexcept { return std::exchange(mapping_, {}); }

 private:
  Process& process_;
  DirectRegions::Mapping mapping_;
};

}  // namespace

Result<Mr*> PdImpl::reg_mr(void* addr, size_t length, uint64_t iova, uint32_t access) {
  TBT_REQUIRE_USABLE();
  if (Status status = check_registration(addr, length, iova, access); !status) return status;
  return or_no_memory([&]() -> Result<Mr*> {
    Process& process = context().process();
    NewMapping mapping(process, addr, length);
    const auto hold = process.guard();
    auto mr = context().adopt(std::make_unique<MrImpl>(context(), domain));
    const verbs::MemoryRegion region{
        0, access, &domain, iova, length, static_cast<std::byte*>(addr), mapping.dma()};
    const verbs::MemoryRegion* made = process.endpoint().register_memory(region);
    if (made == nullptr) return Status(ENOMEM, "no memory region left");
    mr->set_key(made->key);
    mr->set_mapping(mapping.keep());
    ++domain.users;
    return mr.keep();
  });
}

Status MrImpl::leave_controller() {
  if (!context().process().end_direct(key_, mapping_)) {
    return Status(EBUSY, "a ring that stands still has frames of the region");
  }
  mapping_ = {};
  return {};
}

Status MrImpl::destroy() {
  TBT_REQUIRE_USABLE();
  if (Status left = leave_controller(); !left) return left;
  Process& process = context().process();
  const auto hold = process.guard();
  if (!process.endpoint().regions().erase(key_))
    return Status(EBUSY, "a memory window is bound to the region");
  --pd_->users;
  context().discard(*this);
  return {};
}

Status MrImpl::rereg(Pd& pd, void* addr, size_t length, uint64_t iova, uint32_t access) {
  TBT_REQUIRE_USABLE();
  if (Status status = check_registration(addr, length, iova, access); !status) return status;
  if (Status left = leave_controller(); !left) return left;
  return or_no_memory([&]() -> Status {
    verbs::ProtectionDomain& domain = static_cast<PdImpl&>(pd).domain;
    Process& process = context().process();
    NewMapping mapping(process, addr, length);
    const auto hold = process.guard();
    const verbs::MemoryRegion region{
        key_, access, &domain, iova, length, static_cast<std::byte*>(addr), mapping.dma()};
    if (!process.endpoint().regions().replace(key_, region)) {
      return Status(EBUSY, "a memory window is bound to the region");
    }
    mapping_ = mapping.keep();
    --pd_->users;
    ++domain.users;
    pd_ = &domain;
    return {};
  });
}

Result<Mw*> PdImpl::alloc_mw(MwType type) {
  TBT_REQUIRE_USABLE();
  if (type != MwType::kType1 && type != MwType::kType2)
    return Status(EINVAL, "no such type of memory window");
  return or_no_memory([&]() -> Result<Mw*> {
    Process& process = context().process();
    const auto hold = process.guard();
    auto window = context().adopt(std::make_unique<MwImpl>(context(), domain, type));
    const uint32_t key = process.endpoint().add_window(type, &domain);
    if (key == 0) return Status(ENOMEM, "no memory window left");
    window->set_key(key);
    ++domain.users;
    return window.keep();
  });
}

uint32_t MwImpl::rkey() const noexcept {
  const auto hold = const_cast<MwImpl*>(this)->context().process().guard();
  return table().window_key(key_);
}

void MwImpl::forget() noexcept { table().remove_window(key_); }

Status MwImpl::destroy() {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  forget();
  --pd_->users;
  context().discard(*this);
  return {};
}

Result<Ah*> PdImpl::create_ah(const AddressVector& av) {
  TBT_REQUIRE_USABLE();
  if (av.port_num != 1) return Status(EINVAL, "port is not 1");
  if (av.is_global && av.sgid_index >= limits::kGidTableLen)
    return Status(EINVAL, "no such GID index");
  return or_no_memory([&]() -> Result<Ah*> {
    const auto hold = context().process().guard();
    auto handle = context().adopt(std::make_unique<AhImpl>(context(), domain, av));
    if (!handle->resolve()) return Status(ENETUNREACH, "no peer has that address");
    context().address_handles().push_back(handle.get());
    ++domain.users;
    return handle.keep();
  });
}

Status AhImpl::destroy() {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  std::erase(context().address_handles(), this);
  --handle.pd->users;
  context().discard(*this);
  return {};
}

Status PdImpl::destroy() {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  if (domain.users != 0) return Status(EBUSY, "objects of the protection domain live");
  context().discard(*this);
  return {};
}

Result<Srq*> PdImpl::create_srq(const SrqOptions& options) {
  TBT_REQUIRE_USABLE();
  if (options.max_wr == 0 || options.max_wr > limits::kMaxSrqWr)
    return Status(EINVAL, "no such number of requests");
  if (options.max_sge > limits::kMaxSge) return Status(EINVAL, "too many SGEs");
  const bool xrc = options.xrcd != nullptr;
  if (xrc && options.cq == nullptr) return Status(EINVAL, "an XRC SRQ needs a completion queue");
  return or_no_memory([&]() -> Result<Srq*> {
    auto made = std::make_unique<SrqImpl>(context(), domain, options);
    made->queue.limit = options.limit;
    Process& process = context().process();
    const auto hold = process.guard();
    auto srq = context().adopt(std::move(made));
    static uint32_t numbers = 0;
    do {
      numbers = (numbers + 1) & 0xffffff;
    } while (!process.endpoint().free_srq_number(numbers));
    srq->queue.number = numbers;
    if (xrc) {
      auto* const xrcd = static_cast<XrcdImpl*>(options.xrcd);
      srq->queue.xrcd = xrcd->domain.get();
      srq->queue.cq = &static_cast<CqImpl*>(options.cq)->queue;
      process.endpoint().add_xrc_srq(srq->queue);
      srq->xrcd = xrcd;
      ++srq->xrcd->users;
      ++srq->queue.cq->users;
    }
    ++domain.users;
    return srq.keep();
  });
}

Status SrqImpl::post_recv(const RecvWr& wr) noexcept {
  TBT_REQUIRE_USABLE();
  Process& process = context().process();
  const auto hold = process.guard();
  return process.endpoint().post_srq_recv(process.now(), queue, wr);
}

Status SrqImpl::modify_limit(uint32_t limit) {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  if (limit > queue.queue.capacity()) return Status(EINVAL, "limit above the size");
  queue.limit = limit;
  return {};
}

Status SrqImpl::resize(uint32_t max_wr) {
  TBT_REQUIRE_USABLE();
  if (max_wr == 0 || max_wr > limits::kMaxSrqWr)
    return Status(EINVAL, "no such number of requests");
  return or_no_memory([&]() -> Status {
    const auto hold = context().process().guard();
    if (queue.limit > max_wr || !queue.queue.resize(max_wr))
      return Status(EINVAL, "more is posted, or awaited, than would fit");
    return {};
  });
}

SrqOptions SrqImpl::query() const {
  SrqOptions options;
  const auto hold = const_cast<SrqImpl*>(this)->context().process().guard();
  options.max_wr = queue.queue.capacity();
  options.max_sge = queue.queue.max_sge();
  options.limit = queue.limit;
  return options;
}

bool SrqImpl::leave_domain() noexcept {
  if (xrcd == nullptr) return true;
  if (!context().process().endpoint().remove_xrc_srq(queue)) return false;
  --xrcd->users;
  --queue.cq->users;
  xrcd = nullptr;
  return true;
}

Status SrqImpl::destroy() {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  if (queue.users != 0) return Status(EBUSY, "a queue pair uses the shared receive queue");
  if (!leave_domain()) return Status(EBUSY, "a message is arriving in the shared receive queue");
  --queue.pd->users;
  context().discard(*this);
  return {};
}

}  // namespace tbt::device
