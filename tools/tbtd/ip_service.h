// IpService: what the daemon does for peers that run thunderbolt-net only. It has a ring pair for
// each port whose controller has enough of them, and behind it a responder (ip/responder.h), which
// shows such a peer that its cable works. Who logs in to whom and where the path leads is the
// connection manager's affair.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "fabric/router_status.h"
#include "ip/frame.h"
#include "ip/responder.h"
#include "rail/host_memory.h"
#include "rail/nhi/owned_ring.h"

namespace tbt::daemon {

class IpService {
 public:
  // Memory and device outlive it. `host` is the host's number, which its address follows from.
  IpService(rail::HostMemory& memory, rail::nhi::PciDevice& device, uint32_t host);
  ~IpService() { stop(); }
  IpService(const IpService&) = delete;
  IpService& operator=(const IpService&) = delete;

  // For ManagerConfig: the first ring pair, and how many ports have one.
  [[nodiscard]] uint32_t first_ring() const noexcept { return first_ring_; }
  [[nodiscard]] uint32_t rings() const noexcept { return static_cast<uint32_t>(ports_.size()); }
  // Of a ring pair that runs.
  [[nodiscard]] const ip::Identity& identity(uint32_t port) const;

  // Takes over the rings that a daemon which was killed has left running.
  void adopt();
  // Starts the ring pair of the port, if it does not run.
  Status start(uint32_t port, const wire::tb::Uuid& router);
  // Frames pass from now on, with somebody new; or no longer.
  void up(uint32_t port);
  void down(uint32_t port);
  void stop() noexcept;

  // Answers what has arrived, within a budget; true if there was anything.
  bool turn(Instant now);
  // The host's interrupt fires when something arrives. False: something is there already.
  bool arm();
  // When to look although no interrupt came: completions are seen that have none.
  [[nodiscard]] Instant poll_timeout() const noexcept { return look_; }

 private:
  struct Port {
    std::unique_ptr<rail::nhi::OwnedRing> ring;
    std::unique_ptr<ip::Responder> responder;  // once the ring runs
    ip::PacketAssembly assembly;
    uint16_t packet_id = 0;
    bool up = false;
  };

  static void take(Port& port, const rail::nhi::OwnedFrame& frame);
  static void send(Port& port, std::span<const std::byte> packet);

  const uint32_t host_;
  const uint32_t first_ring_;
  Instant look_ = Instant::never();
  std::vector<Port> ports_;
};

}  // namespace tbt::daemon
