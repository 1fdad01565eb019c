// Routes: from a verbs address to the rail and the LIDs that lead there, over what the directory
// says now.
//
// An address is a LID or, with a GRH, a GID, of a port of this host (loopback), or of a peer with a
// cable that is up. The aggregate port uses any cable to the peer, one per queue pair; a cable's
// port uses that cable only.
#pragma once

#include <cstdint>
#include <optional>

#include "fabric/directory.h"
#include "tbt/types.h"

namespace tbt::fabric {

struct Route {
  uint8_t rail = 0;
  uint16_t dlid = 0;
  uint16_t slid = 0;
  wire::GidBytes sgid{};
};

class Routes {
 public:
  explicit Routes(const DirectoryData& data) : data_(data) {}

  // `port` indexes DirectoryData::ports. `spread` picks one of several cables to the same peer.
  [[nodiscard]] std::optional<Route> resolve(uint8_t port, const AddressVector& address,
                                             uint32_t spread) const;

  // Does the port have a cable that is up?
  [[nodiscard]] bool port_active(uint8_t port) const noexcept;
  // May what is under way on a rail still arrive: its link is up, or only silent.
  [[nodiscard]] bool lasts(uint32_t rail) const noexcept;
  // The check tag of frames on a rail.
  [[nodiscard]] uint32_t tag(uint32_t rail) const noexcept;

 private:
  // The port that has the address: of this host (peer < 0) or of a peer.
  struct Target {
    int peer = -1;
    const PortEntry* port = nullptr;
  };
  [[nodiscard]] Target find(const AddressVector& address) const noexcept;
  [[nodiscard]] Target only_peer(uint8_t port) const noexcept;
  [[nodiscard]] int choose_cable(const PortEntry& from, const Target& target,
                                 uint32_t spread) const noexcept;

  const DirectoryData& data_;
};

}  // namespace tbt::fabric
