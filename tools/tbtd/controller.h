// Controller: the daemon's side of the host's controller. It moves packets between ring 0 and the
// ConnectionManager, says when a cable begins and ends to carry frames, has its flow control tried
// before (FlowControl), and lets the IpService speak to peers that run thunderbolt-net only.
#pragma once

#include <algorithm>
#include <functional>
#include <string>

#include "base/time.h"
#include "fabric/connection_manager.h"
#include "rail/nhi/control_ring.h"
#include "tbtd/flow_control.h"
#include "tbtd/ip_service.h"

namespace tbt::daemon {

class Controller {
 public:
  struct Hooks {
    // Frames pass over the cable in port `cable`, or no longer do. The speed is of all lanes
    // together.
    std::function<void(uint32_t cable, bool open, uint32_t speed_gbps)> link;
    std::function<void(bool warning, const std::string& text)> log;
  };
  // Memory and device outlive it; which rings there are for rails follows from them. `host` is the
  // host's number.
  Controller(rail::HostMemory& memory, rail::nhi::PciDevice& device, fabric::ManagerConfig config,
             Hooks hooks, uint32_t host);

  // The rails' rings must be running. `follows`: this daemon goes on for one that is dead.
  Status start(Instant now, bool follows);
  // Tells the peers and clears the paths, which takes a moment at most.
  void shut_down();

  // All that can be done now. True if there was anything.
  bool turn(Instant now);
  // The host's interrupt fires for the next packet; false: one is there.
  bool arm();
  [[nodiscard]] Instant poll_timeout() const {
    return std::min({manager_.poll_timeout(), flow_.poll_timeout(), ip_.poll_timeout(), look_});
  }

  [[nodiscard]] fabric::RouterStatus status() const { return manager_.status(); }
  // Not empty: the controller cannot be driven, for good.
  [[nodiscard]] const std::string& refusal() const noexcept { return refusal_; }

 private:
  void send(Instant now);
  void on(const fabric::RouterReady&);
  void on(const fabric::RouterRefused& refused);
  void on(const fabric::PortChanged& changed);
  void on(const fabric::PeerFound& found);
  void on(const fabric::PeerLost& lost);
  void on(const fabric::FlowTestWanted& wanted);
  void on(const fabric::FlowTestDue& due);
  void on(const fabric::FlowTestOver& over);
  void on(const fabric::PathUp& up);
  void on(const fabric::PathDown& down);
  void on(const fabric::IpRingsWanted& wanted);
  void on(const fabric::IpUp& up);
  void on(const fabric::IpDown& down);
  void on(const fabric::ManagerWarning& warning);
  [[nodiscard]] FlowControl::Hooks flow_hooks();
  [[nodiscard]] uint32_t speed_of(uint32_t port) const;

  rail::HostMemory& memory_;
  const uint64_t incarnation_;
  rail::nhi::ControlRing ring_;
  IpService ip_;
  fabric::ConnectionManager manager_;
  FlowControl flow_;
  Hooks hooks_;
  std::string refusal_;
  Instant look_ = Instant::never();  // at the links, next
  bool held_ = false;                // a packet that ring 0 had no room for
  wire::tb::ControlFrame frame_;
};

}  // namespace tbt::daemon
