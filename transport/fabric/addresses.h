// The addresses of a host's ports: a rule, not a registry, so that a host computes its own and no
// two hosts of a fabric collide. The peers learn them from the hello and never compute them.
//
//   LID      64 (host + 1) for the aggregate, 64 (host + 1) + 1 + k for its cable k
//   GUID     a hash of fabric name, host and port, with the locally-administered bit set
//   GID[0]   fe80:: and the GUID
//   GID[1]   ::ffff:10.55.C.(host + 1); C is the fabric's number of the cable, 255 for the
//   aggregate
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "fabric/directory.h"
#include "wire/packet.h"

namespace tbt::fabric {

uint16_t aggregate_lid(uint32_t host) noexcept;

struct PortName {
  std::string_view fabric;
  uint32_t host = 0;
  uint8_t cable = kAggregate;  // ordinal on the host
  uint8_t subnet = 255;        // C above
};
// A filled entry with two GIDs.
PortEntry port_entry(const PortName& name) noexcept;

// The identity of a host, stable over its daemon's lives.
std::array<uint8_t, 16> host_uuid(std::string_view fabric, uint32_t host) noexcept;

}  // namespace tbt::fabric
