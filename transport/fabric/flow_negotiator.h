// FlowNegotiator: one end of flow agreement (wire/tb/flow_agreement.h) on one cable, after path
// agreement and before the path carries frames of programs. Both ends try the hardware's
// end-to-end credits at the same time, each towards itself, and use them if both found them to
// work.
//
//   idle --start--> holding --held--> ready --peer ready--> testing --tested--> tested
//                                                                                 |
//   idle --settle (agreed by a predecessor of ours)------------> settled <--peer tested
//
// Each end says where it is at each step, repeats it until the peer is as far, and answers with it
// when it is told. A path that is agreed on anew has other epochs, so nothing late counts.
//
// Inputs:  start, settle, stop, held, tested, handle_packet. They never call out.
// Outputs: poll_transmit, poll_timeout, and the getters; ask until empty after each input.
#pragma once

#include <cstdint>
#include <deque>

#include "base/time.h"
#include "wire/tb/flow_agreement.h"

namespace tbt::fabric {

inline constexpr Duration kFlowAskFirst = Duration::from_ms(20);  // doubled each time, up to
inline constexpr Duration kFlowAskSlow = Duration::from_s(1);
inline constexpr uint32_t kFlowAskMax = 10;  // then no answer is reported; we ask on

enum class FlowStage : uint8_t { kIdle, kHolding, kReady, kTesting, kTested, kSettled };

class FlowNegotiator {
 public:
  FlowNegotiator(const wire::tb::Uuid& self, wire::tb::Route route) : self_(self), route_(route) {}

  // The path is agreed on, and its entries are open: the rail is to be held.
  void start(const wire::tb::Uuid& peer, const wire::tb::PathEpoch& mine,
             const wire::tb::PathEpoch& theirs);
  // It has long been settled: the peer may still ask.
  void settle(const wire::tb::Uuid& peer, const wire::tb::PathEpoch& mine,
              const wire::tb::PathEpoch& theirs, wire::tb::FlowOutcome mine_found,
              wire::tb::FlowOutcome theirs_found);
  void stop();
  // Only while holding or testing.
  void held(Instant now);
  void tested(Instant now, wire::tb::FlowOutcome outcome);

  void handle_packet(const wire::tb::XDomainPacket& packet);

  // Again at poll_timeout().
  bool poll_transmit(Instant now, wire::tb::XDomainPacket& out);
  [[nodiscard]] Instant poll_timeout() const noexcept { return asking() ? due_ : Instant::never(); }

  [[nodiscard]] FlowStage stage() const noexcept { return stage_; }
  // kOpen: not known yet.
  [[nodiscard]] wire::tb::FlowOutcome mine() const noexcept { return mine_found_; }
  [[nodiscard]] wire::tb::FlowOutcome theirs() const noexcept { return theirs_found_; }
  // The peer has long said nothing.
  [[nodiscard]] bool unanswered() const noexcept { return asking() && attempts_ >= kFlowAskMax; }
  [[nodiscard]] uint64_t ignored() const noexcept { return ignored_; }

 private:
  [[nodiscard]] wire::tb::FlowStep step() const noexcept;
  // There is something to say that the peer may not know, or something to learn.
  [[nodiscard]] bool asking() const noexcept;
  void say(Instant now);
  void advance();
  [[nodiscard]] wire::tb::XDomainPacket message(bool answer, uint8_t sequence) const;

  const wire::tb::Uuid self_;
  const wire::tb::Route route_;
  FlowStage stage_ = FlowStage::kIdle;
  wire::tb::Uuid peer_;
  wire::tb::PathEpoch mine_, theirs_;
  wire::tb::FlowStep peer_step_ = wire::tb::FlowStep::kPreparing;
  wire::tb::FlowOutcome mine_found_ = wire::tb::FlowOutcome::kOpen;
  wire::tb::FlowOutcome theirs_found_ = wire::tb::FlowOutcome::kOpen;
  bool unsaid_ = false;  // our step is one that was never said
  uint32_t attempts_ = 0;
  Instant due_ = Instant::never();
  std::deque<wire::tb::XDomainPacket> answers_;
  uint64_t ignored_ = 0;
};

}  // namespace tbt::fabric
