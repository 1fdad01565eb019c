// NhiModel: the registers of one emulated NHI as a PCI device.
// Rings and interrupts behave as on silicon. The DMA behind a doorbell is run by the DmaEngine of
// the flow, that of ring 0 by the ControlPlane.
//
// Two flavours of interrupt status: Intel's clears on read, the others' by writing ones. A driver
// that breaks a rule of the hardware is counted and told apart (NhiCounters::misuse).
#pragma once

#include "rail/emulated/control_plane.h"
#include "rail/emulated/engine_table.h"
#include "rail/nhi/pci_device.h"

namespace tbt::rail::emulated {

class NhiModel final : public nhi::PciDevice {
 public:
  // All outlive the model.
  NhiModel(FabricSilicon& fabric, const HostView* hosts, uint32_t number,
           const EngineTable& engines, ControlPlane& control) noexcept
      : fabric_(fabric),
        number_(number),
        host_(hosts[number]),
        nhi_(*host_.nhi),
        engines_(engines),
        control_(control) {}

  [[nodiscard]] nhi::PciIdentity identity() const noexcept override;
  uint32_t read32(uint32_t offset) noexcept override;
  void write32(uint32_t offset, uint32_t value) noexcept override;
  Result<uint64_t> dma_map(uint64_t offset, uint64_t bytes) override;
  Status dma_unmap(uint64_t iova, uint64_t bytes) override;
  [[nodiscard]] int interrupt_fd(uint32_t vector) const noexcept override;
  int64_t advance(int64_t now_ns) noexcept override;

 private:
  void write_tx_ring(uint32_t hop, uint32_t field, uint32_t value) noexcept;
  void write_rx_ring(uint32_t hop, uint32_t field, uint32_t value) noexcept;
  void ring_tx_doorbell(uint32_t hop, uint32_t value) noexcept;
  void ring_rx_doorbell(uint32_t hop, uint32_t value) noexcept;
  void write_ring_setup(RingRegisters& regs, uint32_t field, uint32_t value) noexcept;
  void write_options(RingRegisters& regs, bool tx, uint32_t hop, uint32_t value) noexcept;
  bool check_options(const RingRegisters& regs, uint32_t old, uint32_t value) noexcept;
  void stop_ring(RingRegisters& regs, bool tx, uint32_t hop) noexcept;
  void write_interrupts(uint32_t offset, uint32_t value) noexcept;
  void write_mask(uint32_t dword, uint32_t value) noexcept;
  void write_misc(uint32_t offset, uint32_t value) noexcept;
  void reset_router() noexcept;
  uint32_t read_ring(const RingRegisters& regs, bool tx, uint32_t hop, uint32_t field) noexcept;
  uint32_t read_interrupts(uint32_t offset) noexcept;
  uint32_t read_misc(uint32_t offset) noexcept;
  [[nodiscard]] uint32_t version() const noexcept;

  FabricSilicon& fabric_;
  const uint32_t number_;
  const HostView& host_;
  NhiSilicon& nhi_;
  const EngineTable& engines_;
  ControlPlane& control_;
  std::atomic<int64_t> next_sweep_ns_{0};
};

}  // namespace tbt::rail::emulated
