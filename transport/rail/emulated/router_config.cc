// The router's and the adapters' configuration spaces: which dwords exist, which bits a manager may
// change, and what a write sets going.
#include <algorithm>

#include "rail/emulated/router_model.h"

namespace tbt::rail::emulated {
namespace {

using wire::tb::ConfigAddress;
using wire::tb::ConfigSpace;

constexpr uint32_t kAll = 0xffff'ffff;

uint32_t router_writable(uint32_t dword) noexcept {
  switch (dword) {
    case kRouterCs1:
      return kRouterDepthMask;
    case kRouterCs2:
    case kRouterCs25:
      return kAll;
    case kRouterCs3:
      return kRouterValid | kRouterRouteHighMask;
    case kRouterCs4:
      return 0xffff;
    case kRouterCs5:
      return kRouterCs5Writable;
    case kRouterCs26:
      return kOperationOpcodeMask | kOperationValid;
    default:
      break;
  }
  if (dword >= kRouterCs9 && dword < kRouterCs9 + kOperationDwords) return kAll;
  if (dword < kRouterTmu) return 0;
  const uint32_t tmu = dword - kRouterTmu;
  if (tmu == 0) return kTmuCs0Writable;
  if (tmu == 1 || tmu == 2) return 0;  // the clock, which stands still
  if (tmu == 3) return kTmuCs3Writable;
  return tmu < kTmuPostTime ? kAll : 0;
}

// The NHI's adapter has no more than the first kAdapterBasicDwords of this.
uint32_t adapter_writable(uint32_t dword) noexcept {
  switch (dword) {
    case kAdapterCs4:
      return kNfcBuffersMask;
    case kAdapterCs5:
      return kNoHotPlug | kLinkCreditsMask;
    case kLaneCs1:
      return kLaneCs1Writable;
    case kPortCs1:
      return ~(kSidebandNoResponse | kSidebandResultCode);
    case kPortCs19:
      return kPortCs19Writable;
    default:
      break;
  }
  if (dword > kAdapterTmu && dword < kPortCs0) return kAll;
  return dword >= kPortCs2 && dword < kPortCs2 + kPortDataDwords ? kAll : 0;
}

}  // namespace

// Dwords of the space, 0 if there is none.
uint32_t RouterModel::size(const ConfigAddress& address) const noexcept {
  switch (address.space) {
    case ConfigSpace::kRouter:
      return kRouterDwords;
    case ConfigSpace::kPath:
      return 2 * hops(address.adapter);
    case ConfigSpace::kCounters:
      return 0;
    case ConfigSpace::kAdapter:
      break;
  }
  if (address.adapter == 0) return 0;  // the control adapter
  if (address.adapter == nhi_adapter(ports())) return kAdapterBasicDwords;
  return address.adapter % 2 == 1 ? kAdapterDwords : kLane1Dwords;
}

// The code of the error, if there is one.
std::optional<uint8_t> RouterModel::check(const ConfigAddress& address) const noexcept {
  if (address.space != ConfigSpace::kRouter && address.adapter > nhi_adapter(ports())) {
    return wire::tb::kNoSuchAdapter;
  }
  if (uint32_t{address.offset} + address.length > size(address)) return wire::tb::kBadAddress;
  return std::nullopt;
}

std::span<uint32_t> RouterModel::adapter_space(uint32_t adapter) noexcept {
  if (adapter == nhi_adapter(ports())) return s_.nhi;
  PortSilicon& port = s_.ports[(adapter - 1) / 2];
  if (adapter % 2 == 1) return port.lane0;
  return port.lane1;
}

// Of an address that passed check().
uint32_t RouterModel::load(const ConfigAddress& address, uint32_t offset) noexcept {
  switch (address.space) {
    case ConfigSpace::kPath:
      return load_path(address.adapter, offset);
    case ConfigSpace::kAdapter:
      return adapter_space(address.adapter)[offset];
    default:
      return s_.router[offset];
  }
}

void RouterModel::store(const ConfigAddress& address, uint32_t offset, uint32_t value) noexcept {
  if (address.space == ConfigSpace::kPath) return store_path(address.adapter, offset, value);
  const bool router = address.space == ConfigSpace::kRouter;
  uint32_t& dword = router ? s_.router[offset] : adapter_space(address.adapter)[offset];
  const uint32_t mask = router ? router_writable(offset) : adapter_writable(offset);
  uint32_t next = (dword & ~mask) | (value & mask);
  // A manager can unlock, not lock.
  if (!router && offset == kAdapterCs4) next &= value | ~kAdapterLock;
  dword = next;
}

// All dwords of a write are in place: what they set going.
void RouterModel::written(const ConfigAddress& address, RouterOutput& out) {
  const uint32_t first = address.offset;
  const uint32_t end = first + address.length;
  if (address.space == ConfigSpace::kRouter) router_written(first, end, out);
  if (address.space == ConfigSpace::kAdapter) adapter_written(address.adapter, first, end, out);
}

void RouterModel::router_written(uint32_t first, uint32_t end, RouterOutput& out) {
  const auto touched = [=](uint32_t dword) { return dword >= first && dword < end; };
  uint32_t& status = s_.router[kRouterCs6];
  if (touched(kRouterCs3)) {
    const bool valid = (s_.router[kRouterCs3] & kRouterValid) != 0;
    status = valid ? status | kRouterReady : status & ~kRouterReady;
    if (valid) {  // enumerating wakes a router that slept
      s_.router[kRouterCs5] &= ~kRouterSleep;
      status &= ~kRouterSleepReady;
    }
    // A manager that starts anew has not seen what its predecessor did not acknowledge.
    for (uint32_t port = 0; port < ports(); ++port) {
      s_.ports[port].announced = s_.ports[port].acknowledged;
    }
    announce_all(out);
  }
  if (touched(kRouterCs5)) {
    const uint32_t wanted = s_.router[kRouterCs5];
    status &= ~(kRouterSleepReady | kRouterConfigurationReady);
    if ((wanted & kRouterSleep) != 0) status |= kRouterSleepReady;
    if ((wanted & kRouterConfigurationValid) != 0) status |= kRouterConfigurationReady;
  }
  if (touched(kRouterCs26)) run_operation();
}

void RouterModel::adapter_written(uint32_t adapter, uint32_t first, uint32_t end,
                                  RouterOutput& out) {
  if (adapter == nhi_adapter(ports())) return;
  const auto touched = [=](uint32_t dword) { return dword >= first && dword < end; };
  const uint32_t number = (adapter - 1) / 2;
  PortSilicon& port = s_.ports[number];
  if (touched(kLaneCs1)) out.retrain |= 1u << number;
  if (adapter != lane_adapter(number)) return;
  if (touched(kPortCs1)) run_sideband(number);
  if (touched(kPortCs19)) {
    // Who resets a port knows that it goes down; only its coming up again is news.
    if ((port.lane0[kPortCs19] & kPortReset) != 0) port.announced = port.acknowledged = false;
    out.retrain |= 1u << number;
  }
  if (touched(kAdapterCs5)) announce(number, out);
}

}  // namespace tbt::rail::emulated
