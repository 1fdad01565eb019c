// SharedMemory: an anonymous, sealed, shared memory (memfd) and its mapping in this process.
//
// It has no name in any file system: it lives as long as somebody holds its descriptor or a
// mapping, so a killed owner leaves nothing behind. The seals fix its size, so that no other holder
// can shrink it under us.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::sys {

enum class Pages : uint8_t {
  kSmall,
  kLarge,  // of 2 MiB if the machine has enough set aside (vm.nr_hugepages), else small ones
};
inline constexpr size_t kLargePageBytes = size_t{2} << 20;

class SharedMemory {
 public:
  // Zero-filled. `name` is only seen in /proc. Large pages are taken only where `bytes` is a
  // multiple of them, and then all at once.
  static Result<SharedMemory> create(const char* name, size_t bytes, Pages pages = Pages::kSmall);
  // Maps the whole of a memory that create() made in another process; refuses one that is not
  // sealed.
  static Result<SharedMemory> map(UniqueFd fd);

  SharedMemory(SharedMemory&& other) noexcept
      : fd_(std::move(other.fd_)),
        base_(std::exchange(other.base_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        page_bytes_(other.page_bytes_) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(base_, other.base_);
    std::swap(bytes_, other.bytes_);
    std::swap(page_bytes_, other.page_bytes_);
    return *this;
  }
  ~SharedMemory();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] std::byte* base() const noexcept { return base_; }
  [[nodiscard]] size_t bytes() const noexcept { return bytes_; }
  // Of what the memory is made: 4096, or kLargePageBytes.
  [[nodiscard]] size_t page_bytes() const noexcept { return page_bytes_; }

  // Takes the page faults of a range now, which the first touch of each page would cost otherwise:
  // pages that nobody has used yet are allocated. Nothing changes in it. Cut to the mapping; where
  // there is no memory for it, the rest is left to the first touch.
  void populate(size_t offset, size_t bytes) const noexcept;

 private:
  SharedMemory(UniqueFd fd, std::byte* base, size_t bytes, size_t page_bytes) noexcept
      : fd_(std::move(fd)), base_(base), bytes_(bytes), page_bytes_(page_bytes) {}

  static Result<SharedMemory> create_of(const char* name, size_t bytes, unsigned flags);

  UniqueFd fd_;
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
  size_t page_bytes_ = 0;
};

}  // namespace tbt::sys
