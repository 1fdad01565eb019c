// What the tests of the vfio-user server share: messages as QEMU writes them, byte by byte, and a
// controller that writes down what is asked of it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "rail/emulated/vfio_user_device.h"
#include "sys/unique_fd.h"

namespace tbt::rail::emulated::test {

using Bytes = std::vector<std::byte>;

// Integers of any width, one after the other.
template <typename... Ts>
Bytes pack(Ts... values) {
  Bytes out;
  const auto add = [&out](auto v) {
    const size_t at = out.size();
    out.resize(at + sizeof v);
    base::store(out.data() + at, v);
  };
  (add(values), ...);
  return out;
}

inline Bytes join(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Bytes text_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

constexpr uint16_t kId = 0x1234;

inline Bytes header_bytes(uint16_t command, size_t payload, uint32_t flags = 0) {
  return pack(kId, command, static_cast<uint32_t>(16 + payload), flags, uint32_t{0});
}

// A sealed memfd, as QEMU's memory-backend-memfd makes it.
inline sys::UniqueFd make_guest_memory(size_t bytes, int seals = F_SEAL_SHRINK) {
  sys::UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

inline sys::UniqueFd dup_of(const sys::UniqueFd& fd) { return sys::UniqueFd(::dup(fd.get())); }

class FakeController final : public nhi::PciDevice {
 public:
  uint32_t read32(uint32_t offset) noexcept override {
    reads.push_back(offset);
    return registers[offset];
  }
  void write32(uint32_t offset, uint32_t value) noexcept override {
    writes.emplace_back(offset, value);
    registers[offset] = value;
  }
  Result<uint64_t> dma_map(uint64_t, uint64_t) override { return Status(ENOTSUP); }
  Status dma_unmap(uint64_t, uint64_t) override { return Status(ENOTSUP); }
  [[nodiscard]] int interrupt_fd(uint32_t) const noexcept override { return -1; }
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }

  std::map<uint32_t, uint32_t> registers;
  std::vector<uint32_t> reads;
  std::vector<std::pair<uint32_t, uint32_t>> writes;
};

}  // namespace tbt::rail::emulated::test
