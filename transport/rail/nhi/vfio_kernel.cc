#include "rail/nhi/vfio_kernel.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace tbt::rail::nhi {
namespace {

class RealKernel final : public VfioKernel {
 public:
  int open(const std::string& path) noexcept override {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
  }
  void close(int fd) noexcept override { ::close(fd); }
  int ioctl(int fd, unsigned long request, void* argument) noexcept override {
    const int result = ::ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
  }
  int64_t pread(int fd, void* to, size_t bytes, uint64_t offset) noexcept override {
    const ssize_t n = ::pread(fd, to, bytes, static_cast<off_t>(offset));
    return n < 0 ? -errno : n;
  }
  int64_t pwrite(int fd, const void* from, size_t bytes, uint64_t offset) noexcept override {
    const ssize_t n = ::pwrite(fd, from, bytes, static_cast<off_t>(offset));
    return n < 0 ? -errno : n;
  }
  std::byte* map(int fd, size_t bytes, uint64_t offset) noexcept override {
    void* base =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    return base == MAP_FAILED ? nullptr : static_cast<std::byte*>(base);
  }
  void unmap(std::byte* base, size_t bytes) noexcept override { ::munmap(base, bytes); }
  void sleep_us(uint32_t us) noexcept override {
    timespec rest{static_cast<time_t>(us / 1000000), static_cast<long>(us % 1000000) * 1000};
    while (::nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
  }
};

}  // namespace

VfioKernel& VfioKernel::real() noexcept {
  static RealKernel kernel;
  return kernel;
}

}  // namespace tbt::rail::nhi
