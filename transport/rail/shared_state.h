// The layout of one rail in a host's shared memory: what its processes share, and where it lies.
//
//   RailState | ring buffers | marks | inbox entries | capture |      for processes only
//   TX descriptors | RX descriptors | TX buffers | RX buffers         seen by the NHI too
//
// Who may write what is said at each field. A process may die between any two stores, so every
// structure is either one atomic word, or can be rebuilt from the marks and the ring window
// (shared_rail.cc, nhi_rail.cc).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "rail/host_memory.h"
#include "rail/nhi/nhi_regs.h"
#include "rail/rail.h"
#include "sys/robust_lock.h"

namespace tbt::rail {

inline constexpr uint32_t kNoBuffer = 0xffffffffu;
inline constexpr uint32_t kCaptureEntries = 256;
inline constexpr size_t kControlBytes = 3 * 4096;  // rings and buffers of ring 0 (control_ring.cc)
// Of a ring pair for ThunderboltIP (nhi/ip_ring.h): three packets of the longest kind.
inline constexpr uint32_t kIpRingEntries = 64;
inline constexpr size_t kIpRingBytes = 4096 + size_t{2} * kIpRingEntries * kFrameBytes;

// The state of a receive buffer, one atomic word each: the truth about who has it.
//   free -> posted             holder of the receive lock (loopback: transmit lock)
//   posted -> kept/held/inbox  the same
//   inbox(s) -> held(s) -> free   the process in slot s
using BufferMark = uint32_t;
inline constexpr BufferMark kMarkFree = 0;
inline constexpr BufferMark kMarkPosted = 1;  // on the ring
inline constexpr BufferMark kMarkKept = 2;    // a head that waits for its payload
constexpr BufferMark mark_held(SlotId slot) noexcept { return 0x10000u | slot; }
constexpr BufferMark mark_inbox(SlotId slot) noexcept { return 0x20000u | slot; }

// One packet in an inbox, by buffers. Lengths are of frames, 1..4096.
struct InboxEntry {
  uint32_t head_buffer = kNoBuffer;
  uint32_t payload_buffer = kNoBuffer;
  uint16_t head_length = 0;
  uint16_t payload_length = 0;
  uint8_t head_sof = 0, head_eof = 0;
  uint8_t payload_sof = 0, payload_eof = 0;
};
static_assert(sizeof(InboxEntry) == 16);

struct InboxIndices {
  alignas(64) std::atomic<uint32_t> taken;  // the owner's
  alignas(64) std::atomic<uint32_t> put;    // of the holder of the dispatching lock
  // When buffers ran short: what `taken` was then, and when that was. Tells a slow owner from a
  // stopped one.
  std::atomic<uint32_t> watched_taken;
  std::atomic<int64_t> watched_since_ns;
};

using Counter = std::atomic<uint64_t>;

// Under the transmit lock.
struct alignas(64) TxState {
  sys::RobustLock lock;
  std::atomic<uint32_t> head;  // next descriptor to fill; the ring holds [tail, head)
  std::atomic<uint32_t> tail;  // next to complete; both count on for ever
  Counter frames, bytes, direct, full;
};

// A head frame taken from the ring, whose payload frame has not come yet.
struct KeptHead {
  uint32_t buffer = kNoBuffer;
  uint32_t length = 0;
  uint8_t sof = 0, eof = 0;
};

// Under the receive lock; `window` and `starved` are read by everybody.
struct alignas(64) RxState {
  sys::RobustLock lock;
  std::atomic<uint64_t>
      window;  // high half: next to post; low half: next to complete; both count on
  std::atomic<uint32_t> starved;  // the ring could not be filled: no free buffer
  uint32_t hand;                  // where the search for free buffers goes on
  uint32_t span;                  // buffers in use so far: a small working set stays in the cache
  KeptHead kept;
};

struct alignas(64) RxCounters {  // under the receive lock
  Counter frames, bytes, crc_errors, overruns, no_slot, inbox_full, orphans;
};

// Of a cable's rail.
enum RailPhase : uint32_t {
  kRailDown = 0,
  kRailUp = 1,
  kRailHeld = 2,  // its rings run for the daemon alone (nhi/flow_test.h)
};

struct alignas(64) SharedState {
  std::atomic<uint64_t> pollers;  // bit per slot: polls, so needs no interrupt
  std::atomic<uint32_t> capturing;
  std::atomic<uint32_t> up;      // RailPhase
  std::atomic<uint32_t> flow;    // nhi::RingFlow of the rings
  std::atomic<uint64_t> iova;    // of the descriptors; the rest follows
  Counter interrupts, stranded;  // any process
  Counter capture_put, capture_taken, capture_lost;
};

// Flow control in software (nhi/credits.h). Each word can be lost with whoever was about to write
// it.
struct alignas(64) CreditState {
  std::atomic<uint32_t> session;  // of this path; 0: none. With both locks, as are the next two
  std::atomic<uint32_t> tx_base;  // of TxState::head, where the counts begin
  // Under the receive lock, read by everybody:
  std::atomic<uint32_t> limit;    // so many frames may have been sent
  std::atomic<uint32_t> granted;  // the session in which the peer has said so
  std::atomic<uint32_t> offset;   // what the peer has sent, less what has arrived
  std::atomic<uint32_t> asked;    // the peer waits for a credit frame
  // RX head as of the last doorbell: what is posted beyond it, the NHI may not know yet.
  std::atomic<uint32_t> posted;
  // Under the transmit lock:
  std::atomic<uint32_t> announced;  // the limit that the peer was told last
  std::atomic<uint32_t> synced;     // frames sent, as the peer was told last
  std::atomic<uint32_t> ask_limit;  // the limit at which it was found to be too low
  std::atomic<int64_t> ask_at_ns, ask_wait_ns;
  Counter frames_sent, requests, held_up;  // under the transmit lock
  Counter frames_taken, frames_refused;    // under the receive lock
};

struct RailState {
  TxState tx;
  RxState rx;
  CreditState credits;
  RxCounters rx_counters;
  SharedState shared;
  std::array<InboxIndices, kSlotsMax> inboxes;
};

// Offsets from the RailState, the same in every process.
struct RailGeometry {
  uint32_t ring_entries = 0;
  uint32_t buffers = 0;
  uint32_t inbox_entries = 0;
  size_t ring_buffers = 0;  // u32 per RX descriptor: which buffer is posted there
  size_t marks = 0;
  size_t inbox_area = 0;
  size_t capture_area = 0;
  size_t dma = 0;  // TX descriptors; on a large page, so that an IOMMU maps what follows by few
  size_t rx_descriptors = 0;
  size_t tx_buffers = 0;
  size_t rx_buffers = 0;
  size_t dma_end = 0;  // page aligned
  size_t bytes = 0;    // whole large pages

