// A program's own definitions come before those of its libraries; each asks for the next one by
// dlsym(RTLD_NEXT), which may be a sanitizer's.
#include "failing_memory.h"

#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace tbt::failing_memory {
namespace {

constinit std::atomic<int64_t> live{0};
constinit std::atomic<uint32_t> left_of_all{0};
constinit std::atomic<bool> all_failed{false};
constinit thread_local uint32_t left_of_thread = 0;
constinit thread_local bool thread_failed = false;

// Before the C library's function is known, for what the search itself allocates.
alignas(16) constinit std::byte early[4096];
constinit std::atomic<size_t> early_used{0};

bool is_early(const void* block) noexcept {
  return block >= static_cast<void*>(early) && block < static_cast<void*>(early + sizeof early);
}

void* take_early(size_t bytes) noexcept {
  return early + early_used.fetch_add((bytes + 15) & ~size_t{15});
}

// Whether this allocation is the one that shall fail.
bool shall_fail() noexcept {
  if (left_of_thread != 0 && --left_of_thread == 0) {
    thread_failed = true;
    return true;
  }
  uint32_t left = left_of_all.load(std::memory_order_relaxed);
  while (left != 0) {
    if (!left_of_all.compare_exchange_weak(left, left - 1)) continue;
    if (left == 1) all_failed = true;
    return left == 1;
  }
  return false;
}

template <typename F>
class Next {
 public:
  constexpr explicit Next(const char* name) noexcept : name_(name) {}
  F get() noexcept {
    if (found_ == nullptr && !searching_) {
      searching_ = true;
      found_ = reinterpret_cast<F>(dlsym(RTLD_NEXT, name_));
      searching_ = false;
    }
    return found_;
  }

 private:
  const char* name_;
  F found_ = nullptr;
  bool searching_ = false;
};

constinit Next<void* (*)(size_t)> next_malloc("malloc");
constinit Next<void* (*)(size_t, size_t)> next_calloc("calloc");
constinit Next<void* (*)(void*, size_t)> next_realloc("realloc");
constinit Next<void (*)(void*)> next_free("free");
constinit Next<int (*)(void**, size_t, size_t)> next_memalign("posix_memalign");
constinit Next<void* (*)(void*, size_t, int, int, int, off_t)> next_mmap("mmap");
constinit Next<int (*)(const char*, unsigned int)> next_memfd("memfd_create");
constinit Next<int (*)(unsigned int, int)> next_eventfd("eventfd");

void* counted(void* block) noexcept {
  if (block != nullptr) ++live;
  return block;
}

template <typename T>
T no_memory(T failure) noexcept {
  errno = ENOMEM;
  return failure;
}

void* aligned(size_t alignment, size_t bytes) noexcept {
  void* block = nullptr;
  if (shall_fail()) return no_memory(block);
  const int code = next_memalign.get()(&block, alignment, bytes);
  if (code != 0) errno = code;
  return code == 0 ? counted(block) : nullptr;
}

}  // namespace

void arm(uint32_t nth, Whose whose) {
  thread_failed = false;
  all_failed = false;
  if (whose == Whose::kThisThread) {
    left_of_thread = nth;
  } else {
    left_of_all = nth;
  }
}

bool disarm() {
  left_of_thread = 0;
  left_of_all = 0;
  return thread_failed || all_failed;
}

int64_t live_blocks() { return live; }

}  // namespace tbt::failing_memory

using namespace tbt::failing_memory;

// LeakSanitizer knows what the dynamic loader keeps for ever by who calls malloc; here it is we.
EXPORT const char* __lsan_default_suppressions() { return "leak:_dl_map_object_deps\n"; }

EXPORT void* malloc(size_t bytes) {
  if (next_malloc.get() == nullptr) return take_early(bytes);
  return shall_fail() ? no_memory<void*>(nullptr) : counted(next_malloc.get()(bytes));
}

EXPORT void* calloc(size_t count, size_t bytes) {
  if (next_calloc.get() == nullptr) return take_early(count * bytes);  // it is zero
  return shall_fail() ? no_memory<void*>(nullptr) : counted(next_calloc.get()(count, bytes));
}

EXPORT void* realloc(void* block, size_t bytes) {
  if (block == nullptr) return malloc(bytes);
  return shall_fail() ? no_memory<void*>(nullptr) : next_realloc.get()(block, bytes);
}

EXPORT void free(void* block) {
  if (block == nullptr || is_early(block)) return;
  const auto next = next_free.get();
  if (next == nullptr) return;  // the search itself frees a text of its own
  --live;
  next(block);
}

EXPORT int posix_memalign(void** block, size_t alignment, size_t bytes) {
  const int before = errno;
  void* made = aligned(alignment, bytes);
  if (made == nullptr) return errno;
  errno = before;
  *block = made;
  return 0;
}

EXPORT void* aligned_alloc(size_t alignment, size_t bytes) { return aligned(alignment, bytes); }

EXPORT void* mmap(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if (shall_fail()) return no_memory<void*>(reinterpret_cast<void*>(-1));
  return next_mmap.get()(at, bytes, protection, flags, fd, offset);
}
EXPORT void* mmap64(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  return mmap(at, bytes, protection, flags, fd, offset);
}

EXPORT int memfd_create(const char* name, unsigned int flags) {
  return shall_fail() ? no_memory(-1) : next_memfd.get()(name, flags);
}

EXPORT int eventfd(unsigned int value, int flags) {
  return shall_fail() ? no_memory(-1) : next_eventfd.get()(value, flags);
}

// A sanitizer's operator new would not come by malloc.
__attribute__((visibility("default"))) void* operator new(size_t bytes) {
  void* block = malloc(bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
__attribute__((visibility("default"))) void* operator new(size_t bytes,
                                                          const std::nothrow_t&) noexcept {
  return malloc(bytes);
}
__attribute__((visibility("default"))) void* operator new(size_t bytes, std::align_val_t align) {
  void* block = aligned(static_cast<size_t>(align), bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
__attribute__((visibility("default"))) void operator delete(void* block) noexcept { free(block); }
__attribute__((visibility("default"))) void operator delete(void* block, size_t) noexcept {
  free(block);
}
__attribute__((visibility("default"))) void operator delete(void* block,
                                                            std::align_val_t) noexcept {
  free(block);
}
__attribute__((visibility("default"))) void operator delete(void* block, size_t,
                                                            std::align_val_t) noexcept {
  free(block);
}
