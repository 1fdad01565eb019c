// From descriptors to an opened host: what an attaching process and the daemon itself have in
// common.
#pragma once

#include <memory>
#include <vector>

#include "fabric/attach.h"
#include "fabric/attach_protocol.h"
#include "rail/nhi/vfio_kernel.h"

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

// The same for a host whose controller is a PCI device of this machine, which its daemon drives.
// The descriptors are the VFIO device, the host's memory, its wake-up; and the container, if the
// process may map memory of its own.
inline constexpr size_t kVfioDescriptors = 3;
Result<std::unique_ptr<Attachment>> map_vfio_host(
    const AttachGrant& grant, std::vector<sys::UniqueFd> fds,
    rail::nhi::VfioKernel& kernel = rail::nhi::VfioKernel::real());

// What both have in common: one host's memory and wake-up, no controller yet.
Result<std::unique_ptr<Attachment>> map_memory(rail::SlotId slot, sys::UniqueFd memory,
                                               sys::UniqueFd wake);

// Opens the rails, which the daemon has brought up before.
Status open_rails(Attachment& host);

}  // namespace tbt::fabric
