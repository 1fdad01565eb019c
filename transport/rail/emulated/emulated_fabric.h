// EmulatedFabric: the "silicon" of an emulated fabric, one sealed memfd for all hosts: an NHI model per host
// and the cables between them. Every process of every host maps it, and every host's HostMemory, because a
// doorbell runs the model's DMA inline in the caller, from the sender's memory into the receiver's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rail/host_memory.h"
#include "rail/nhi/pci_device.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::emulated {

inline constexpr uint32_t kHostsMax = 8;
inline constexpr uint32_t kCablesMax = 28;  // a full mesh of 8

// What a cable does to frames; probabilities in parts per million. Settable while the fabric runs.
struct CableParams {
  uint64_t rate_bps = 0;       // 0: as fast as the processors copy (the ideal cable)
  int64_t latency_ns = 0;
  uint32_t drop_ppm = 0;
  uint32_t corrupt_ppm = 0;    // one bit flipped; the receiver's descriptor carries the CRC flag
  uint32_t duplicate_ppm = 0;
  uint32_t lost_interrupt_ppm = 0;
  uint32_t stranded_ppm = 0;   // completion written late: only a later frame or 1 ms brings it out
  bool plugged = true;
};
// "ideal", "tb5" (80 Gb/s), "usb4-40" (40 Gb/s); figures from facts, named in the source.
Result<CableParams> cable_preset(std::string_view name);

struct CableEnds {
  uint32_t host_a = 0, host_b = 0;
  uint32_t ordinal_a = 0, ordinal_b = 0;  // which cable of that host: rail number there
};

struct FabricConfig {
  uint32_t hosts = 0;
  uint32_t hop_count = 12;     // of each NHI: 3, 12 or 32; ring 0 is the control channel's
  bool usb4_v2 = true;
  bool intel = true;           // interrupt status clears on read; otherwise write one to clear
  bool e2e = true;             // end-to-end flow control on the data rings
  uint64_t seed = 1;           // of all faults
  std::vector<CableEnds> cables;
  std::vector<CableParams> params;  // one per cable
};

class EmulatedFabric {
 public:
  // EINVAL with a text when the shape is impossible (more cables on a host than ring pairs, ...).
  static Result<std::unique_ptr<EmulatedFabric>> create(const FabricConfig& config);
  static Result<std::unique_ptr<EmulatedFabric>> map(sys::UniqueFd fd);
  ~EmulatedFabric();

  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] uint32_t hosts() const noexcept;
  [[nodiscard]] uint32_t cables() const noexcept;
  [[nodiscard]] CableEnds ends(uint32_t cable) const noexcept;
  [[nodiscard]] CableParams params(uint32_t cable) const noexcept;
  // Applies at once; unplugging loses what is in flight and raises the hosts' interrupts.
  void set_params(uint32_t cable, const CableParams& params) noexcept;
  // The fabric's cable number of host `host`'s cable `ordinal`.
  [[nodiscard]] uint32_t cable_of(uint32_t host, uint32_t ordinal) const noexcept;

  // The memory and interrupt descriptor (eventfd, not owned) of a host, so that DMA and interrupts from this
  // process can reach it. Every host's must be given before open_device() is used for traffic.
  void attach_host(uint32_t host, HostMemory* memory, int interrupt_fd) noexcept;

  // The NHI of `host` as a PCI device. The fabric must outlive it.
  std::unique_ptr<nhi::PciDevice> open_device(uint32_t host);

 private:
  EmulatedFabric() = default;
  struct State;
  std::unique_ptr<State> state_;
  friend class NhiModel;
};

}  // namespace tbt::rail::emulated
