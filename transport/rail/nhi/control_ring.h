// ControlRing: ring 0 of a controller, by which its owner talks to the router: packets of at most
// 256 bytes in raw mode, one per descriptor (docs/wire.md, section 6.1). One per controller, in the
// daemon; it is not shared and not on any data path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "rail/nhi/owned_ring.h"

namespace tbt::rail::nhi {

struct ControlPacketView {
  uint8_t pdf = 0;
  std::span<const std::byte> bytes;
};

class ControlRing {
 public:
  // Both outlive it.
  ControlRing(HostMemory& memory, PciDevice& device) noexcept;

  // ENODEV: the controller is gone. EBUSY: ring 0 is in use.
  Status start() noexcept { return ring_.start(); }
  // The same for an owner that follows a dead one, whose ring is still enabled: it is stopped
  // first. Packets that are in it are lost.
  Status take_over() noexcept { return ring_.take_over(); }
  void stop() noexcept { ring_.stop(); }

  // False: the ring is full; what is in it goes out without help, so try again a little later.
  bool send(uint8_t pdf, std::span<const std::byte> bytes) noexcept {
    return ring_.send(pdf, pdf, bytes);
  }
  // The oldest packet that has arrived, in the ring's own memory; valid until consume().
  bool peek(ControlPacketView& packet) noexcept {
    OwnedFrame frame;
    if (!ring_.peek(frame)) return false;
    packet = {frame.eof, frame.bytes};
    return true;
  }
  void consume() noexcept { ring_.consume(); }

  // The host's interrupt fires when a packet arrives. False: one is there already.
  bool arm() noexcept { return ring_.arm(); }
  void disarm() noexcept { ring_.disarm(); }

  // Descriptors of ring 0's receiver that the controller flagged as overrun: packets were lost.
  [[nodiscard]] uint64_t overruns() const noexcept { return ring_.overruns(); }

 private:
  OwnedRing ring_;
};

}  // namespace tbt::rail::nhi
