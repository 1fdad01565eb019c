#include "sys/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#ifndef MADV_POPULATE_READ  // Linux 5.14
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace tbt::sys {
namespace {

constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
constexpr size_t kPage = 4096;
constexpr unsigned kHuge2Mb = 21u << 26;  // log2 of the page, where memfd_create looks for it

}  // namespace

// A large page that is missing would be a signal in the middle of something, so all are got now.
Result<SharedMemory> SharedMemory::create(const char* name, size_t bytes, Pages pages) {
  if (pages == Pages::kLarge && bytes % kLargePageBytes == 0) {
    auto large = create_of(name, bytes, MFD_HUGETLB | kHuge2Mb);
    if (large && madvise(large->base(), bytes, MADV_POPULATE_WRITE) == 0) return large;
  }
  return create_of(name, bytes, 0);
}

Result<SharedMemory> SharedMemory::create_of(const char* name, size_t bytes, unsigned flags) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  if (!fd) return Status(errno, "memfd_create failed");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return Status(errno, "cannot size the shared memory");
  }
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0)
    return Status(errno, "cannot seal the shared memory");
  return map(std::move(fd));
}

Result<SharedMemory> SharedMemory::map(UniqueFd fd) {
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) return Status(errno, "not a shared memory");
  if ((seals & kSeals) != kSeals) return Status(EPROTO, "shared memory is not sealed");
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return Status(errno, "fstat failed on the shared memory");
  const auto bytes = static_cast<size_t>(info.st_size);
  if (bytes == 0) return Status(EPROTO, "shared memory is empty");
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return Status(errno, "cannot map the shared memory");
  return SharedMemory(std::move(fd), static_cast<std::byte*>(base), bytes,
                      static_cast<size_t>(info.st_blksize));
}

// Reading is enough: a page of a shared file that may be written is mapped for writing by a read,
// and the kernel maps what others have used before by sixteen at a time.
void SharedMemory::populate(size_t offset, size_t bytes) const noexcept {
  const size_t first = std::min(offset, bytes_);
  const size_t end = first + std::min(bytes, bytes_ - first);
  const size_t begin = first / kPage * kPage;
  if (begin == end || madvise(base_ + begin, end - begin, MADV_POPULATE_READ) == 0) return;
  if (errno != EINVAL) return;
  for (size_t at = begin; at < end; at += kPage) {  // an older kernel
    static_cast<void>(*static_cast<const volatile std::byte*>(base_ + at));
  }
}

SharedMemory::~SharedMemory() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace tbt::sys
