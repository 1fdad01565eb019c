// OwnedRing: a ring pair of a controller that the daemon has for itself, unlike the rails' rings,
// which all processes share: ring 0 (control_ring.h) and those for ThunderboltIP. One packet or
// frame per descriptor, in buffers that belong to their descriptors for ever. Not on any data path,
// so each packet is copied and each doorbell is rung at once.
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

struct OwnedRingShape {
  uint32_t hop = 0;
  uint32_t entries = 0;       // descriptors of each of the two rings; one of them stays unused
  uint32_t buffer_bytes = 0;  // 4096, or less in raw mode
  bool raw = false;
  uint16_t sof_mask = 0xffff, eof_mask = 0xffff;  // PDFs that are taken; not looked at in raw mode
  uint64_t memory_offset = 0;                     // of owned_ring_bytes() in the host's memory
};

constexpr size_t owned_ring_bytes(uint32_t entries, uint32_t buffer_bytes) noexcept {
  constexpr size_t kPage = 4096;
  const size_t descriptors = (2 * size_t{entries} * sizeof(Descriptor) + kPage - 1) / kPage * kPage;
  return descriptors + (2 * size_t{entries} * buffer_bytes + kPage - 1) / kPage * kPage;
}

// What has arrived, in the ring's own memory.
struct OwnedFrame {
  uint8_t sof = 0, eof = 0;
  bool damaged = false;  // the controller says so (its checksum, in frame mode)
  std::span<const std::byte> bytes;
};

class OwnedRing {
 public:
  // Both outlive it.
  OwnedRing(HostMemory& memory, PciDevice& device, const OwnedRingShape& shape) noexcept;
  ~OwnedRing() { stop(); }
  OwnedRing(const OwnedRing&) = delete;
  OwnedRing& operator=(const OwnedRing&) = delete;

  // ENODEV: the controller is gone, or has no such ring. EBUSY: the ring is in use.
  Status start() noexcept;
  // The same for an owner that follows a dead one, whose ring is still enabled: it is stopped
  // first. What is in it is lost.
  Status take_over() noexcept;
  void stop() noexcept;
  [[nodiscard]] bool is_running() const noexcept { return running_; }
  // Whether somebody has left the ring enabled.
  [[nodiscard]] bool is_enabled() noexcept;

  // How many can be sent now. What is in the ring goes out without help.
  uint32_t room() noexcept;
  // False: no room.
  bool send(uint8_t sof, uint8_t eof, std::span<const std::byte> bytes) noexcept;
  // The oldest that has arrived; valid until consume().
  bool peek(OwnedFrame& frame) noexcept;
  void consume() noexcept;

  // The host's interrupt fires when something arrives. False: something is there already.
  bool arm() noexcept;
  void disarm() noexcept { interrupt_.disable(); }

  // Descriptors that the controller flagged as overrun: what came before them was lost.
  [[nodiscard]] uint64_t overruns() const noexcept { return overruns_; }

 private:
  struct Half;
  [[nodiscard]] Half half(bool tx) const noexcept;
  [[nodiscard]] uint64_t bytes() const noexcept {
    return owned_ring_bytes(shape_.entries, shape_.buffer_bytes);
  }
  void post(uint32_t index) noexcept;
  void disable(uint64_t iova) noexcept;

  HostMemory& memory_;
  PciDevice& device_;
  const Quirks& quirks_;
  const OwnedRingShape shape_;
  const uint32_t hop_count_;
  RingInterrupt interrupt_;
  uint64_t iova_ = 0;
  bool running_ = false;
  uint32_t tx_head_ = 0, tx_tail_ = 0;  // both count on
  uint32_t rx_tail_ = 0;                // the next descriptor to complete
  uint64_t overruns_ = 0;
};

}  // namespace tbt::rail::nhi
