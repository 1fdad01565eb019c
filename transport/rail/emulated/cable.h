// CableModel: what happens to a frame on a cable in one direction. A pure state machine: time and
// parameters come in, a verdict goes out; it knows no clock, no memory and no process, so that a
// simulation with a virtual clock uses the same one as the emulated fabric.
//
// The cable is serial: a frame starts when the one before it has left, takes length / rate to
// leave, and arrives `latency` later. Nothing overtakes.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/rng.h"
#include "tbt/status.h"

namespace tbt::rail::emulated {

// What a cable does to frames; probabilities in parts per million. Settable while the fabric runs.
struct CableParams {
  uint64_t rate_bps = 0;  // 0: as fast as the processors copy (the ideal cable)
  int64_t latency_ns = 0;
  uint32_t drop_ppm = 0;
  uint32_t corrupt_ppm = 0;  // one bit flipped; the receiver's descriptor carries the CRC flag
  uint32_t duplicate_ppm = 0;
  uint32_t lost_interrupt_ppm = 0;
  uint32_t stranded_ppm = 0;  // completion written late: only a later frame or 1 ms brings it out
  bool plugged = true;
  bool one_lane = false;  // the second pair of wires is broken
};

// "ideal", "tb5" (80 Gb/s), "usb4-40" (40 Gb/s); the source says where the figures come from.
Result<CableParams> cable_preset(std::string_view name);

inline constexpr int64_t kStrandedNs = 1000 * 1000;

struct Verdict {
  bool drop = false;
  bool duplicate = false;
  bool corrupt = false;
  bool lost_interrupt = false;
  bool stranded = false;
  uint32_t corrupt_bit = 0;  // of the frame
  int64_t arrival_ns = 0;
};

class CableModel {
 public:
  explicit constexpr CableModel(uint64_t seed) noexcept : rng_(seed) {}

  // True if frames pass at once and unharmed: decide() need not be asked.
  static bool is_ideal(const CableParams& params) noexcept;

  Verdict decide(int64_t now_ns, uint32_t length, const CableParams& params) noexcept;
  // The cable was pulled: nothing is on it any more.
  void reset() noexcept { free_at_ns_ = 0; }

 private:
  Rng rng_;
  int64_t free_at_ns_ = 0;  // when the last bit of the last frame has left
};

}  // namespace tbt::rail::emulated
