#include "rail/emulated/pci_config_space.h"

#include <algorithm>

#include "base/assert.h"

namespace tbt::rail::emulated {
namespace {

constexpr uint32_t kCommand = 0x04;
constexpr uint32_t kCommandMemory = 1u << 1;
constexpr uint32_t kCommandBusMaster = 1u << 2;
constexpr uint32_t kCommandWritable = 0x0547;  // those two, I/O, parity, SERR and INTx disable
constexpr uint32_t kStatusCapabilities = 1u << 4;
constexpr uint32_t kClassUsb4HostInterface = 0x0c0340;
constexpr uint32_t kBar64BitMemory = 0x4;

constexpr uint32_t kPowerManagement = 0x40;
constexpr uint32_t kMsix = 0x50;
constexpr uint32_t kExpress = 0x60;
constexpr uint32_t kDeviceControl = kExpress + 0x08;
constexpr uint32_t kFunctionLevelReset = 1u << 15;

constexpr uint32_t header_of(uint8_t id, uint32_t next) noexcept { return id | next << 8; }

}  // namespace

PciConfigSpace::PciConfigSpace(PciIds ids) noexcept : ids_(ids) { reset(); }

void PciConfigSpace::reset() noexcept {
  values_ = {};
  writable_ = {};
  put(0x00, 2, ids_.vendor);
  put(0x02, 2, ids_.device);
  put(kCommand, 2, 0, kCommandWritable);
  put(0x06, 2, kStatusCapabilities);
  put(0x08, 4, kClassUsb4HostInterface << 8);
  put(0x0c, 1, 0, 0xff);  // cache line size: nothing depends on it
  put(0x10, 4, kBar64BitMemory, ~(kBarBytes - 1));
  put(0x14, 4, 0, ~0u);
  put(0x2c, 2, ids_.vendor);
  put(0x2e, 2, ids_.device);
  put(0x34, 1, kPowerManagement);
  put(0x3c, 1, 0, 0xff);  // interrupt line; there is no pin

  // Power management 1.2, D0 and D3hot, nothing is lost in D3hot and there is no PME.
  put(kPowerManagement, 2, header_of(0x01, kMsix));
  put(kPowerManagement + 2, 2, 0x0003);
  put(kPowerManagement + 4, 2, 1u << 3, 0x0003);

  put(kMsix, 2, header_of(0x11, kExpress));
  put(kMsix + 2, 2, kMsixVectors - 1, 0xc000);  // enable, mask all
  put(kMsix + 4, 4, kMsixTableOffset);          // in BAR 0
  put(kMsix + 8, 4, kMsixPbaOffset);

  // PCI Express endpoint, capability version 2; function level reset; a link of four lanes at
  // 16 GT/s, as Barlow Ridge has.
  put(kExpress, 2, header_of(0x10, 0));
  put(kExpress + 0x02, 2, 0x0002);
  put(kExpress + 0x04, 4, 1u << 28 | 1u << 15);
  put(kDeviceControl, 2, 0x2810, 0x7fff);
  put(kExpress + 0x0c, 4, 0x00000044);
  put(kExpress + 0x10, 2, 0, 0x00f3);
  put(kExpress + 0x12, 2, 0x0044);
  put(kExpress + 0x2c, 4, 0x0000001e);  // 2.5 to 16 GT/s
  put(kExpress + 0x30, 2, 0x0004, 0x000f);
}

void PciConfigSpace::put(uint32_t offset, uint32_t bytes, uint32_t value,
                         uint32_t writable) noexcept {
  for (uint32_t i = 0; i < bytes; i++) {
    values_[offset + i] = static_cast<std::byte>(value >> (8 * i));
    writable_[offset + i] = static_cast<std::byte>(writable >> (8 * i));
  }
}

uint32_t PciConfigSpace::get(uint32_t offset, uint32_t bytes) const noexcept {
  uint32_t value = 0;
  for (uint32_t i = 0; i < bytes; i++) {
    value |= std::to_integer<uint32_t>(values_[offset + i]) << (8 * i);
  }
  return value;
}

void PciConfigSpace::read(uint32_t offset, std::span<std::byte> out) const noexcept {
  TBT_ASSERT(offset <= kBytes && out.size() <= kBytes - offset);
  std::ranges::fill(out, std::byte{0});
  for (size_t i = 0; i < out.size() && offset + i < values_.size(); i++) {
    out[i] = values_[offset + i];
  }
}

bool PciConfigSpace::write(uint32_t offset, std::span<const std::byte> bytes) noexcept {
  TBT_ASSERT(offset <= kBytes && bytes.size() <= kBytes - offset);
  bool wants_reset = false;
  for (size_t i = 0; i < bytes.size() && offset + i < values_.size(); i++) {
    const size_t at = offset + i;
    const std::byte keeps = ~writable_[at];
    values_[at] = (values_[at] & keeps) | (bytes[i] & writable_[at]);
    constexpr auto kResetBit = static_cast<std::byte>(kFunctionLevelReset >> 8);
    if (at == kDeviceControl + 1 && (bytes[i] & kResetBit) != std::byte{0}) wants_reset = true;
  }
  return wants_reset;
}

bool PciConfigSpace::is_bus_master() const noexcept {
  return (get(kCommand, 2) & kCommandBusMaster) != 0;
}

bool PciConfigSpace::decodes_memory() const noexcept {
  return (get(kCommand, 2) & kCommandMemory) != 0;
}

}  // namespace tbt::rail::emulated
