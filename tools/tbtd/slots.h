// The slot table of a host as its daemon keeps it: who has which slot, and what a dead one leaves
// behind.
#pragma once

#include <sys/types.h>

#include <vector>

#include "rail/host_memory.h"
#include "wire/control.h"

namespace tbt::daemon {

struct SlotUse {
  rail::SlotId slot = rail::kNoSlot;
  pid_t pid = 0;
  uint64_t direct_bytes = 0;    // registered, and mapped for the controller
  uint32_t copied_regions = 0;  // registered, and not mapped
};

// Gives out the slot that has been free for longest, so that late frames for the last owner find
// nobody. kNoSlot if all are taken.
rail::SlotId take_slot(rail::HostMemory& memory, rail::SlotId& last, pid_t pid) noexcept;
// The slot's frames are thrown away from now on; says which queue pairs went with it.
wire::ProcessGone mark_slot_dead(rail::HostMemory& memory, rail::SlotId slot) noexcept;
// After everything of the dead process was reclaimed.
void free_slot(rail::HostMemory& memory, rail::SlotId slot) noexcept;

std::vector<SlotUse> slots_in_use(rail::HostMemory& memory);

}  // namespace tbt::daemon
