// FlowTest: tries the hardware's end-to-end credits on a path that carries nothing else yet. Both
// ends run one at the same time:
//
//   ring held, kPosted buffers -> kPosted + kExtra numbered frames are sent, the others' counted
//   the buffers are used up    -> a moment without any, in which a sender without credits loses
//   kExtra buffers more        -> the rest comes: it has waited. Or not
//
// Each end so finds out about the direction towards it, and tells the other
// (fabric/flow_negotiator.h).
// A lossy cable is no proof against the credits: some of the extra frames may be missing.
//
// Never blocks and allocates nothing: begin, then turn() at poll_timeout() until it has a result.
#pragma once

#include <cstdint>
#include <optional>

#include "base/time.h"
#include "rail/nhi/nhi_rail.h"
#include "wire/tb/flow_agreement.h"

namespace tbt::rail::nhi {

using FlowResult = wire::tb::FlowOutcome;

class FlowTest {
 public:
  static constexpr uint32_t kPosted = 4, kExtra = 32;

  // The rail is held with kPosted buffers, and outlives this.
  FlowTest(NhiRail& rail, uint32_t session) noexcept : rail_(rail), session_(session) {}

  void begin(Instant now) noexcept;
  std::optional<FlowResult> turn(Instant now) noexcept;
  [[nodiscard]] Instant poll_timeout() const noexcept { return next_; }
  // Frames of ours that the controller has not sent.
  [[nodiscard]] uint32_t unsent() const noexcept { return rail_.unsent(); }

 private:
  enum class Stage : uint8_t { kFirst, kDry, kExtra, kDone };

  void send() noexcept;
  void receive(Instant now) noexcept;

  NhiRail& rail_;
  const uint32_t session_;
  Stage stage_ = Stage::kFirst;
  uint32_t sent_ = 0;
  uint32_t arrived_ = 0, extra_ = 0;
  Instant begun_{}, heard_{}, next_ = Instant::never();
};

}  // namespace tbt::rail::nhi
