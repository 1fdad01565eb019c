// GuestPort: what the NHI model needs of a virtual machine that plays a host of the fabric: its
// memory and its interrupts. Only the process that serves the virtual machine has one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tbt::rail::emulated {

// What the device wants with memory: a machine's IOMMU may let it read and not write.
enum class Reach : uint8_t { kRead, kWrite };

// Called by whichever thread of the process runs the model, one at a time.
class GuestPort {
 public:
  virtual ~GuestPort() = default;
  // Memory behind [iova, iova + bytes), in one piece in this process; nullptr where not all of it
  // is mapped for that. Valid until the mapping is taken away.
  virtual std::byte* find(uint64_t iova, uint64_t bytes, Reach reach) noexcept = 0;
  // Whether the machine lets its device reach anything at all; where not, the device does not even
  // try, so nothing that is not found is a fault.
  [[nodiscard]] virtual bool is_bus_master() const noexcept { return true; }
  // MSI-X.
  virtual void fire(uint32_t vector) noexcept = 0;
};

}  // namespace tbt::rail::emulated