  static RailGeometry of(const HostConfig& config) noexcept;
};

// What is at the beginning of the memory.
struct HostHeader {
  uint64_t magic;
  uint32_t version;
  HostConfig config;
  alignas(64) sys::RobustLock interrupt_lock;  // of the NHI's interrupt mask register
  // Status bits that some process read off the NHI (reading clears them) for others to see.
  std::array<std::atomic<uint32_t>, 3> interrupt_status;
  alignas(64) std::array<Slot, kSlotsMax> slots;
};

// The way from a HostMemory to its rails.
class RailMemory {
 public:
  static HostHeader& header(HostMemory& memory) noexcept;
  static const RailGeometry& geometry(const HostMemory& memory) noexcept;
  static RailState& rail(HostMemory& memory, uint32_t rail) noexcept;
  // Where ring 0 of the controller has its rings and buffers: kControlBytes.
  static uint64_t control_offset() noexcept;
  // Where the ring pair for ThunderboltIP of cable `port` has its own: kIpRingBytes.
  static uint64_t ip_ring_offset(HostMemory& memory, uint32_t port) noexcept;
  // Where the rail's DMA area lies in the memory (nhi/pci_device.h: dma_map).
  static uint64_t dma_offset(HostMemory& memory, uint32_t rail) noexcept;
  static uint64_t dma_bytes(const HostMemory& memory) noexcept;
};

// Counters are written under a lock, so they need no atomic addition.
inline void bump(Counter& counter, uint64_t by = 1) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace tbt::rail
