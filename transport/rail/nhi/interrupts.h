// Interrupt wiring that every ring of a controller needs, data or control. Only the owner of the
// controller (the daemon) calls these.
#pragma once

#include <cstdint>

#include "rail/nhi/pci_device.h"
#include "rail/nhi/quirks.h"

namespace tbt::rail::nhi {

// Tells the controller how its status bits are cleared. Once per controller; again does no harm.
void choose_interrupt_clear(PciDevice& device, const Quirks& quirks) noexcept;

// MSI-X vectors that reach somebody, 1 to kVectorsMax.
uint32_t vector_count(const PciDevice& device) noexcept;

// Sends the interrupt of a ring to a vector, at once: no throttling. `bit` counts as in the
// interrupt mask: TX ring h is h, RX ring h is hop_count + h.
void wire_vector(PciDevice& device, const Quirks& quirks, uint32_t bit, uint32_t vector) noexcept;

}  // namespace tbt::rail::nhi
