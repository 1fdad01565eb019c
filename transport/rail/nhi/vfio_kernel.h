// VfioKernel: the system calls of the VFIO backend, so that tests can play the kernel. Every
// function that may fail returns -errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tbt::rail::nhi {

class VfioKernel {
 public:
  virtual ~VfioKernel() = default;

  // For reading and writing, closed on exec.
  virtual int open(const std::string& path) noexcept = 0;
  virtual void close(int fd) noexcept = 0;
  virtual int ioctl(int fd, unsigned long request, void* argument) noexcept = 0;
  virtual int64_t pread(int fd, void* to, size_t bytes, uint64_t offset) noexcept = 0;
  virtual int64_t pwrite(int fd, const void* from, size_t bytes, uint64_t offset) noexcept = 0;
  // Shared, for reading and writing; nullptr: refused.
  virtual std::byte* map(int fd, size_t bytes, uint64_t offset) noexcept = 0;
  virtual void unmap(std::byte* base, size_t bytes) noexcept = 0;
  virtual void sleep_us(uint32_t us) noexcept = 0;

  // The machine's own; lives for ever.
  static VfioKernel& real() noexcept;
};

}  // namespace tbt::rail::nhi
