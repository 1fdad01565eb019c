// RouterModel: the host router behind an emulated NHI, as a connection manager sees it through
// ring 0. It answers reads and writes of its configuration spaces, executes router operations, says
// what is plugged in, and carries messages between hosts (XDomain). The data plane asks it where a
// path leads.
//
// The measure of it is the Linux driver, 6.1 to 7.3, with its software connection manager; what is
// known of that is in docs/rails/router_model.md. There are no adapters for PCIe, USB 3 or
// DisplayPort, no counters and no clock: whatever takes hardware time is done at once.
//
// Pure and sans-IO. The caller holds the fabric's control lock, except for path(),
// path_generation() and port_up(), which may be called at any time by anybody. Packets are not
// trusted: what cannot be read is dropped and counted.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "rail/emulated/router_silicon.h"
#include "wire/tb/control_packet.h"

namespace tbt::rail::emulated {

// What a call made the router send, in order, and what it means for its cables.
struct RouterOutput {
  static constexpr uint32_t kHost = UINT32_MAX;
  struct Packet {
    uint32_t to = kHost;  // or the port whose cable takes it
    wire::tb::ControlFrame frame;
  };

  // One call makes at most an answer and an event per port.
  static constexpr size_t kPacketsMax = 2 * kRouterPortsMax;
  std::array<Packet, kPacketsMax> packets;
  size_t count = 0;
  uint32_t retrain = 0;  // bit per port: what it wants of its link may have changed; see train()

  void clear() noexcept { count = 0, retrain = 0; }
  wire::tb::ControlFrame& add(uint32_t to) noexcept;
};

// Where an ingress adapter sends what comes in with a HopID.
struct PathEntry {
  bool enabled = false;  // and it leads to an adapter and a HopID that exist
  uint8_t egress_adapter = 0;
  uint16_t next_hop = 0;
  uint8_t credits = 0;
  bool drop = false;
  bool ingress_fc = false, egress_fc = false;

  friend bool operator==(const PathEntry&, const PathEntry&) = default;
};

// What one end wants of its link; train() makes a LinkState of both ends' wishes.
struct PortWish {
  bool enabled = true;  // lane 0 is not disabled and the port not in reset
  bool second_lane = true;
  bool dual = false;  // the target width of both lanes
  bool bond = false;
  uint8_t generation_max = 4;

  friend bool operator==(const PortWish&, const PortWish&) = default;
};

class RouterModel {
 public:
  explicit RouterModel(RouterSilicon& silicon) noexcept : s_(silicon) {}

  // ---- inputs

  // A packet of ring 0 of the router's own NHI.
  void handle_host(uint8_t pdf, std::span<const std::byte> bytes, RouterOutput& out);
  // A packet that left the router at the other end of the cable in `port`.
  void handle_cable(uint32_t port, uint8_t pdf, std::span<const std::byte> bytes,
                    RouterOutput& out);
  // The cable in `port` is now so. Repeating a state sends an event again if it may have been lost.
  void handle_link(uint32_t port, const LinkState& link, RouterOutput& out);
  // The reset that a driver asks of the NHI: all as after power_on(), counters and tests' settings
  // apart. All links drop and want to be trained again.
  void reset(RouterOutput& out);
  // News of the router to its manager, for tests: code and port of a Notification.
  void notify(uint8_t code, uint32_t port, RouterOutput& out);
  // Somebody died in the middle of a call. Afterwards every cable of the router is to be trained.
  void recover();

  // ---- what the fabric and the data plane need to know

  [[nodiscard]] PathEntry path(uint32_t adapter, uint32_t hop_id) const noexcept;
  // Changes whenever an answer of path() or port_up() may have changed: read it before them.
  [[nodiscard]] uint32_t path_generation() const noexcept {
    return s_.generation.load(std::memory_order_acquire);
  }
  [[nodiscard]] bool port_up(uint32_t port) const noexcept {
    return (s_.ports_up.load(std::memory_order_acquire) >> port & 1) != 0;
  }

  [[nodiscard]] PortWish wish(uint32_t port) const noexcept;
  [[nodiscard]] const LinkState& link(uint32_t port) const noexcept { return s_.ports[port].link; }
  [[nodiscard]] uint32_t ports() const noexcept { return s_.shape.ports; }
  [[nodiscard]] const RouterCounters& counters() const noexcept { return s_.counters; }

  // For tests: a path that is disabled from now on shows `pending` in so many reads.
  void set_stuck_pending_reads(uint16_t reads) noexcept { s_.stuck_pending_reads = reads; }

 private:
  // router_model.cc
  void read(const wire::tb::ReadRequest& request, RouterOutput& out);
  void write(const wire::tb::WriteRequest& request, RouterOutput& out);
  void refuse(uint8_t code, uint32_t adapter, RouterOutput& out);
  bool refuse_beyond(wire::tb::Route route, RouterOutput& out);
  void acknowledge(const wire::tb::HotPlugAck& ack);
  void forward(uint8_t pdf, std::span<const std::byte> bytes, RouterOutput& out);

  // router_config.cc
  [[nodiscard]] uint32_t size(const wire::tb::ConfigAddress& address) const noexcept;
  [[nodiscard]] std::optional<uint8_t> check(const wire::tb::ConfigAddress& address) const noexcept;
  std::span<uint32_t> adapter_space(uint32_t adapter) noexcept;
  uint32_t load(const wire::tb::ConfigAddress& address, uint32_t offset) noexcept;
  void store(const wire::tb::ConfigAddress& address, uint32_t offset, uint32_t value) noexcept;
  void written(const wire::tb::ConfigAddress& address, RouterOutput& out);
  void router_written(uint32_t first, uint32_t end, RouterOutput& out);
  void adapter_written(uint32_t adapter, uint32_t first, uint32_t end, RouterOutput& out);

  // router_operations.cc
  void run_operation() noexcept;
  void run_sideband(uint32_t port) noexcept;

  // router_paths.cc
  [[nodiscard]] PathSilicon* paths(uint32_t adapter) noexcept;
  [[nodiscard]] const PathSilicon* paths(uint32_t adapter) const noexcept;
  [[nodiscard]] uint32_t hops(uint32_t adapter) const noexcept;
  uint32_t load_path(uint32_t adapter, uint32_t offset) noexcept;
  void store_path(uint32_t adapter, uint32_t offset, uint32_t value) noexcept;
  void paths_changed() noexcept { s_.generation.fetch_add(1, std::memory_order_acq_rel); }

  // router_link.cc
  void show_link(uint32_t port) noexcept;
  void announce(uint32_t port, RouterOutput& out);
  void announce_all(RouterOutput& out);

  RouterSilicon& s_;
};

// A cable: where it leads, the fastest generation that it carries, and on how many lanes.
struct CableLink {
  bool plugged = true;
  uint8_t generation_max = 4;
  bool one_lane = false;
};

// What two ports make of the cable between them.
LinkState negotiate(const CableLink& cable, const PortWish& a, const PortWish& b) noexcept;

// Tells both routers of the cable between port_a and port_b what the link is now. To be called when
// the cable has changed and when either router's output has `retrain` set for its port. A link that
// only one side has dropped goes down on the other side, too, before it comes up again.
void train(const CableLink& cable, RouterModel& a, uint32_t port_a, RouterOutput& out_a,
           RouterModel& b, uint32_t port_b, RouterOutput& out_b);

}  // namespace tbt::rail::emulated
