// DmaEngine: moves frames from a transmit ring of one NHI over a cable into the receive ring of
// another, to which the ring's path leads at the moment. It runs inline in whoever rings a
// doorbell: the sender, or the receiver when it posts the buffers for which frames were waiting, or
// anybody when a frame is due. The memory of a virtual machine is seen by one process only; that
// one does its part of the way, and the others wake it.
//
// Whoever finds the engine running leaves: the runner looks once more after it has given the lock
// back.
#pragma once

#include <atomic>
#include <cstdint>

#include "rail/emulated/guest_port.h"
#include "rail/emulated/silicon.h"
#include "rail/host_memory.h"

namespace tbt::rail::emulated {

// A host as this process sees it.
struct HostView {
  NhiSilicon* nhi = nullptr;
  HostMemory* memory = nullptr;  // nullptr: not attached yet
  std::byte* base = nullptr;     // of the memory
  int interrupt_fd = -1;
  GuestPort* guest = nullptr;  // a virtual machine, in the one process that sees its memory

  [[nodiscard]] bool is_guest() const noexcept {
    return nhi->guest.load(std::memory_order_relaxed) != 0;
  }
  // Whether this process can read and write its memory.
  [[nodiscard]] bool is_visible() const noexcept {
    return guest != nullptr || (memory != nullptr && !is_guest());
  }
};

// Memory behind [iova, iova + bytes), or nullptr.
inline std::byte* find_mapped(const HostView& host, uint64_t iova, uint64_t bytes,
                              Reach reach = Reach::kWrite) noexcept {
  if (host.guest != nullptr) return host.guest->find(iova, bytes, reach);
  for (const IovaRange& range : host.nhi->iova) {
    const uint64_t size = range.bytes.load(std::memory_order_acquire);
    const uint64_t into = iova - range.start.load(std::memory_order_relaxed);
    if (size < bytes || into > size - bytes) continue;
    return host.base + range.offset.load(std::memory_order_relaxed) + into;
  }
  return nullptr;
}
// The same for an access of the device: what is not mapped is a counted fault, unless the device
// may not reach memory at all.
inline std::byte* translate(const HostView& host, uint64_t iova, uint64_t bytes,
                            Reach reach = Reach::kWrite) noexcept {
  std::byte* const found = find_mapped(host, iova, bytes, reach);
  const bool tried = host.guest == nullptr || host.guest->is_bus_master();
  if (found == nullptr && tried) host.nhi->dma_faults.fetch_add(1, std::memory_order_relaxed);
  return found;
}
// Sets a bit of the interrupt status, and fires if it is enabled and was not set, or only
// `announced`. Vector 0 wakes the daemon, the others whoever sleeps.
void raise_interrupt(const HostView& host, uint32_t bit, bool announced = false) noexcept;

// How long anybody waits for a live holder of a lock: a process can be stopped at any instruction.
inline constexpr int64_t kStandstillNs = 2 * 1000 * 1000;
// What the cable does to a frame that enters it now.
Verdict decide_on(DirectionSilicon& direction, int64_t now_ns, uint32_t bytes,
                  const CableParams& params) noexcept;

class DmaEngine {
 public:
  struct End {
    const HostView* host = nullptr;
    uint32_t hop = 0;
  };
  // `hosts` are all the fabric's, and outlive the engine like everything else here.
  DmaEngine(FabricSilicon& fabric, const HostView* hosts, QueueSlot* queue, uint32_t host,
            uint32_t hop) noexcept
      : fabric_(fabric),
        flow_(fabric.flows[host][hop]),
        queue_(queue),
        hosts_(hosts),
        from_{hosts + host, hop} {}

  // Moves what can move now.
  void run() noexcept { run_at(kNoTime, Care::kUsual); }
  // The same for whoever must not become the engine of a busy sender: after so many frames it
  // leaves, and the sender's next doorbell, or a sweep, goes on.
  void run_bounded() noexcept { run_at(kNoTime, Care::kThorough, kBoundedFrames); }
  // The same, after a death: takes the engine from a dead runner at once.
  void run_thoroughly() noexcept { run_at(kNoTime, Care::kThorough); }
  // The receiver posted buffers: goes on if frames wait for them.
  void posted() noexcept {
    if (flow_.stalled.load(std::memory_order_seq_cst) != 0) run();
  }
  // As run(), with the caller's time; returns when the next frame will be due, or INT64_MAX.
  int64_t advance(int64_t now_ns) noexcept;
  // For a watchdog: goes on with whatever was left lying, by a dead runner or for another reason.
  void sweep() noexcept {
    if (!is_idle()) run_bounded();
  }

  // Whether its transmit ring is on, or was and left something lying.
  [[nodiscard]] bool is_used() const noexcept {
    const Indices at = indices();
    return at.queue_in != at.queue_out || flow_.lock.is_locked() ||
           (tx_regs().options.load(std::memory_order_relaxed) & nhi::kOptionEnable) != 0;
  }

  [[nodiscard]] Indices indices() const noexcept {
    return Indices::unpack(flow_.indices.load(std::memory_order_acquire));
  }

