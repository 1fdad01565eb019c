// What a host's daemon writes down of the paths that carry frames, behind the Directory in the
// host's memory, so that the next one can go on with them if it is killed: of each port the
// PathStatus. Only the daemon reads it, and takes nothing of it for true that it can look at.
#pragma once

#include <cstdint>
#include <vector>

#include "fabric/router_status.h"
#include "rail/host_memory.h"

namespace tbt::fabric {

// Of the memory's layout. What another version has written is not read.
inline constexpr uint32_t kPathMemoryVersion = 2;

// `incarnation` is the daemon's own, and that of the daemons that follow it.
void keep_path(rail::HostMemory& memory, uint64_t incarnation, const PathStatus& path) noexcept;
void forget_path(rail::HostMemory& memory, uint32_t port) noexcept;
void forget_paths(rail::HostMemory& memory) noexcept;
std::vector<PathStatus> kept_paths(rail::HostMemory& memory, uint64_t incarnation);

}  // namespace tbt::fabric
