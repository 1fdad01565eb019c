// Path spaces: one entry of two dwords per HopID of an ingress adapter. The data plane reads
// entries while the connection manager writes them, so an entry is one atomic word.
#include <utility>

#include "rail/emulated/router_model.h"

namespace tbt::rail::emulated {

const PathSilicon* RouterModel::paths(uint32_t adapter) const noexcept {
  if (adapter == nhi_adapter(ports())) return &s_.nhi_paths;
  if (adapter % 2 == 0 || adapter > nhi_adapter(ports())) return nullptr;  // lane 1 has none
  return &s_.lane_paths[adapter / 2];
}
PathSilicon* RouterModel::paths(uint32_t adapter) noexcept {
  return const_cast<PathSilicon*>(std::as_const(*this).paths(adapter));
}

uint32_t RouterModel::hops(uint32_t adapter) const noexcept {
  if (paths(adapter) == nullptr) return 0;
  return adapter == nhi_adapter(ports()) ? s_.shape.hop_count : kPathHopsMax;
}

uint32_t RouterModel::load_path(uint32_t adapter, uint32_t offset) noexcept {
  PathSilicon& space = *paths(adapter);
  const uint64_t entry = space.entries[offset / 2].load(std::memory_order_relaxed);
  if (offset % 2 == 0) return static_cast<uint32_t>(entry);
  uint16_t& pending = space.pending_reads[offset / 2];
  if (pending == 0) return static_cast<uint32_t>(entry >> 32);
  --pending;
  return static_cast<uint32_t>((entry | kPending) >> 32);
}

void RouterModel::store_path(uint32_t adapter, uint32_t offset, uint32_t value) noexcept {
  PathSilicon& space = *paths(adapter);
  std::atomic<uint64_t>& slot = space.entries[offset / 2];
  const uint64_t old = slot.load(std::memory_order_relaxed);
  const unsigned shift = offset % 2 * 32;
  const uint64_t mask = kPathWritable & uint64_t{0xffff'ffff} << shift;
  const uint64_t entry = (old & ~mask) | (uint64_t{value} << shift & mask);
  if (adapter == nhi_adapter(ports()) && ((old ^ entry) & kVendorDefined) != 0) {
    ++s_.counters.vendor_bits_changed;
  }
  if ((old & ~entry & kPathEnable) != 0) {
    space.pending_reads[offset / 2] = s_.stuck_pending_reads;
  }
  slot.store(entry, std::memory_order_release);
  if (old != entry) paths_changed();
}

PathEntry RouterModel::path(uint32_t adapter, uint32_t hop_id) const noexcept {
  if (hop_id >= hops(adapter)) return {};
  const uint64_t entry = paths(adapter)->entries[hop_id].load(std::memory_order_acquire);
  const auto low = static_cast<uint32_t>(entry);
  PathEntry path;
  path.egress_adapter = low >> kEgressShift & kEgressMask;
  path.next_hop = low & kNextHopMask;
  path.credits = low >> kCreditsShift & kCreditsMask;
  path.drop = (entry & kDropPackets) != 0;
  path.ingress_fc = (entry & kIngressFlowControl) != 0;
  path.egress_fc = (entry & kEgressFlowControl) != 0;
  path.enabled = (entry & kPathEnable) != 0 && path.next_hop < hops(path.egress_adapter);
  return path;
}

}  // namespace tbt::rail::emulated
