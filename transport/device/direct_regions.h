// DirectRegions: which of this process's memory the controller reads by itself, and how long
// it may still do so.
//
// Mapping is tried for every region that could fill a payload frame. What cannot be mapped (a model
// that does not see this process, a limit of locked memory, memory that is not ordinary) is copied
// as ever, and counted in the process's slot. Mapped pages stay pinned, and are charged to this
// process, until they are unmapped or the daemon takes them back after its death.
//
// A mapping goes only when no ring has a frame of it any more: passed().
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "fabric/attach.h"

namespace tbt::device {

class DirectRegions {
 public:
  // Whole pages around a region; bytes 0: not mapped.
  struct Mapping {
    uint64_t iova = 0, bytes = 0;
    uint64_t dma = 0;  // of the region's first byte
  };
  // How far the rails had come after this process's last such frames.
  using Marks = std::array<uint32_t, rail::kRailsMax>;

  explicit DirectRegions(fabric::Attachment& host) noexcept : host_(host) {}

  // Any thread, and better without the process's lock: pinning takes its time. Throws
  // std::bad_alloc.
  Mapping map(void* base, size_t length);
  void unmap(const Mapping& mapping) noexcept;

  // With the process's lock held.
  void committed(uint32_t rail, uint32_t posted) noexcept {
    marks_[rail] = posted;
    used_ |= 1u << rail;
  }
  [[nodiscard]] const Marks& marks() const noexcept { return marks_; }
  // Whether the controller has read all frames up to there.
  bool passed(const Marks& marks) noexcept;

 private:
  [[nodiscard]] rail::Slot& slot() const noexcept { return host_.memory->slot(host_.slot); }

  fabric::Attachment& host_;
  std::mutex mutex_;  // of the device's mappings
  Marks marks_{};
  uint32_t used_ = 0;  // rails that may have frames of ours left
};

}  // namespace tbt::device