  // A ring was stopped: its index begins at 0 again. What is on the cable is lost with the receive
  // ring.
  void reset_tx() noexcept;
  void reset_rx() noexcept;
  // The path leads elsewhere from now on: what is on the cable is lost, and the receive rings keep
  // their places. Under the fabric's control lock; run_thoroughly() afterwards.
  [[nodiscard]] bool change_route(const Route& next) noexcept;
  [[nodiscard]] Route route() const noexcept {
    return Route::unpack(flow_.route.load(std::memory_order_acquire));
  }

 private:
  static constexpr int64_t kNoTime = INT64_MIN;  // ask the clock if it is needed
  static constexpr uint32_t kBoundedFrames = 1024;
  enum class Care { kUsual, kThorough };
  enum class Stop { kIdle, kStalled, kCableFull, kOff };
  enum class Room { kReady, kWait, kLost };
  struct Ring {
    nhi::Descriptor* descriptors = nullptr;  // nullptr: not enabled, not attached, or not mapped
    uint32_t size = 0;
  };
  struct Frame {
    const std::byte* data = nullptr;
    uint32_t length = 0;
    uint8_t sof = 0, eof = 0;
    bool damaged = false, lost_interrupt = false;
  };
  struct Pass {  // one holding of the lock
    int64_t now_ns = kNoTime;
    uint32_t budget = UINT32_MAX;   // frames that may leave the transmit ring
    CableSilicon* cable = nullptr;  // nullptr: the ring has no path
    DirectionSilicon* direction = nullptr;
    End to;  // host == nullptr: the path is not open at the other end
    Ring tx, rx;
    bool rx_interrupt = false, tx_interrupt = false;
  };

  [[nodiscard]] RingRegisters& tx_regs() const noexcept { return from_.host->nhi->tx[from_.hop]; }
  static RingRegisters& rx_regs(const End& to) noexcept { return to.host->nhi->rx[to.hop]; }
  void commit(const Indices& next) noexcept {
    flow_.indices.store(next.pack(), std::memory_order_release);
  }
  void find_way(Pass& pass) const noexcept;

  bool enter(Care care) noexcept;
  [[nodiscard]] bool is_idle() const noexcept;
  void lock_for_reset() noexcept;
  void prepare_reset(sys::LockOutcome outcome) noexcept;
  void recover() noexcept;
  // Where a ring was found last time, by the values of its registers.
  struct FoundRing {
    const HostView* host = nullptr;
    uint64_t base = 0;
    const std::byte* memory = nullptr;
    uint32_t mappings = 0;  // generation
    Ring ring;
  };
  [[nodiscard]] static Ring ring_of(const HostView& host, const RingRegisters& regs,
                                    FoundRing& found) noexcept;
  void run_at(int64_t now_ns, Care care, uint32_t budget = UINT32_MAX) noexcept;
  // Whether the transmit ring has another frame for this pass.
  bool next_sent(Pass& pass, const Indices& at) const noexcept {
    if (tx_regs().index.load(std::memory_order_acquire) == at.tx || pass.budget == 0) return false;
    if (pass.budget != UINT32_MAX) --pass.budget;
    return true;
  }
  Stop progress(Pass& pass) noexcept;
  [[nodiscard]] bool more_work(const Pass& pass, Stop stop) const noexcept;
  void announce(Pass& pass) noexcept;
  void fire(const Pass& pass) noexcept;
  void poke_guests(const Pass& pass) const noexcept;

  Stop pass_directly(Pass& pass) noexcept;
  void warm_up_next(const Pass& pass, const Indices& at) noexcept;
  Stop pass_over_cable(Pass& pass) noexcept;
  Stop take_in(Pass& pass) noexcept;
  void put_on_cable(const Frame& frame, const Verdict& verdict, Indices& next) noexcept;
  Stop bring_out(Pass& pass) noexcept;
  [[nodiscard]] int64_t due_ns(const Indices& at, int64_t now_ns) const noexcept;
  Stop lose_everything(Pass& pass) noexcept;

  bool fetch(Pass& pass, uint32_t index, Frame& frame) noexcept;
  void complete_tx(const Ring& ring, uint32_t index) noexcept;
  bool deliver(Pass& pass, const Frame& frame, Indices after) noexcept;
  void lose(const Pass& pass, const Indices& after) noexcept;
  void write_frame(Pass& pass, const Frame& frame, Indices after) noexcept;
  [[nodiscard]] static bool is_allowed(const End& to, const Frame& frame) noexcept;
  [[nodiscard]] Room room(const Pass& pass, const Indices& at) noexcept;
  bool stall(const Pass& pass, const Indices& at) noexcept;
  [[nodiscard]] bool is_stuck() const noexcept {
    return flow_.stuck.load(std::memory_order_relaxed) != 0;
  }

  FabricSilicon& fabric_;
  FlowSilicon& flow_;
  QueueSlot* queue_;
  const HostView* hosts_;
  End from_;
  FoundRing found_tx_, found_rx_;  // under the flow's lock, as everything but this:
  std::atomic<uint32_t> busy_{0};  // how often this process found the engine running
};

}  // namespace tbt::rail::emulated
