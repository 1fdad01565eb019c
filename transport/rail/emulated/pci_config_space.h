// PciConfigSpace: the configuration space of an emulated host controller, as a guest's PCI core and
// its thunderbolt driver want it (PCI Express Base Specification; PCI Local Bus 3.0, chapter 6):
// class 0x0c0340, a 64-bit BAR0 of 512 KiB, and power management, MSI-X and PCI Express
// capabilities. A pure state machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::rail::emulated {

inline constexpr uint32_t kBarBytes = 512 * 1024;
inline constexpr uint32_t kMsixVectors = 16;
inline constexpr uint32_t kMsixTableOffset = 0x7e000;  // in BAR0
inline constexpr uint32_t kMsixPbaOffset = 0x7f000;

struct PciIds {
  uint16_t vendor = 0, device = 0;
};

class PciConfigSpace {
 public:
  static constexpr uint32_t kBytes = 4096;  // with the extended space, which is empty

  explicit PciConfigSpace(PciIds ids) noexcept;

  // Both clip nothing: [offset, offset + size) must lie within kBytes.
  void read(uint32_t offset, std::span<std::byte> out) const noexcept;
  // True if the driver asks for a function level reset; the caller carries it out, and calls
  // reset().
  [[nodiscard]] bool write(uint32_t offset, std::span<const std::byte> bytes) noexcept;
  // As after power on.
  void reset() noexcept;

  [[nodiscard]] bool is_bus_master() const noexcept;
  // Whether BAR0 answers.
  [[nodiscard]] bool decodes_memory() const noexcept;

 private:
  void put(uint32_t offset, uint32_t bytes, uint32_t value, uint32_t writable = 0) noexcept;
  [[nodiscard]] uint32_t get(uint32_t offset, uint32_t bytes) const noexcept;

  PciIds ids_;
  std::array<std::byte, 256> values_{};
  std::array<std::byte, 256> writable_{};  // a bit for each bit
};

}  // namespace tbt::rail::emulated
