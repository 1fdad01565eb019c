// ControlRing: ring 0 of a controller, by which its owner talks to the router: packets of at most
// 256 bytes in raw mode, one per descriptor (docs/wire.md, section 6.1). One per controller, in the
// daemon; it is not shared and not on any data path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "rail/host_memory.h"
#include "rail/nhi/interrupts.h"
#include "rail/nhi/pci_device.h"
#include "rail/nhi/quirks.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

struct ControlPacketView {
  uint8_t pdf = 0;
  std::span<const std::byte> bytes;
};

class ControlRing {
 public:
  // Both outlive it.
  ControlRing(HostMemory& memory, PciDevice& device) noexcept;
  ~ControlRing();
  ControlRing(const ControlRing&) = delete;
  ControlRing& operator=(const ControlRing&) = delete;

  // ENODEV: the controller is gone. EBUSY: ring 0 is in use.
  Status start() noexcept;
  // The same for an owner that follows a dead one, whose ring is still enabled: it is stopped
  // first. Packets that are in it are lost.
  Status take_over() noexcept;
  void stop() noexcept;

  // False: the ring is full; what is in it goes out without help, so try again a little later.
  bool send(uint8_t pdf, std::span<const std::byte> bytes) noexcept;
  // The oldest packet that has arrived, in the ring's own memory; valid until consume().
  bool peek(ControlPacketView& packet) noexcept;
  void consume() noexcept;

  // The host's interrupt fires when a packet arrives. False: one is there already.
  bool arm() noexcept;
  void disarm() noexcept { interrupt_.disable(); }

  // Descriptors of ring 0's receiver that the controller flagged as overrun: packets were lost.
  [[nodiscard]] uint64_t overruns() const noexcept { return overruns_; }

 private:
  struct Ring;
  [[nodiscard]] Ring ring(bool tx) const noexcept;
  void post(uint32_t index) noexcept;
  void disable(uint64_t iova) noexcept;

  HostMemory& memory_;
  PciDevice& device_;
  const Quirks& quirks_;
  const uint32_t hop_count_;
  RingInterrupt interrupt_;
  uint64_t iova_ = 0;
  bool running_ = false;
  uint32_t tx_head_ = 0, tx_tail_ = 0;  // both count on
  uint32_t rx_tail_ = 0;                // the next descriptor to complete
  uint64_t overruns_ = 0;
};

}  // namespace tbt::rail::nhi
