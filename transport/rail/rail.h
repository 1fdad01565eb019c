// Rail: moves frames of at most 4096 bytes over one link, for all the processes of a host that
// share it.
//
// A rail knows frames, buffers and slots (a slot is an attached process); it knows no queue pair.
// It is lossless and in order in normal operation, and trusted in neither. One Rail object belongs
// to one process and slot; the state behind it is shared by the host's processes, any of which may
// die at any instruction.
//
// Threads: calls on one Rail object are made under its owner's lock (device/), one at a time.
// Between processes the rail does its own locking, with locks that survive the death of their
// holder. Virtual calls are made once per burst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tbt::rail {

inline constexpr size_t kFrameBytes = 4096;

using SlotId = uint16_t;
inline constexpr SlotId kDaemonSlot = 0;   // tbtd; also where control frames go
inline constexpr SlotId kSlotsMax = 64;    // slots 0..63; a QPN's six high bits
inline constexpr SlotId kNoSlot = 0xffff;  // drop the frame

// PDF of the last transport packet of a head frame, and of the payload frame that follows it
// directly: the two are never parted (wire/frame.h gives the meaning of the others).
inline constexpr uint8_t kEofHead = 2;
inline constexpr uint8_t kEofPayload = 3;

// Memory of this process that the rail's controller may read, too. A frame that leaves straight
// from it must not change before the ring has passed it (tx_read), or it arrives changed; nor may
// the mapping go away before.
struct DirectMemory {
  const std::byte* data = nullptr;
  uint64_t iova = 0;  // where the controller finds `data`; 0: nowhere
};

// No source says what a controller asks of a buffer's address. Linux gives it buffers that begin a
// page; memory of other origin is given to it from such addresses on.
inline constexpr uint64_t kDirectAlign = 64;

struct TxFrame {
  uint32_t length = 0;  // 1..4096
  uint8_t sof = 0;  // protocol-defined field of the first and of the last transport packet, 0..15
  uint8_t eof = 0;
  DirectMemory direct{};  // instead of the reserved buffer, if it has an IOVA
};

struct RxFrame {
  const std::byte* data = nullptr;  // nullptr: no frame
  uint32_t length = 0;
  uint32_t buffer = 0;  // the rail's own name of the buffer
  uint8_t sof = 0;
  uint8_t eof = 0;
};

// What arrives together: one frame, or a head and its payload frame (payload.data != nullptr).
struct RxPacket {
  RxFrame head;
  RxFrame payload;
};

struct Capabilities {
  uint32_t tx_frames = 0;      // most frames that one tx_begin can hand out
  uint32_t rx_frames = 0;      // receive buffers of the ring
  bool checks_frames = false;  // the link drops damaged frames by itself
  bool sends_direct = false;   // frames may name memory by its IOVA
};

// Counters of the rail, all processes together. Each drop reason has its own.
struct RailStats {
  uint64_t tx_frames = 0, tx_bytes = 0, rx_frames = 0, rx_bytes = 0;
  uint64_t tx_direct = 0;          // of tx_frames, those straight from their owner's memory
  uint64_t tx_full = 0;            // tx_begin found no room
  uint64_t rx_crc_errors = 0;      // descriptor flag
  uint64_t rx_overruns = 0;        // descriptor flag
  uint64_t rx_no_slot = 0;         // nobody to take it
  uint64_t rx_inbox_full = 0;      // a process that does not drain its inbox
  uint64_t rx_orphan_payload = 0;  // head without payload frame, or the reverse
  uint64_t credit_frames = 0;      // flow control in software: sent,
  uint64_t credit_requests = 0;    // of them to ask for more,
  uint64_t credit_refused = 0;     // received and not believed
  uint64_t tx_held_up = 0;         // tx_begin found no credit
  uint64_t interrupts = 0;
  uint64_t stranded = 0;  // completions found by the watchdog, not by an interrupt
};

// Says which slot a frame is for, from its first bytes: given by fabric/, which knows QPNs.
using Classifier = SlotId (*)(std::span<const std::byte> head, uint8_t sof, uint8_t eof) noexcept;

class Rail {
 public:
  virtual ~Rail() = default;
  Rail() = default;
  Rail(const Rail&) = delete;
  Rail& operator=(const Rail&) = delete;

  [[nodiscard]] virtual const Capabilities& capabilities() const noexcept = 0;

  // Reserves up to buffers.size() transmit buffers of kFrameBytes in ring order, writes their
  // addresses and returns how many (0: ring full, link down, or a stopped process holds the ring;
  // nothing is held). A return > 0 holds
  // the rail's transmit lock until tx_commit, so fill and commit at once.
  virtual size_t tx_begin(std::span<std::byte*> buffers) noexcept = 0;
  // Sends the first frames.size() of the reserved buffers in order with one doorbell, gives the
  // rest back and releases the lock. frames may be empty.
  virtual void tx_commit(std::span<const TxFrame> frames) noexcept = 0;

  // How many frames all processes have committed since the rail came up, modulo 2^32.
  [[nodiscard]] virtual uint32_t tx_posted() const noexcept = 0;
  // Whether the link has read the first `posted` of them, so that it touches their memory no more;
  // also when it has been stopped. False, too, while a stopped process holds the ring.
  virtual bool tx_read(uint32_t posted) noexcept = 0;

  // Fills `out` with packets for this slot, oldest first; hands frames of other slots to their
  // owners (and wakes them if they sleep). The buffers are the caller's until rx_release.
  virtual size_t rx_burst(std::span<RxPacket> out) noexcept = 0;
  virtual void rx_release(std::span<const RxPacket> packets) noexcept = 0;
  // True if rx_burst would find something: reads memory only.
  [[nodiscard]] virtual bool rx_pending() const noexcept = 0;

  // Interrupts: armed means that the host's interrupt fires when a frame arrives. arm() returns
  // false if a frame is already there (then do not sleep). Both are shared by the host's processes.
  virtual bool arm() noexcept = 0;
  virtual void disarm() noexcept = 0;

  // Lets an emulated link move what is in flight on it; a no-op on hardware. Returns the monotonic
  // time in nanoseconds at which more will arrive, or INT64_MAX.
  virtual int64_t advance(int64_t now_ns) noexcept = 0;

  // Takes back every buffer and lock of a dead process. Called by the daemon. False: a process that
  // is stopped holds a lock of the rail; call again later.
  virtual bool reclaim(SlotId dead) noexcept = 0;

  [[nodiscard]] virtual RailStats stats() const noexcept = 0;
};

}  // namespace tbt::rail
