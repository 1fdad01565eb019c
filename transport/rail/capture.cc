#include "rail/capture.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "rail/shared_rail.h"
#include "sys/monotonic_clock.h"

namespace tbt::rail {
namespace {

constexpr int64_t kHoleNs =
    100 * 1000 * 1000;  // an entry not published for so long has a dead writer

int64_t wall_clock_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

CaptureEntry* entries_of(RailState& state, const RailGeometry& geometry) noexcept {
  return reinterpret_cast<CaptureEntry*>(reinterpret_cast<std::byte*>(&state) +
                                         geometry.capture_area);
}

// The reader's patience with the entry it stands before; one reader at a time, so one is enough.
struct Patience {
  const void* entry = nullptr;
  uint64_t number = 0;
  int64_t since_ns = 0;
};
thread_local Patience patience;

bool is_hole(const CaptureEntry* entry, uint64_t number) noexcept {
  const int64_t now = sys::monotonic_now().ns;
  if (patience.entry != entry || patience.number != number) {
    patience = {entry, number, now};
    return false;
  }
  return now - patience.since_ns >= kHoleNs;
}

}  // namespace

void CaptureRing::put(bool sent, const std::byte* data, uint32_t length, uint8_t sof,
                      uint8_t eof) noexcept {
  uint64_t number = shared_->capture_put.load(std::memory_order_relaxed);
  do {
    if (number - shared_->capture_taken.load(std::memory_order_acquire) >= kCaptureEntries) {
      shared_->capture_lost.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  } while (
      !shared_->capture_put.compare_exchange_weak(number, number + 1, std::memory_order_relaxed));
  CaptureEntry& entry = entries_[number % kCaptureEntries];
  entry.time_ns = wall_clock_ns();
  entry.length = length;
  entry.sof = sof;
  entry.eof = eof;
  entry.sent = sent;
  std::memcpy(entry.data, data, length);
  entry.published.store(number + 1, std::memory_order_release);
}

void enable_capture(HostMemory& memory, uint32_t rail, bool on) noexcept {
  SharedState& shared = RailMemory::rail(memory, rail).shared;
  shared.capturing.store(on ? 1 : 0, std::memory_order_relaxed);
}

bool read_capture(HostMemory& memory, uint32_t rail, CapturedFrame& frame,
                  std::byte (&buffer)[kFrameBytes]) noexcept {
  RailState& state = RailMemory::rail(memory, rail);
  CaptureEntry* const entries = entries_of(state, RailMemory::geometry(memory));
  for (;;) {
    const uint64_t number = state.shared.capture_taken.load(std::memory_order_relaxed);
    if (number == state.shared.capture_put.load(std::memory_order_acquire)) return false;
    const CaptureEntry& entry = entries[number % kCaptureEntries];
    const bool complete = entry.published.load(std::memory_order_acquire) == number + 1;
    if (!complete && !is_hole(&entry, number)) return false;
    if (complete) {
      const uint32_t length = std::min(entry.length, static_cast<uint32_t>(kFrameBytes));
      frame = {entry.time_ns, entry.sent, entry.sof, entry.eof, length};
      std::memcpy(buffer, entry.data, length);
    } else {
      state.shared.capture_lost.fetch_add(1, std::memory_order_relaxed);
    }
    state.shared.capture_taken.store(number + 1, std::memory_order_release);
    if (complete) return true;
  }
}

uint64_t capture_lost(HostMemory& memory, uint32_t rail) noexcept {
  return RailMemory::rail(memory, rail).shared.capture_lost.load(std::memory_order_relaxed);
}

}  // namespace tbt::rail
