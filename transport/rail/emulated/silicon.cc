#include "rail/emulated/silicon.h"

namespace tbt::rail::emulated {

const char* misuse_text(Misuse misuse) noexcept {
  switch (misuse) {
    case Misuse::kNone:
      return "";
    case Misuse::kIndexBeyondRing:
      return "index beyond the ring";
    case Misuse::kDoorbellOnStoppedRing:
      return "doorbell on a ring that is not enabled";
    case Misuse::kEnabledTwice:
      return "ring enabled twice";
    case Misuse::kEnabledUnprogrammed:
      return "ring enabled without base or size";
    case Misuse::kE2eBeforeEnable:
      return "end-to-end flow control before the ring is enabled";
    case Misuse::kChangedWhileEnabled:
      return "base or size changed while the ring is enabled";
    case Misuse::kNotPosted:
      return "descriptor without its posted flag";
    case Misuse::kRawTooLong:
      return "raw descriptor of more than 256 bytes";
    case Misuse::kWrongHalf:
      return "write to the hardware's half of an index register";
  }
  return "?";
}

void count_misuse(NhiSilicon& nhi, Misuse misuse) noexcept {
  nhi.last_misuse.store(misuse, std::memory_order_relaxed);
  nhi.misuse.fetch_add(1, std::memory_order_relaxed);
}

void store_params(CableSilicon& cable, const CableParams& p) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  cable.rate_bps.store(p.rate_bps, kOrder);
  cable.latency_ns.store(p.latency_ns, kOrder);
  cable.drop_ppm.store(p.drop_ppm, kOrder);
  cable.corrupt_ppm.store(p.corrupt_ppm, kOrder);
  cable.duplicate_ppm.store(p.duplicate_ppm, kOrder);
  cable.lost_interrupt_ppm.store(p.lost_interrupt_ppm, kOrder);
  cable.stranded_ppm.store(p.stranded_ppm, kOrder);
  cable.one_lane.store(p.one_lane ? 1 : 0, kOrder);
  cable.plugged.store(p.plugged ? 1 : 0, std::memory_order_seq_cst);
  cable.ideal.store(CableModel::is_ideal(p) ? 1 : 0, std::memory_order_seq_cst);
}

CableParams load_params(const CableSilicon& cable) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  CableParams p;
  p.rate_bps = cable.rate_bps.load(kOrder);
  p.latency_ns = cable.latency_ns.load(kOrder);
  p.drop_ppm = cable.drop_ppm.load(kOrder);
  p.corrupt_ppm = cable.corrupt_ppm.load(kOrder);
  p.duplicate_ppm = cable.duplicate_ppm.load(kOrder);
  p.lost_interrupt_ppm = cable.lost_interrupt_ppm.load(kOrder);
  p.stranded_ppm = cable.stranded_ppm.load(kOrder);
  p.plugged = cable.plugged.load(std::memory_order_acquire) != 0;
  p.one_lane = cable.one_lane.load(kOrder) != 0;
  return p;
}

}  // namespace tbt::rail::emulated
