#include "sys/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

namespace tbt::sys {
namespace {

constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

}  // namespace

Result<SharedMemory> SharedMemory::create(const char* name, size_t bytes) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
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
  return SharedMemory(std::move(fd), static_cast<std::byte*>(base), bytes);
}

SharedMemory::~SharedMemory() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace tbt::sys
