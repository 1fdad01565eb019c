// Interrupts of a controller's rings, data or control. Wiring is for the owner of the controller
// (the daemon); a RingInterrupt may be used by any process of the host.
#pragma once

#include <cstdint>

#include "rail/host_memory.h"
#include "rail/nhi/pci_device.h"
#include "rail/nhi/quirks.h"

namespace tbt::rail::nhi {

// Tells the controller how its status bits are cleared. Once per controller; again does no harm.
void choose_interrupt_clear(PciDevice& device, const Quirks& quirks) noexcept;

// MSI-X vectors that reach somebody, 1 to kVectorsMax.
uint32_t vector_count(const PciDevice& device) noexcept;

// The vector of the rings that only the daemon looks at. A rail's ring has another one, where the
// controller has several.
inline constexpr uint32_t kDaemonVector = 0;

// Sends the interrupt of a ring to a vector, at once: no throttling. `bit` counts as in the
// interrupt mask: TX ring h is h, RX ring h is hop_count + h.
void wire_vector(PciDevice& device, const Quirks& quirks, uint32_t bit, uint32_t vector) noexcept;

// Rings of the controller, ring 0 among them.
uint32_t hop_count(PciDevice& device) noexcept;

// The interrupt of one ring.
class RingInterrupt {
 public:
  // `bit` as above. Everything outlives it.
  RingInterrupt(HostMemory& memory, PciDevice& device, const Quirks& quirks, uint32_t bit,
                uint32_t hop_count) noexcept
      : memory_(memory), device_(device), quirks_(quirks), bit_(bit), hop_count_(hop_count) {}

  // Fires from now on, once. Look at the ring afterwards: what came before is seen there. False: a
  // process that stands still holds the lock of the mask register; try again later.
  bool enable() noexcept;
  void disable() noexcept;
  // Whether the ring's status bit was set; it is not any more.
  bool take_status() noexcept;

 private:
  HostMemory& memory_;
  PciDevice& device_;
  const Quirks& quirks_;
  const uint32_t bit_;
  const uint32_t hop_count_;
};

}  // namespace tbt::rail::nhi
