#include "rail/nhi/control_ring.h"

#include "rail/shared_state.h"

namespace tbt::rail::nhi {
namespace {

constexpr uint32_t kEntries = 16;
constexpr uint32_t kPacketBytes = 256;
static_assert(owned_ring_bytes(kEntries, kPacketBytes) == kControlBytes);

}  // namespace

ControlRing::ControlRing(HostMemory& memory, PciDevice& device) noexcept
    : ring_(memory, device,
            {.hop = 0,
             .entries = kEntries,
             .buffer_bytes = kPacketBytes,
             .raw = true,
             .memory_offset = RailMemory::control_offset()}) {}

}  // namespace tbt::rail::nhi
