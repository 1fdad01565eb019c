#include "fabric/routes.h"

#include <algorithm>
#include <array>

namespace tbt::fabric {

namespace {

bool has_gid(const PortEntry& port, const wire::GidBytes& gid) noexcept {
  if (gid == wire::GidBytes{}) return false;  // where one was taken away
  return std::find(port.gids.begin(), port.gids.begin() + port.gid_count, gid) !=
         port.gids.begin() + port.gid_count;
}

bool matches(const PortEntry& port, const AddressVector& address) noexcept {
  if (port.lid == 0) return false;
  if (address.is_global && has_gid(port, address.dgid.raw)) return true;
  return address.dlid != 0 && port.lid == address.dlid;
}

const PortEntry* find_in(const std::array<PortEntry, wire::kPortsMax>& ports,
                         const AddressVector& address) noexcept {
  const auto at =
      std::ranges::find_if(ports, [&](const PortEntry& port) { return matches(port, address); });
  return at == ports.end() ? nullptr : &*at;
}

}  // namespace

Routes::Target Routes::find(const AddressVector& address) const noexcept {
  if (const PortEntry* own = find_in(data_.ports, address)) return {-1, own};
  for (uint32_t i = 0; i < kPeersMax; ++i) {
    if (!data_.peers[i].known || data_.peers[i].gone) continue;
    if (const PortEntry* port = find_in(data_.peers[i].ports, address))
      return {static_cast<int>(i), port};
  }
  return {};
}

// A cable's port has one peer, so an address that nobody else has can only mean that peer.
Routes::Target Routes::only_peer(uint8_t port) const noexcept {
  const PortEntry& from = data_.ports[port];
  if (from.cable == kAggregate) return {};
  const CableEntry& cable = data_.links[from.cable];
  if (cable.state != LinkState::kUp || cable.peer >= kPeersMax) return {};
  const PeerEntry& peer = data_.peers[cable.peer];
  const auto at = std::ranges::find_if(peer.ports, [&](const PortEntry& entry) {
    return entry.lid != 0 && entry.cable == cable.peer_cable;
  });
  return at == peer.ports.end() ? Target{} : Target{cable.peer, &*at};
}

int Routes::choose_cable(const PortEntry& from, const Target& target,
                         uint32_t spread) const noexcept {
  std::array<int, kCablesMax> usable{};
  uint32_t count = 0;
  for (uint32_t k = 0; k < data_.cables; ++k) {
    const CableEntry& cable = data_.links[k];
    if (cable.state != LinkState::kUp || cable.peer != target.peer) continue;
    if (from.cable != kAggregate && from.cable != k) continue;
    // The far end's own cable, if the address names one.
    if (from.cable == kAggregate && target.port->cable == cable.peer_cable)
      return static_cast<int>(k);
    usable[count++] = static_cast<int>(k);
  }
  return count == 0 ? -1 : usable[spread % count];
}

std::optional<Route> Routes::resolve(uint8_t port, const AddressVector& address,
                                     uint32_t spread) const {
  const PortEntry& from = data_.ports[port];
  if (address.is_global && address.sgid_index >= from.gid_count) return std::nullopt;
  Target target = find(address);
  if (target.port == nullptr) target = only_peer(port);
  if (target.port == nullptr) return std::nullopt;
  int rail = static_cast<int>(data_.cables);  // the loopback
  if (target.peer >= 0) rail = choose_cable(from, target, spread);
  if (rail < 0) return std::nullopt;
  Route route;
  route.rail = static_cast<uint8_t>(rail);
  route.dlid = target.port->lid;
  route.slid = from.lid;
  if (address.is_global) route.sgid = from.gids[address.sgid_index];
  return route;
}

bool Routes::port_active(uint8_t port) const noexcept {
  const PortEntry& entry = data_.ports[port];
  for (uint32_t k = 0; k < data_.cables; ++k) {
    if (entry.cable != kAggregate && entry.cable != k) continue;
    if (data_.links[k].state == LinkState::kUp) return true;
  }
  return false;
}

bool Routes::lasts(uint32_t rail) const noexcept {
  if (rail >= data_.cables) return true;  // the loopback
  const LinkState state = data_.links[rail].state;
  return state == LinkState::kUp || state == LinkState::kSilent;
}

uint32_t Routes::tag(uint32_t rail) const noexcept {
  if (rail < data_.cables) return data_.links[rail].tag;
  return wire::session_tag(data_.incarnation, data_.incarnation);
}

}  // namespace tbt::fabric
