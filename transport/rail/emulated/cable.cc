#include "rail/emulated/cable.h"

#include <algorithm>
#include <cerrno>

namespace tbt::rail::emulated {
namespace {

// A frame travels as transport packets of at most 256 bytes with a header of 4 each, and a CRC of 4
// at the end.
constexpr uint64_t wire_bytes(uint32_t length) noexcept {
  return length + 4ull * ((length + 255) / 256) + 4;
}

// Link rates: USB4 v2 Gen 4, 2 x 40 Gb/s; USB4 Gen 3, 2 x 20 Gb/s with
// 128b/132b. Nobody has published the one-way latency between two NHIs; 1 us is an assumption.
constexpr uint64_t kTb5Bps = 80'000'000'000;
constexpr uint64_t kUsb4Bps = 40'000'000'000 / 132 * 128;
constexpr int64_t kLatencyNs = 1000;

}  // namespace

Result<CableParams> cable_preset(std::string_view name) {
  CableParams params;
  if (name == "ideal") return params;
  params.latency_ns = kLatencyNs;
  if (name == "tb5") {
    params.rate_bps = kTb5Bps;
  } else if (name == "usb4-40") {
    params.rate_bps = kUsb4Bps;
  } else {
    return Status(EINVAL, "no such cable preset: ideal, tb5 and usb4-40 are known");
  }
  return params;
}

bool CableModel::is_ideal(const CableParams& p) noexcept {
  return p.rate_bps == 0 && p.latency_ns == 0 && p.drop_ppm == 0 && p.corrupt_ppm == 0 &&
         p.duplicate_ppm == 0 && p.lost_interrupt_ppm == 0 && p.stranded_ppm == 0;
}

// Every frame draws the same number of times, so that a change of one probability does not shift
// the others.
Verdict CableModel::decide(int64_t now_ns, uint32_t length, const CableParams& p) noexcept {
  Verdict v;
  v.drop = rng_.below(1000000) < p.drop_ppm;
  v.corrupt = rng_.below(1000000) < p.corrupt_ppm;
  v.duplicate = rng_.below(1000000) < p.duplicate_ppm;
  v.lost_interrupt = rng_.below(1000000) < p.lost_interrupt_ppm;
  v.stranded = rng_.below(1000000) < p.stranded_ppm;
  v.corrupt_bit = rng_.below(length * 8);
  const int64_t start = std::max(now_ns, free_at_ns_);
  int64_t took = 0;
  if (p.rate_bps != 0) {
    took = static_cast<int64_t>(wire_bytes(length) * 8 * 1'000'000'000 / p.rate_bps);
  }
  free_at_ns_ = start + took;
  v.arrival_ns = free_at_ns_ + p.latency_ns;
  return v;
}

}  // namespace tbt::rail::emulated
