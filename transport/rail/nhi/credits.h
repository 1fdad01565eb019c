// Credits: flow control in software, for a rail whose rings run without the hardware's end-to-end
// credits. The sender never has more frames under way than the peer has posted buffers.
//
// Nothing is counted that a killed process could count wrongly: how many frames were sent and
// posted follows from the rings' own indices, which count on for ever. Beside them there are single
// words, each of which may be stale, as after a lost frame:
//
//   sent      = TX head - tx_base                  limit: what the peer's last credit frame allows
//   arrived   = RX tail + offset                   offset: by the `sent` of the peer's last one
//   to allow  = posted  + offset - reserve         announced: what ours has said last
//
// A frame that was lost on the cable took no buffer; the next credit frame of its sender says how
// many it has sent, and the difference goes into `offset`. So all is mended by the next frame.
//
// Credit frames need a buffer like all others. The last `reserve` buffers that are posted are kept
// for them, and each is owed for at least as many frames, so there is always room for one of the
// two ends' (docs/wire.md, section 7.3).
#pragma once

#include <cstdint>

#include "rail/shared_state.h"
#include "wire/tb/credit_frame.h"

namespace tbt::rail::nhi {

class Credits {
 public:
  explicit Credits(RailState& state, uint32_t ring_entries) noexcept
      : state_(state), credits_(state.credits), step_(step_of(ring_entries)) {}

  // How many frames a credit frame stands for, and how many buffers are kept for credit frames.
  static constexpr uint32_t step_of(uint32_t ring_entries) noexcept {
    return ring_entries < 128 ? (ring_entries < 16 ? 2 : ring_entries / 8) : 32;
  }

  [[nodiscard]] uint32_t session() const noexcept {
    return credits_.session.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool on() const noexcept { return session() != 0; }
  // The peer has allowed frames in this session.
  [[nodiscard]] bool granted() const noexcept {
    return credits_.granted.load(std::memory_order_acquire) == session();
  }

  // With the transmit and the receive lock held. Counts begin at `first` at both ends; 0 but in
  // tests.
  void begin(uint32_t session, uint32_t first) noexcept;
  void end() noexcept { credits_.session.store(0, std::memory_order_release); }

  // With the transmit lock held.
  [[nodiscard]] uint32_t room() const noexcept {
    const auto left = static_cast<int32_t>(limit() - sent());
    return left > 0 ? static_cast<uint32_t>(left) : 0;
  }
  // Whether it is time to ask the peer, that is, its last credit frame may have been lost. To be
  // asked whenever there is not room enough.
  bool wants_to_ask(int64_t now_ns) noexcept;
  // The next credit frame, unless the peer has no buffer for it.
  [[nodiscard]] bool may_speak() const noexcept;
  [[nodiscard]] wire::tb::CreditFrame speak(bool ask) noexcept;
  void spoken(const wire::tb::CreditFrame& frame) noexcept;

  // Anybody: whether a credit frame is to be sent.
  [[nodiscard]] bool due() const noexcept;

  // With the receive lock held: a frame that arrived, as number `tail` of the ring's. Done twice it
  // does the same.
  void take(const wire::tb::CreditFrame& frame, uint32_t tail) noexcept;

 private:
  [[nodiscard]] uint32_t sent() const noexcept {
    return state_.tx.head.load(std::memory_order_relaxed) -
           credits_.tx_base.load(std::memory_order_relaxed);
  }
  [[nodiscard]] uint32_t limit() const noexcept {
    return credits_.limit.load(std::memory_order_acquire);
  }
  // What the peer may have sent, by the buffers that are posted.
  [[nodiscard]] uint32_t allowance() const noexcept;

  RailState& state_;
  CreditState& credits_;
  const uint32_t step_;
};

}  // namespace tbt::rail::nhi
