#include "rail/nhi/pci_config.h"

#include <linux/pci_regs.h>

#include <bit>

#include "rail/nhi/vfio_info.h"

namespace tbt::rail::nhi {
namespace {

static_assert(std::endian::native == std::endian::little);  // as configuration space and BAR0 are

constexpr uint32_t kCapabilitiesMax = 48;  // as many as fit behind the header
constexpr uint32_t kWakeUs = 10000;        // D3hot to D0, PCI power management
constexpr uint32_t kFirmwareLooks = 350;
constexpr uint32_t kFirmwareLookUs = 3000;

}  // namespace

Result<PciConfig> PciConfig::of_device(VfioKernel& kernel, int fd) {
  VfioInfo<vfio_region_info> answer;
  vfio_region_info question{};
  question.index = VFIO_PCI_CONFIG_REGION_INDEX;
  const Status asked = answer.ask(kernel, fd, VFIO_DEVICE_GET_REGION_INFO, question);
  if (!asked) return asked;
  if (answer.fixed().size < kConfigBytes) return Status(EIO, "the configuration space is short");
  return PciConfig(kernel, fd, answer.fixed().offset);
}

Status PciConfig::read(uint32_t at, void* to, size_t bytes) noexcept {
  const int64_t n = kernel_->pread(fd_, to, bytes, offset_ + at);
  if (n < 0) return Status(static_cast<int>(-n), "the configuration space cannot be read");
  if (n != static_cast<int64_t>(bytes)) return Status(EIO, "the configuration space is short");
  return {};
}

Status PciConfig::write(uint32_t at, const void* from, size_t bytes) noexcept {
  const int64_t n = kernel_->pwrite(fd_, from, bytes, offset_ + at);
  if (n < 0) return Status(static_cast<int>(-n), "the configuration space cannot be written");
  if (n != static_cast<int64_t>(bytes)) return Status(EIO, "the configuration space is short");
  return {};
}

Result<uint16_t> PciConfig::read16(uint32_t at) noexcept {
  uint16_t value = 0;
  const Status status = read(at, &value, sizeof value);
  if (!status) return status;
  return value;
}

Result<uint32_t> PciConfig::read32(uint32_t at) noexcept {
  uint32_t value = 0;
  const Status status = read(at, &value, sizeof value);
  if (!status) return status;
  return value;
}

Status PciConfig::write16(uint32_t at, uint16_t value) noexcept {
  return write(at, &value, sizeof value);
}
Status PciConfig::write32(uint32_t at, uint32_t value) noexcept {
  return write(at, &value, sizeof value);
}

Result<uint32_t> PciConfig::find_capability(uint8_t id) noexcept {
  auto status = read16(PCI_STATUS);
  if (!status) return status.error();
  if ((*status & PCI_STATUS_CAP_LIST) == 0) return 0u;
  auto head = read16(PCI_CAPABILITY_LIST);
  for (uint32_t i = 0; i < kCapabilitiesMax; ++i) {
    if (!head) return head.error();
    const uint32_t at = (i == 0 ? *head : *head >> 8) & 0xfcu;
    if (at < PCI_STD_HEADER_SIZEOF) return 0u;
    head = read16(at);
    if (!head) return head.error();
    if ((*head & 0xff) == id) return at;
  }
  return 0u;
}

Result<MsixCapability> PciConfig::msix() noexcept {
  auto at = find_capability(PCI_CAP_ID_MSIX);
  if (!at) return at.error();
  if (*at == 0) return MsixCapability{};
  auto control = read16(*at + PCI_MSIX_FLAGS);
  auto table = read32(*at + PCI_MSIX_TABLE);
  auto pending = read32(*at + PCI_MSIX_PBA);
  if (!control) return control.error();
  if (!table) return table.error();
  if (!pending) return pending.error();
  return MsixCapability{.vectors = (*control & PCI_MSIX_FLAGS_QSIZE) + 1u,
                        .table_bar = *table & PCI_MSIX_TABLE_BIR,
                        .table_offset = *table & PCI_MSIX_TABLE_OFFSET,
                        .pending_bar = *pending & PCI_MSIX_PBA_BIR,
                        .pending_offset = *pending & PCI_MSIX_PBA_OFFSET};
}

Status PciConfig::power_on() noexcept {
  auto at = find_capability(PCI_CAP_ID_PM);
  if (!at) return at.error();
  if (*at == 0) return {};
  auto control = read16(*at + PCI_PM_CTRL);
  if (!control) return control.error();
  if ((*control & PCI_PM_CTRL_STATE_MASK) == 0) return {};
  const auto awake = static_cast<uint16_t>(*control & ~PCI_PM_CTRL_STATE_MASK);
  const Status written = write16(*at + PCI_PM_CTRL, awake);
  if (!written) return written;
  kernel_->sleep_us(kWakeUs);
  auto now = read16(*at + PCI_PM_CTRL);
  if (!now) return now.error();
  if ((*now & PCI_PM_CTRL_STATE_MASK) != 0) return Status(EIO, "the controller stays asleep (D3)");
  return {};
}

Status PciConfig::set_command(uint16_t bit, bool on) noexcept {
  auto command = read16(PCI_COMMAND);
  if (!command) return command.error();
  const auto wanted = static_cast<uint16_t>(on ? *command | bit : *command & ~bit);
  return wanted == *command ? Status() : write16(PCI_COMMAND, wanted);
}

Status PciConfig::force_power(bool on) noexcept {
  auto before = read32(kConfigForcePower);
  if (!before) return before.error();
  const uint32_t value =
      on ? (*before & ~kDmaDelayMask) | kDmaDelay | kForcePower : *before & ~kForcePower;
  const Status written = write32(kConfigForcePower, value);
  if (!written || !on) return written;
  for (uint32_t i = 0; i < kFirmwareLooks; ++i) {
    auto firmware = read32(kConfigFirmware);
    if (!firmware) return firmware.error();
    if (*firmware == 0xffffffffu) return Status(ENODEV, "the controller is gone");
    if ((*firmware & kFirmwareReady) != 0) return {};
    kernel_->sleep_us(kFirmwareLookUs);
  }
  return Status(ETIMEDOUT, "the controller's firmware did not start after force power");
}

}  // namespace tbt::rail::nhi
