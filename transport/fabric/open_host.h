// From descriptors to an opened host: what an attaching process and the daemon itself have in
// common.
#pragma once

#include <memory>
#include <vector>

#include "fabric/attach.h"

namespace tbt::fabric {

struct HostShape {
  rail::SlotId slot = rail::kNoSlot;
  uint32_t host = 0;
  uint32_t hosts = 0;
};

// How many descriptors belong to a fabric of so many hosts; their order is silicon, memories,
// interrupts.
constexpr size_t descriptors_of(uint32_t hosts) noexcept { return 1 + 2 * size_t{hosts}; }

// Maps everything and opens the controller; the rails are still missing. EPROTO if the descriptors
// are not what they should be.
Result<std::unique_ptr<Attachment>> map_host(const HostShape& shape,
                                             std::vector<sys::UniqueFd> fds);

// Opens the rails, which the daemon has brought up before.
Status open_rails(Attachment& host);

}  // namespace tbt::fabric
