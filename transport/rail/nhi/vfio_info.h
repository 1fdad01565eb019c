// The kernel's answers of variable length: a fixed structure, and behind it a chain of capabilities
// by offsets. Nothing in it is believed before it is checked.
#pragma once

#include <linux/vfio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "rail/nhi/vfio_kernel.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

// `Info` is one of the structures that begin with argsz and flags and have a cap_offset.
template <typename Info>
class VfioInfo {
 public:
  // Asks twice if the first answer says that it needs more room.
  Status ask(VfioKernel& kernel, int fd, unsigned long request, Info info) noexcept {
    info.argsz = sizeof info;
    bytes_.assign(sizeof info, std::byte{});
    for (int round = 0; round < 2; ++round) {
      info.argsz = static_cast<uint32_t>(bytes_.size());
      std::memcpy(bytes_.data(), &info, sizeof info);
      const int result = kernel.ioctl(fd, request, bytes_.data());
      if (result < 0) return Status(-result, "the kernel does not describe the device");
      const uint32_t needed = fixed().argsz;
      if (needed <= bytes_.size()) return {};
      if (needed > kAnswerMax) return Status(EIO, "the kernel's description is too long");
      bytes_.assign(needed, std::byte{});
    }
    return Status(EIO, "the kernel's description keeps growing");
  }

  [[nodiscard]] Info fixed() const noexcept {
    Info info;
    std::memcpy(&info, bytes_.data(), sizeof info);
    return info;
  }

  // The bytes of a capability from its header to the end of the answer; empty: there is none.
  [[nodiscard]] std::vector<std::byte> capability(uint16_t id, uint32_t first) const {
    uint32_t at = first;
    for (int steps = 0; steps < kChainMax && at >= sizeof(Info); ++steps) {
      vfio_info_cap_header header{};
      if (at > bytes_.size() || bytes_.size() - at < sizeof header) break;
      std::memcpy(&header, bytes_.data() + at, sizeof header);
      if (header.id == id) return {bytes_.begin() + at, bytes_.end()};
      at = header.next;
    }
    return {};
  }

 private:
  static constexpr uint32_t kAnswerMax = 64 * 1024;
  static constexpr int kChainMax = 32;

  std::vector<std::byte> bytes_;
};

// Entries of a capability that begins with a `Head` whose member `count` says how many follow;
// fewer if the answer ends before.
template <typename Entry, typename Head>
std::vector<Entry> entries_of(const std::vector<std::byte>& bytes, uint32_t Head::*count) {
  Head head{};
  if (bytes.size() < sizeof head) return {};
  std::memcpy(&head, bytes.data(), sizeof head);
  const size_t room = (bytes.size() - sizeof head) / sizeof(Entry);
  std::vector<Entry> entries(head.*count < room ? head.*count : room);
  if (!entries.empty()) {
    std::memcpy(entries.data(), bytes.data() + sizeof head, entries.size() * sizeof(Entry));
  }
  return entries;
}

}  // namespace tbt::rail::nhi
