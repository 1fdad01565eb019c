// DmaEngine: moves frames from the transmit ring of one NHI over a cable into the receive ring of
// another. There is one per direction of a cable. It runs inline in whoever rings a doorbell: the
// sender, or the receiver when it posts the buffers for which frames were waiting, or anybody when
// a frame is due.
//
// Whoever finds the engine running leaves: the runner looks once more after it has given the lock
// back.
#pragma once

#include <atomic>
#include <cstdint>

#include "rail/emulated/silicon.h"
#include "rail/host_memory.h"

namespace tbt::rail::emulated {

// A host as this process sees it.
struct HostView {
  NhiSilicon* nhi = nullptr;
  HostMemory* memory = nullptr;  // nullptr: not attached yet
  std::byte* base = nullptr;     // of the memory
  int interrupt_fd = -1;
};

void count_misuse(NhiSilicon& nhi, Misuse misuse) noexcept;
// Memory behind [iova, iova + bytes), or nullptr.
inline std::byte* find_mapped(const HostView& host, uint64_t iova, uint64_t bytes) noexcept {
  for (const IovaRange& range : host.nhi->iova) {
    const uint64_t size = range.bytes.load(std::memory_order_acquire);
    const uint64_t into = iova - range.start.load(std::memory_order_relaxed);
    if (size < bytes || into > size - bytes) continue;
    return host.base + range.offset.load(std::memory_order_relaxed) + into;
  }
  return nullptr;
}
// The same for an access of the device: what is not mapped is a counted fault.
inline std::byte* translate(const HostView& host, uint64_t iova, uint64_t bytes) noexcept {
  std::byte* const found = find_mapped(host, iova, bytes);
  if (found == nullptr) host.nhi->dma_faults.fetch_add(1, std::memory_order_relaxed);
  return found;
}
// Sets a bit of the interrupt status, and fires if it is enabled and was not set.
void raise_interrupt(const HostView& host, uint32_t bit) noexcept;

class DmaEngine {
 public:
  struct End {
    const HostView* host = nullptr;
    uint32_t hop = 0;
  };
  DmaEngine(FabricSilicon& fabric, CableSilicon& cable, DirectionSilicon& direction,
            QueueSlot* queue, End from, End to) noexcept
      : fabric_(fabric),
        cable_(cable),
        direction_(direction),
        queue_(queue),
        from_(from),
        to_(to) {}

  // Moves what can move now.
  void run() noexcept { run_at(kNoTime, Care::kUsual); }
  // The same, after a death: takes the engine from a dead runner at once.
  void run_thoroughly() noexcept { run_at(kNoTime, Care::kThorough); }
  // The receiver posted buffers: goes on if frames wait for them.
  void posted() noexcept {
    if (direction_.stalled.load(std::memory_order_seq_cst) != 0) run();
  }
  // As run(), with the caller's time; returns when the next frame will be due, or INT64_MAX.
  int64_t advance(int64_t now_ns) noexcept;
  // For a watchdog: goes on with whatever was left lying, by a dead runner or for another reason.
  void sweep() noexcept {
    if (!is_idle()) run_thoroughly();
  }

  [[nodiscard]] Indices indices() const noexcept {
    return Indices::unpack(direction_.indices.load(std::memory_order_acquire));
  }

  // A ring was stopped: its index begins at 0 again. What is on the cable is lost with the receive
  // ring.
  void reset_tx() noexcept;
  void reset_rx() noexcept;

 private:
  static constexpr int64_t kNoTime = INT64_MIN;  // ask the clock if it is needed
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
    Ring tx, rx;
    bool rx_interrupt = false, tx_interrupt = false;
  };

  [[nodiscard]] RingRegisters& tx_regs() const noexcept { return from_.host->nhi->tx[from_.hop]; }
  [[nodiscard]] RingRegisters& rx_regs() const noexcept { return to_.host->nhi->rx[to_.hop]; }
  void commit(const Indices& next) noexcept {
    direction_.indices.store(next.pack(), std::memory_order_release);
  }
  [[nodiscard]] CableParams params() const noexcept;

  bool enter(Care care) noexcept;
  [[nodiscard]] bool is_idle() const noexcept;
  void lock_for_reset() noexcept;
  void recover() noexcept;
  // Where a ring was found last time, by the values of its registers.
  struct FoundRing {
    uint64_t base = 0;
    const std::byte* memory = nullptr;
    uint32_t mappings = 0;  // generation
    Ring ring;
  };
  [[nodiscard]] static Ring ring_of(const HostView& host, const RingRegisters& regs,
                                    FoundRing& found) noexcept;
  void run_at(int64_t now_ns, Care care) noexcept;
  Stop progress(Pass& pass) noexcept;
  [[nodiscard]] bool more_work(Stop stop) const noexcept;

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
  void write_frame(Pass& pass, const Frame& frame, Indices after) noexcept;
  [[nodiscard]] bool is_allowed(const Frame& frame) const noexcept;
  [[nodiscard]] Room room(const Pass& pass, const Indices& at) const noexcept;
  bool stall(const Pass& pass, const Indices& at) noexcept;

  FabricSilicon& fabric_;
  CableSilicon& cable_;
  DirectionSilicon& direction_;
  QueueSlot* queue_;
  End from_, to_;
  FoundRing found_tx_, found_rx_;  // under the direction's lock, as everything but this:
  std::atomic<uint32_t> busy_{0};  // how often this process found the engine running
};

}  // namespace tbt::rail::emulated
