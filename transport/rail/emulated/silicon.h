// The layout of an emulated fabric in shared memory: the registers of every NHI, and every cable
// with what is on it. Offsets and sizes follow from the shape alone, so every process finds the
// same.
//
// A process may be killed while it runs the model. So every step ends with one atomic store that
// makes it true (DirectionSilicon::indices), and what must happen beside it is in the journal
// (dma_engine.cc).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "rail/emulated/emulated_fabric.h"
#include "rail/emulated/router_silicon.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/robust_lock.h"

namespace tbt::rail::emulated {

using Register = std::atomic<uint32_t>;

struct RingRegisters {
  Register base_low, base_high;
  Register index;  // the driver's half only: TX producer, RX "posted up to"
  Register size;
  Register options;
  Register pdf_masks;
  Register primed;  // RX: something was posted since the ring was enabled
  // The NHI's half of `index`, where no flow keeps it: of ring 0, and of a receive ring to which no
  // path leads.
  Register own_half;
  Register feeder;  // RX: the flow that leads here, as its number + 1; 0: none
};

struct IovaRange {
  std::atomic<uint64_t> start, bytes, offset;  // bytes == 0: unused
};

// Rules that a driver can break, as counted in NhiCounters::misuse.
enum class Misuse : uint32_t {
  kNone,
  kIndexBeyondRing,
  kDoorbellOnStoppedRing,
  kEnabledTwice,
  kEnabledUnprogrammed,
  kE2eBeforeEnable,
  kChangedWhileEnabled,
  kNotPosted,
  kRawTooLong,
  kWrongHalf,
};
const char* misuse_text(Misuse misuse) noexcept;

// Control packets on their way to ring 0, under the fabric's control lock. What does not fit is
// lost and counted; connection managers repeat.
struct ControlQueue {
  static constexpr uint32_t kPackets = 64;
  struct Packet {
    uint16_t bytes;
    uint8_t pdf;
    std::array<std::byte, 256> data;
  };
  std::atomic<uint32_t> in, out;  // count on; read by everybody
  std::array<Packet, kPackets> packets;
};

struct alignas(64) NhiSilicon {
  std::array<RingRegisters, nhi::kHopsMax> tx, rx;
  alignas(64) std::array<Register, 3> status;
  std::array<Register, 2> mask;
  std::array<Register, 8> vectors;
  std::array<Register, nhi::kVectorsMax> throttling;
  Register dma_misc, inbox_data, inbox_command;
  Register removed;
  Register guest;  // a virtual machine plays this host: only one process sees its memory
  alignas(64) std::array<IovaRange, 32> iova;
  Register iova_generation;           // counts changes of it
  std::atomic<uint64_t> guest_bytes;  // a virtual machine's memory that can be reached
  alignas(64) std::atomic<uint64_t> dma_faults, misuse, pdf_drops, overruns, unreachable,
      interrupts;
  std::atomic<Misuse> last_misuse;
  RouterSilicon router;
  ControlQueue to_ring0;
  Register ring0_raise;                 // an interrupt of ring 0 is owed
  std::atomic<uint64_t> control_drops;  // control packets lost: the queue was full, or on the cable
};

// Where both ends and the cable between them stand: TX consumer, RX producer, and the frames on the
// cable.
struct Indices {
  uint16_t tx = 0, rx = 0;               // modulo the rings' sizes
  uint16_t queue_in = 0, queue_out = 0;  // count on

  static Indices unpack(uint64_t v) noexcept {
    return {static_cast<uint16_t>(v), static_cast<uint16_t>(v >> 16),
            static_cast<uint16_t>(v >> 32), static_cast<uint16_t>(v >> 48)};
  }
  [[nodiscard]] uint64_t pack() const noexcept {
    return uint64_t{tx} | uint64_t{rx} << 16 | uint64_t{queue_in} << 32 | uint64_t{queue_out} << 48;
  }
};

// Where the path of a transmit ring leads, as the path entries of both routers say it.
struct Route {
  enum class State : uint8_t {
    kNone,     // no entry at our own controller: frames go nowhere
    kBlocked,  // over the cable, but the router there does not pass them on
    kOpen,     // into receive ring `hop` of `host`
  };
  State state = State::kNone;
  uint8_t cable = 0;
  uint8_t b_to_a = 0;  // direction on it
  uint8_t host = 0, hop = 0;

