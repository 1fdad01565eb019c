#include "rail/nhi/flow_test.h"

namespace tbt::rail::nhi {
namespace {

constexpr Duration kLook = Duration::from_us(500);
constexpr Duration kFirstMost = Duration::from_s(1);  // until the first frame comes
constexpr Duration kFirstGap = Duration::from_ms(20);  // after it: the others are lost
constexpr Duration kDryFor = Duration::from_ms(3);
// After the buffers were posted, or the last frame came. Long, because a host can be busy.
constexpr Duration kExtraGap = Duration::from_ms(150);

}  // namespace

void FlowTest::begin(Instant now) noexcept {
  begun_ = heard_ = now;
  next_ = now + kLook;
  send();
}

void FlowTest::send() noexcept {
  constexpr uint32_t kAll = kPosted + kExtra;
  while (sent_ < kAll &&
         rail_.send_held({wire::tb::CreditKind::kTest, false, session_, sent_, kAll})) {
    ++sent_;
  }
}

void FlowTest::receive(Instant now) noexcept {
  wire::tb::CreditFrame frame;
  while (rail_.take_held(frame)) {
    if (frame.kind != wire::tb::CreditKind::kTest || frame.session != session_) continue;
    ++arrived_;
    extra_ += frame.sent >= kPosted ? 1 : 0;
    heard_ = now;
  }
}

std::optional<FlowResult> FlowTest::turn(Instant now) noexcept {
  send();
  receive(now);
  next_ = now + kLook;
  switch (stage_) {
    case Stage::kFirst:
      if (arrived_ >= kPosted || (arrived_ > 0 && now - heard_ >= kFirstGap)) {
        stage_ = Stage::kDry;
      } else if (arrived_ == 0 && now - begun_ >= kFirstMost) {
        stage_ = Stage::kDone;
        next_ = Instant::never();
        return FlowResult::kNothing;
      }
      return std::nullopt;
    case Stage::kDry:
      if (now - heard_ < kDryFor) return std::nullopt;
      stage_ = Stage::kExtra;
      heard_ = now;
      rail_.post(kExtra);
      return std::nullopt;
    case Stage::kExtra:
      if (extra_ < kExtra && now - heard_ < kExtraGap) return std::nullopt;
      stage_ = Stage::kDone;
      next_ = Instant::never();
      return 4 * extra_ >= 3 * kExtra ? FlowResult::kHeld : FlowResult::kMissing;
    case Stage::kDone:
      next_ = Instant::never();
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace tbt::rail::nhi
