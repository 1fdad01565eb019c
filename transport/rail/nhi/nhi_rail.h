// NhiRail: one cable, over a ring pair of the NHI that all processes of the host share.
//
// Sending: take the transmit lock, fill buffers, post descriptors, ring once, give the lock back.
// Receiving: whoever finds a frame at the ring's tail and gets the receive lock dispatches it and
// those after it, its own to its caller, others to their inboxes. What stood in our inbox before is
// delivered first, so the order of the ring is kept for every slot.
//
// Interrupts: a process that polls (has called rx_burst or disarm since its last arm) has its bit
// in `pollers`. The last one to clear its bit enables the ring's interrupt; the first one to set it
// again disables it. So a host with a polling process pays for none. Who stops polling without
// arming leaves the others to their time-outs until it dies or its rail is closed.
#pragma once

#include "rail/nhi/credits.h"
#include "rail/nhi/interrupts.h"
#include "rail/nhi/pci_device.h"
#include "rail/nhi/quirks.h"
#include "rail/nhi/ring.h"
#include "rail/shared_rail_base.h"

namespace tbt::rail::nhi {

// What the NHI does with the frames of a ring pair for which there is no buffer.
enum class RingFlow : uint32_t {
  kE2e,   // the hardware's end-to-end credits: the sender waits
  kNone,  // they are lost
};

class NhiRail final : public SharedRail {
 public:
  NhiRail(HostMemory& memory, uint32_t rail, PciDevice& device, SlotId slot,
          Classifier classify) noexcept;
  ~NhiRail() override;

  size_t tx_begin(std::span<std::byte*> buffers) noexcept override;
  void tx_commit(std::span<const TxFrame> frames) noexcept override;
  [[nodiscard]] uint32_t tx_posted() const noexcept override {
    return state_.tx.head.load(std::memory_order_acquire);
  }
  bool tx_read(uint32_t posted) noexcept override;
  size_t rx_burst(std::span<RxPacket> out) noexcept override;
  void rx_release(std::span<const RxPacket> packets) noexcept override;
  [[nodiscard]] bool rx_pending() const noexcept override { return !inbox_.empty() || rx_.ready(); }
  bool arm() noexcept override;
  void disarm() noexcept override;
  int64_t advance(int64_t now_ns) noexcept override { return device_.advance(now_ns); }
  bool reclaim(SlotId dead) noexcept override;

  // Bring-up and shut-down (shared_rail.h); only the daemon, with nobody else on the rail.
  Status start() noexcept;
  Status stop() noexcept;

  // rail_flow.cc: between paths, and before one carries frames of programs. The daemon only;
  // processes may be on the rail. EBUSY: one that is stopped holds a lock; call again later.
  //
  // Starts both rings anew, for the daemon alone, with `buffers` posted. What was in them is lost.
  Status hold(RingFlow flow, uint32_t buffers) noexcept;
  // Posts more, in a rail that is held.
  void post(uint32_t buffers) noexcept;
  // Sends and takes single frames of a rail that is held. False: no room, or none there.
  bool send_held(const wire::tb::CreditFrame& frame) noexcept;
  bool take_held(wire::tb::CreditFrame& frame) noexcept;
  // Frames sent that the NHI has not completed.
  [[nodiscard]] uint32_t unsent() noexcept { return tx_.unsent(); }
  // Posts all buffers and lets everybody in.
  Status release() noexcept;
  // From here on frames of programs pass, by rings with `flow`, and unless `session` is 0 by
  // credits in software. Nothing is touched of a rail that carries them so already.
  Status carry(RingFlow flow, uint32_t session) noexcept;
  // Flow control in software from here on, and a question to the peer; session 0: none. Nothing
  // happens if the session is the one in force. Counts begin at `first`.
  Status use_credits(uint32_t session, uint32_t first = 0) noexcept;
  // Asks again, if the peer has not answered in this session; whether it has.
  bool credits_granted() noexcept;

 private:
  enum class Routed { kDone, kBlocked };

  // Steps of rx_burst, with the receive lock held.
  bool lock_tx() noexcept;
  bool lock_rx() noexcept;
  size_t dispatch(std::span<RxPacket> out) noexcept;
  Routed route(const RxFrame& frame, std::span<RxPacket> out, size_t& taken) noexcept;
  Routed deliver(const InboxEntry& entry, std::span<RxPacket> out, size_t& taken) noexcept;
  void consume(const RxFrame& frame) noexcept;
  void keep_head(const RxFrame& frame) noexcept;
  void drop_kept_head() noexcept;
  void count_delivered(const InboxEntry& entry) noexcept;
  void refill() noexcept;
  void ring_rx_doorbell() noexcept;
  [[nodiscard]] bool is_up() const noexcept {
    return state_.shared.up.load(std::memory_order_relaxed) == kRailUp;
  }

  [[nodiscard]] RingFlow ring_flow() const noexcept {
    return static_cast<RingFlow>(state_.shared.flow.load(std::memory_order_relaxed));
  }

  // Credit frames, when they are the flow control.
  void ask_for_credit() noexcept;
  bool post_credit_frame(bool ask) noexcept;
  void take_credit_frame(const RxFrame& frame) noexcept;
  void send_due_credit() noexcept;
  void unlock_tx() noexcept;

  void repair_tx() noexcept;
  void repair_rx() noexcept;

  void program_tx_ring(uint64_t iova, RingFlow flow) noexcept;
  void program_rx_ring(uint64_t iova, RingFlow flow) noexcept;
  void disable_rings() noexcept;
  void reset_rings() noexcept;
  sys::LockOutcome lock_both() noexcept;
  void unlock_both() noexcept;
  void wire_interrupt() noexcept;
  bool disable_interrupt() noexcept;
  bool stop_polling(SlotId slot) noexcept;
  [[nodiscard]] uint32_t rx_bit() const noexcept { return hop_count_ + hop_; }

  PciDevice& device_;
  const Quirks& quirks_;
  TxRing tx_;
  RxRing rx_;
  Credits credits_;
  const uint32_t hop_;
  const uint32_t hop_count_;
  RingInterrupt interrupt_;
  uint32_t reserved_ = 0;     // by tx_begin
  uint32_t lock_misses_ = 0;  // of the receive lock, in a row
  bool polling_ = false;      // our bit in `pollers`
};

}  // namespace tbt::rail::nhi