  friend bool operator==(const Route&, const Route&) = default;
  static Route unpack(uint64_t v) noexcept {
    return {static_cast<State>(v & 0xff), static_cast<uint8_t>(v >> 8),
            static_cast<uint8_t>(v >> 16), static_cast<uint8_t>(v >> 24),
            static_cast<uint8_t>(v >> 32)};
  }
  [[nodiscard]] uint64_t pack() const noexcept {
    return uint64_t{static_cast<uint8_t>(state)} | uint64_t{cable} << 8 | uint64_t{b_to_a} << 16 |
           uint64_t{host} << 24 | uint64_t{hop} << 32;
  }
};

// What leaves one transmit ring. Everything but `indices`, `stalled`, `unfired` and the lock is
// under the lock. Two cache lines, because processors fetch them in pairs and the next flow is
// somebody else's.
struct alignas(128) FlowSilicon {
  sys::RobustLock lock;
  std::atomic<uint64_t> indices;  // packed Indices
  std::atomic<uint32_t> stalled;  // frames wait for the receiver to post
  std::atomic<uint32_t> stuck;    // FabricConfig::e2e_sticks: until a ring at either end is stopped
  uint32_t overrun;               // a frame was lost for want of a buffer: flag the next
  std::atomic<uint32_t> unfired;  // the status of the receive ring was set, its interrupt not sent
  std::atomic<uint64_t> route;    // packed Route; written under the fabric's control lock as well
  // What completes the receive descriptor of the step from `before` to `after`; `before` is written
  // last.
  std::atomic<uint64_t> journal_before;
  uint64_t journal_after;
  uint32_t journal_old_word, journal_new_word;
};

// One direction of a cable: the flows on it take turns.
struct alignas(64) DirectionSilicon {
  sys::RobustLock lock;
  CableModel model;
};

void count_misuse(NhiSilicon& nhi, Misuse misuse) noexcept;

inline constexpr uint16_t kQueueSlots = 128;  // frames of a flow on the cable; divides 65536

struct alignas(64) QueueSlot {
  int64_t arrival_ns;
  uint32_t length;
  uint8_t sof, eof;
  bool damaged, lost_interrupt, stranded;
  std::byte data[kFrameBytes];
};

struct CableSilicon {
  alignas(64) std::atomic<uint32_t> ideal;  // plugged, and CableModel::is_ideal
  std::atomic<uint32_t> plugged;
  std::atomic<uint32_t> one_lane;
  std::atomic<uint64_t> rate_bps;
  std::atomic<int64_t> latency_ns;
  std::atomic<uint32_t> drop_ppm, corrupt_ppm, duplicate_ppm, lost_interrupt_ppm, stranded_ppm;
  uint32_t host_a, host_b, ordinal_a, ordinal_b;
  DirectionSilicon a_to_b, b_to_a;
};

void store_params(CableSilicon& cable, const CableParams& p) noexcept;
CableParams load_params(const CableSilicon& cable) noexcept;

struct FabricSilicon {
  uint64_t magic;
  uint32_t version;
  uint32_t hosts, cables, hop_count;
  uint32_t amd;  // bit per host, as in FabricConfig
  bool usb4_v2, e2e, e2e_sticks, fixed_paths;
  sys::RobustLock control_lock;  // of the routers, of ring 0 and of where the paths lead
  uint64_t resolved;             // what the routers' path generations added up to then
  std::atomic<uint32_t> timed;   // some cable was not ideal at some time: frames may be under way
  std::array<NhiSilicon, kHostsMax> nhis;
  std::array<CableSilicon, kCablesMax> lines;
  std::array<std::array<FlowSilicon, nhi::kHopsMax>, kHostsMax> flows;  // by host and ring
  // followed by kQueueSlots QueueSlots per flow: hosts * hop_count
};

inline bool is_amd(const FabricSilicon& fabric, uint32_t host) noexcept {
  return (fabric.amd >> host & 1) != 0;
}

constexpr uint32_t flow_number(uint32_t host, uint32_t hop) noexcept {
  return host * nhi::kHopsMax + hop;
}

}  // namespace tbt::rail::emulated
