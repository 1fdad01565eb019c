// Saboteur: bugs that are put into a run on purpose, to show that a checker notices them.
//
// Each stands for a mistake of the engine, made where the simulator and the engine touch: a packet
// that leaves, a packet that arrives, a completion that is polled, a request that is posted, an
// option. The frames are made after it, so no check on the cable can see it. Most strike once in a
// run, at a moment that the seed draws; the checkers must not need a flood.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "base/time.h"
#include "engine/endpoint.h"
#include "wire/packet.h"

namespace tbt::sim {

class Node;

enum class Bug : uint8_t {
  kNone,
  // A packet that leaves is wrong.
  kPayloadBit,
  kPayloadShift,
  kReadOld,
  kAtomicResult,
  kImmediate,
  kWriteBeyond,
  kUcCreditLost,
  kUcCreditInvented,
  kRcCreditInvented,
  kRnrSwallowed,
  kDatagramSource,
  kDatagramLost,
  kStall,
  // A packet that arrives is taken wrongly.
  kAckAhead,
  kSendNotDelivered,
  kWriteNotPlaced,
  kSendTwice,
  kAtomicTwice,
  kOldWriteAgain,
  kGapAccepted,
  kByteBehindMessage,
  kDatagramTwice,
  kQkeyIgnored,
  kMemoryBit,
  kGuardByte,
  // A completion is wrong.
  kCompletionLost,
  kCompletionTwice,
  kCompletionOrder,
  kStatus,
  kErrorAsSuccess,
  kFlushMissing,
  kByteLen,
  kWrId,
  kWcOpcode,
  kQpNumber,
  kEventLost,
  // A request or a queue is treated wrongly.
  kReceiveTwice,
  kSendSlotLeak,
  kReceiveSlotLeak,
  kFenceIgnored,
  kSignalAll,
  kUcDrop,
  kKeyLivesOn,
  kSessionIgnored,
  kHostEndUnheard,
  kWindowLivesOn,
  kWindowTooWide,
  kTimersDead,
  kCount
};

const char* bug_name(Bug bug) noexcept;

class Saboteur {
 public:
  Saboteur(Bug bug, Rng rng) : bug_(bug), rng_(rng), patience_(rng_.below(12)) {}

  // How often the bug has shown.
  [[nodiscard]] uint32_t strikes() const noexcept { return timers_dead() ? 1 : strikes_; }
  // What endpoints are made with.
  [[nodiscard]] engine::Options options() noexcept;

  // False: the packet is lost.
  bool on_transmit(engine::TxPacket& packet) {
    return bug_ == Bug::kNone || spoil_transmit(packet);
  }
  // False: the engine does not get it.
  bool before_packet(Node& at, wire::ParsedPacket& packet) {
    return bug_ == Bug::kNone || spoil_arrival(at, packet);
  }
  void after_packet(Node& at, Instant now, uint32_t rail, const wire::ParsedPacket& packet,
                    std::span<const std::byte> payload) {
    if (bug_ != Bug::kNone) spoil_effect(at, now, rail, packet, payload);
  }
  // The completions of one poll of a queue pair, `count` of them; the span has room for one more.
  uint32_t on_poll(engine::QueuePair* qp, std::span<Wc> wcs, uint32_t count) {
    return bug_ == Bug::kNone || count == 0 ? count : spoil_poll(qp, wcs, count);
  }
  // False: the event is lost.
  bool on_event() { return bug_ != Bug::kEventLost || !strike(); }
  bool receive_twice() { return bug_ == Bug::kReceiveTwice && strike(); }
  bool ignore_fence() { return bug_ == Bug::kFenceIgnored && always(); }
  bool key_lives_on() { return bug_ == Bug::kKeyLivesOn && always(); }
  bool session_ignored() { return bug_ == Bug::kSessionIgnored && always(); }
  bool host_end_unheard() { return bug_ == Bug::kHostEndUnheard && always(); }
  bool window_lives_on() { return bug_ == Bug::kWindowLivesOn && always(); }
  bool window_too_wide() { return bug_ == Bug::kWindowTooWide && always(); }
  bool signal_all() { return bug_ == Bug::kSignalAll && always(); }
  [[nodiscard]] bool timers_dead() const noexcept { return bug_ == Bug::kTimersDead; }

 private:
  bool spoil_transmit(engine::TxPacket& packet);
  bool spoil_payload(engine::TxPacket& packet);
  bool spoil_arrival(Node& at, wire::ParsedPacket& packet);
  void spoil_effect(Node& at, Instant now, uint32_t rail, const wire::ParsedPacket& packet,
                    std::span<const std::byte> payload);
  void repeat_old_write(Node& at, Instant now, uint32_t rail, engine::QueuePair& qp,
                        const wire::ParsedPacket& packet, std::span<const std::byte> payload);
  uint32_t spoil_poll(engine::QueuePair* qp, std::span<Wc> wcs, uint32_t count);
  bool spoil_completion(Wc& wc);

  // True once in a run, after some occasions were let pass.
  bool strike() noexcept {
    if (strikes_ != 0 || patience_-- != 0) return false;
    ++strikes_;
    return true;
  }
  bool always() noexcept {
    ++strikes_;
    return true;
  }

  Bug bug_;
  Rng rng_;
  uint32_t patience_;
  uint32_t strikes_ = 0;
  std::vector<std::byte> scratch_;
  // kReadOld and kOldWriteAgain: what is kept for later.
  std::vector<std::byte> old_payload_;
  wire::ParsedPacket old_packet_;
};

}  // namespace tbt::sim
