// FlowControl: what the daemon does to its rails for the sake of their flow control. It holds a
// rail and tries the hardware's end-to-end credits on it when the connection manager asks, and lets
// frames of programs pass by what was chosen.
//
// A process that is stopped in the middle of a burst holds a rail's lock: then it is tried again
// every kAgain, and the cable carries nothing until that process goes on.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "fabric/router_status.h"
#include "rail/nhi/flow_test.h"

namespace tbt::daemon {

class FlowControl {
 public:
  struct Hooks {
    std::function<void(uint32_t port, uint32_t session)> held;
    std::function<void(uint32_t port, uint32_t session, wire::tb::FlowOutcome)> tested;
    std::function<void(uint32_t port)> carries;
    std::function<void(const std::string& text)> warn;
  };
  // Memory and device outlive it. The hooks are called from turn() only.
  FlowControl(rail::HostMemory& memory, rail::nhi::PciDevice& device, Hooks hooks);

  // Each takes the place of what was wanted of the port before.
  void hold(uint32_t port, uint32_t session);
  void test(Instant now, uint32_t port, uint32_t session);
  void carry(const fabric::PathStatus& path);
  // Nothing more; the rail stays as it is.
  void rest(uint32_t port);

  [[nodiscard]] bool carries(uint32_t port) const { return ports_[port].carries; }

  // All that can be done now. True if there was anything.
  bool turn(Instant now);
  [[nodiscard]] Instant poll_timeout() const;

 private:
  static constexpr Duration kAgain = Duration::from_ms(10);

  enum class Want : uint8_t { kNothing, kHold, kTest, kCarry };
  struct Port {
    std::unique_ptr<rail::nhi::NhiRail> rail;
    Want want = Want::kNothing;
    uint32_t session = 0;
    rail::nhi::RingFlow flow = rail::nhi::RingFlow::kE2e;
    std::optional<rail::nhi::FlowTest> test;
    Instant due{};
    bool carries = false;
  };

  Port& begin(uint32_t port, Want want, uint32_t session);
  bool work(Instant now, uint32_t number);
  // False: not yet.
  bool done(Instant now, Port& port, const Status& status);

  std::vector<Port> ports_;
  Hooks hooks_;
};

}  // namespace tbt::daemon
