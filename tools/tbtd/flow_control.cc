#include "tbtd/flow_control.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace tbt::daemon {

using rail::nhi::FlowTest;
using rail::nhi::RingFlow;
using wire::tb::PathFlow;

namespace {

rail::SlotId nobody(std::span<const std::byte>, uint8_t, uint8_t) noexcept { return rail::kNoSlot; }

}  // namespace

FlowControl::FlowControl(rail::HostMemory& memory, rail::nhi::PciDevice& device, Hooks hooks)
    : ports_(memory.cables()), hooks_(std::move(hooks)) {
  for (uint32_t k = 0; k < ports_.size(); ++k) {
    ports_[k].rail =
        std::make_unique<rail::nhi::NhiRail>(memory, k, device, rail::kDaemonSlot, nobody);
  }
}

FlowControl::Port& FlowControl::begin(uint32_t number, Want want, uint32_t session) {
  Port& port = ports_[number];
  port.want = want;
  port.session = session;
  port.test.reset();
  port.due = Instant{};
  port.carries = false;
  return port;
}

void FlowControl::hold(uint32_t port, uint32_t session) { begin(port, Want::kHold, session); }

void FlowControl::test(Instant now, uint32_t number, uint32_t session) {
  Port& port = begin(number, Want::kTest, session);
  port.test.emplace(*port.rail, session);
  port.test->begin(now);
}

void FlowControl::carry(const fabric::PathStatus& path) {
  begin(path.port, Want::kCarry, path.session).flow =
      path.flow == PathFlow::kE2e ? RingFlow::kE2e : RingFlow::kNone;
}

void FlowControl::rest(uint32_t port) { begin(port, Want::kNothing, 0); }

bool FlowControl::turn(Instant now) {
  bool any = false;
  for (uint32_t k = 0; k < ports_.size(); ++k) any = work(now, k) || any;
  return any;
}

// The hooks may want something else of the port at once.
bool FlowControl::work(Instant now, uint32_t number) {
  Port& port = ports_[number];
  const uint32_t session = port.session;
  switch (port.want) {
    case Want::kNothing:
      return false;
    case Want::kHold:
      if (port.due > now || !done(now, port, port.rail->hold(RingFlow::kE2e, FlowTest::kPosted))) {
        return false;
      }
      hooks_.held(number, session);
      return true;
    case Want::kTest: {
      if (port.test->poll_timeout() > now) return false;
      const auto outcome = port.test->turn(now);
      if (!outcome) return false;
      port.want = Want::kNothing;
      hooks_.tested(number, session, *outcome);
      return true;
    }
    case Want::kCarry:
      if (port.due > now || !done(now, port, port.rail->carry(port.flow, session))) return false;
      port.carries = true;
      hooks_.carries(number);
      return true;
  }
  return false;
}

bool FlowControl::done(Instant now, Port& port, const Status& status) {
  if (status.code() == EBUSY) {
    port.due = now + kAgain;
    return false;
  }
  port.want = Want::kNothing;
  if (!status) hooks_.warn(std::string(status.text()));
  return status.code() == 0;
}

Instant FlowControl::poll_timeout() const {
  Instant next = Instant::never();
  for (const Port& port : ports_) {
    if (port.want == Want::kTest) next = std::min(next, port.test->poll_timeout());
    if (port.want == Want::kHold || port.want == Want::kCarry) next = std::min(next, port.due);
  }
  return next;
}

}  // namespace tbt::daemon
