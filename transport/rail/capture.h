// Capture: copies of the frames that pass a rail, in a ring in the host's memory. Any process of
// the host writes, one process reads (tools: `tbt dump`). Writers never wait: what finds no room is
// counted as lost.
//
// A writer claims an entry, fills it, and publishes it by its number. One that is killed in between
// leaves a hole, which the reader gives up after a while.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "rail/shared_state.h"

namespace tbt::rail {

struct CaptureEntry {
  std::atomic<uint64_t> published;  // number of the entry + 1 when complete
  int64_t time_ns;
  uint32_t length;
  uint8_t sof, eof;
  bool sent;
  std::byte data[kFrameBytes];
};

class CaptureRing {
 public:
  CaptureRing(RailState& state, const RailGeometry& geometry) noexcept
      : shared_(&state.shared),
        entries_(reinterpret_cast<CaptureEntry*>(reinterpret_cast<std::byte*>(&state) +
                                                 geometry.capture_area)) {}

  [[nodiscard]] bool enabled() const noexcept {
    return shared_->capturing.load(std::memory_order_relaxed) != 0;
  }
  void put(bool sent, const std::byte* data, uint32_t length, uint8_t sof, uint8_t eof) noexcept;

 private:
  SharedState* shared_;
  CaptureEntry* entries_;
};

}  // namespace tbt::rail
