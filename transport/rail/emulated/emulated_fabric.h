// EmulatedFabric: the "silicon" of an emulated fabric, one sealed memfd for all hosts: an NHI model
// per host and the cables between them. Every process of every host maps it, and every host's
// HostMemory, because a doorbell runs the model's DMA inline in the caller, from the sender's
// memory into the receiver's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rail/emulated/cable.h"
#include "rail/emulated/control_trace.h"
#include "rail/emulated/guest_port.h"
#include "rail/host_memory.h"
#include "rail/nhi/pci_device.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::emulated {

inline constexpr uint32_t kHostsMax = 8;
inline constexpr uint32_t kCablesMax = 28;  // a full mesh of 8

struct CableEnds {
  uint32_t host_a = 0, host_b = 0;
  uint32_t ordinal_a = 0, ordinal_b = 0;  // which cable of that host: rail number there
};

struct FabricConfig {
  uint32_t hosts = 0;
  uint32_t hop_count = 12;  // of each NHI: 3, 12 or 32; ring 0 is the control channel's
  bool usb4_v2 = true;
  uint32_t amd = 0;         // bit per host: AMD's controller, whose interrupt status is cleared by
                            // writing; the others have Intel's, where reading clears
  bool e2e = true;          // end-to-end flow control on the data rings
  bool e2e_sticks = false;  // it is broken: a sender that has once waited waits for ever
  uint64_t seed = 1;        // of all faults
  std::vector<CableEnds> cables;
  std::vector<CableParams> params;  // one per cable
  // The paths of each cable are set when the fabric is made and after each reset, from ring pair
  // ordinal + 1 at one end to that at the other, as if connection managers had done it.
  bool fixed_paths = true;
  uint32_t guests = 0;  // bit per host: a virtual machine plays it (attach_guest)
};

// What the NHI of a host counted since the fabric was made.
struct NhiCounters {
  uint64_t dma_faults = 0;  // address outside what was mapped: the access is refused
  uint64_t misuse = 0;      // the driver broke a rule of the hardware; `last_misuse` says which
  const char* last_misuse = "";
  uint64_t pdf_drops = 0;    // SOF or EOF not allowed by the receive ring's masks
  uint64_t overruns = 0;     // no buffer posted and no end-to-end flow control
  uint64_t unreachable = 0;  // cable pulled, or peer's ring not enabled
  uint64_t interrupts = 0;
  uint64_t control_drops = 0;  // packets for ring 0 that got lost
  uint64_t mapped_bytes = 0;   // no count: memory that the controller may reach at the moment
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

  // The memory and interrupt descriptor (eventfd, not owned) of a host, so that DMA and interrupts
  // from this process can reach it. Every host's must be given before open_device() is used for
  // traffic.
  void attach_host(uint32_t host, HostMemory* memory, int interrupt_fd) noexcept;
  // Makes this process the one that sees the memory of `host`, one of FabricConfig::guests. Call
  // advance() of the host's device whenever the interrupt descriptor given to attach_host becomes
  // readable, and guest_memory_changed() after each change of what find() answers, with how much
  // memory that is.
  void attach_guest(uint32_t host, GuestPort* guest) noexcept;
  void guest_memory_changed(uint32_t host, uint64_t bytes) noexcept;
  [[nodiscard]] bool is_guest(uint32_t host) const noexcept;

  void trace_control(ControlTap tap);

  // Takes the page faults of what a process of `host` uses now (sys/mmap.h: populate): registers,
  // the queues of its cables' flows in both directions, and of every attached memory what its data
  // path reaches. Only where the whole fabric's comes to kPopulatedMax at most: a mesh of many
  // hosts stays sparse.
  void populate(uint32_t host) const noexcept;
  static constexpr size_t kPopulatedMax = size_t{128} << 20;

  [[nodiscard]] NhiCounters counters(uint32_t host) const noexcept;
  // Surprise removal of a host's controller: reads return all ones, nothing moves any more, and its
  // links are down as if the cables were pulled. It interrupts the daemons.
  void remove_device(uint32_t host, bool removed) noexcept;

  // The NHI of `host` as a PCI device. The fabric must outlive it.
  std::unique_ptr<nhi::PciDevice> open_device(uint32_t host);

 private:
  EmulatedFabric();
  void wake_ends(uint32_t cable) noexcept;
  struct State;
  std::unique_ptr<State> state_;
  friend class NhiModel;
};

}  // namespace tbt::rail::emulated
