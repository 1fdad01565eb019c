// NhiModel: the registers of one emulated NHI as a PCI device.
// Rings and interrupts behave as on silicon; the DMA behind a doorbell is run by the DmaEngine of
// the cable.
//
// Two flavours of interrupt status: Intel's clears on read, the others' by writing ones. A driver
// that breaks a rule of the hardware is counted and told apart (NhiCounters::misuse).
#pragma once

#include <array>

#include "rail/emulated/dma_engine.h"
#include "rail/nhi/pci_device.h"

namespace tbt::rail::emulated {

// The engines at the two sides of a ring pair; nullptr: no cable there.
struct RingEngines {
  DmaEngine* tx = nullptr;
  DmaEngine* rx = nullptr;
};
using EngineTable = std::array<RingEngines, nhi::kHopsMax>;

class NhiModel final : public nhi::PciDevice {
 public:
  // All outlive the model.
  NhiModel(FabricSilicon& fabric, const HostView& host, const EngineTable& engines) noexcept
      : fabric_(fabric), host_(host), nhi_(*host.nhi), engines_(engines) {}

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
  void write_misc(uint32_t offset, uint32_t value) noexcept;
  void reset_router() noexcept;
  uint32_t read_ring(const RingRegisters& regs, bool tx, uint32_t hop, uint32_t field) noexcept;
  uint32_t read_interrupts(uint32_t offset) noexcept;
  uint32_t read_misc(uint32_t offset) noexcept;
  [[nodiscard]] uint32_t version() const noexcept;

  FabricSilicon& fabric_;
  const HostView& host_;
  NhiSilicon& nhi_;
  const EngineTable& engines_;
  std::atomic<int64_t> next_sweep_ns_{0};
};

}  // namespace tbt::rail::emulated
