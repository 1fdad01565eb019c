// ControlTrace: a controller in front of a controller, that shows each packet of ring 0 as it
// passes: what the driver sends when it rings the doorbell, and what it receives when the NHI has
// written it. Nothing else is changed. For a host that is a virtual machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "rail/emulated/guest_port.h"
#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/pci_device.h"

namespace tbt::rail::emulated {

class ControlTrace final : public nhi::PciDevice {
 public:
  struct Packet {
    bool sent = false;  // by the driver
    uint8_t pdf = 0;
    std::span<const std::byte> bytes;  // with the checksum
  };
  using Sink = std::function<void(const Packet&)>;

  // Both outlive it.
  ControlTrace(nhi::PciDevice& device, GuestPort& memory, Sink sink)
      : device_(device), memory_(memory), sink_(std::move(sink)) {}

  uint32_t read32(uint32_t offset) noexcept override { return device_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) noexcept override;
  Result<uint64_t> dma_map(uint64_t offset, uint64_t bytes) override {
    return device_.dma_map(offset, bytes);
  }
  Status dma_unmap(uint64_t iova, uint64_t bytes) override {
    return device_.dma_unmap(iova, bytes);
  }
  [[nodiscard]] int interrupt_fd(uint32_t vector) const noexcept override {
    return device_.interrupt_fd(vector);
  }
  int64_t advance(int64_t now_ns) noexcept override;

 private:
  struct Side {
    uint32_t base = 0;  // of its registers
    bool sent = false;
    uint32_t next = 0;  // the descriptor that comes next
  };
  void show(Side& side, uint32_t end) noexcept;
  void show_received() noexcept;
  [[nodiscard]] const nhi::Descriptor* descriptor(const Side& side, uint32_t index) noexcept;

  nhi::PciDevice& device_;
  GuestPort& memory_;
  Sink sink_;
  Side tx_{nhi::kRegTxRingBase, true, 0};
  Side rx_{nhi::kRegRxRingBase, false, 0};
};

// "SECONDS tx|rx pdf N 01234567 89abcdef ...": dwords as they are on the wire, the checksum last.
std::string trace_line(int64_t now_ns, const ControlTrace::Packet& packet);

}  // namespace tbt::rail::emulated
