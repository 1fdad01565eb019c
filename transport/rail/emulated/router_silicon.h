// The state of one emulated host router in shared memory: no pointers, one size for all shapes.
//
// Everything is under the fabric's control lock, except what the data plane reads without it: the
// path entries, `generation` and `ports_up`. A process may be killed while it holds the lock; then
// whoever takes it next calls RouterModel::recover(). A request whose answer got lost is repeated
// by the connection manager, as on silicon.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "rail/emulated/router_regs.h"

namespace tbt::rail::emulated {

inline constexpr uint32_t kRouterPortsMax = 8;
inline constexpr uint32_t kPathHopsMax = 32;

struct RouterShape {
  uint32_t ports = 1;       // USB4 ports, 1..kRouterPortsMax
  uint32_t hop_count = 12;  // rings of the NHI, 1..kPathHopsMax
  bool usb4_v2 = true;
  bool intel = true;  // ids of Intel's or of AMD's
  uint64_t unique_id = 0;
};

// Port k, counted from 0, has lane adapters 2k + 1 (lane 0, the one of routes and paths) and 2k
// + 2. The NHI's adapter is the last one, and the upstream adapter.
constexpr uint32_t lane_adapter(uint32_t port) noexcept { return 2 * port + 1; }
constexpr uint32_t nhi_adapter(uint32_t ports) noexcept { return 2 * ports + 1; }

// A cable as the router at one end sees it.
struct LinkState {
  bool up = false;         // plugged, and both ports want it
  uint8_t generation = 0;  // of USB4: 2 is 10 Gb/s a lane, 3 is 20, 4 is 40
  bool second_lane = false;
  bool bonded = false;  // both lanes are one link

  friend bool operator==(const LinkState&, const LinkState&) = default;
};

struct PortSilicon {
  LinkState link;
  bool announced;     // the last hot-plug event said "plugged"
  bool acknowledged;  // the last one that the manager acknowledged did
  std::array<uint32_t, kAdapterDwords> lane0;
  std::array<uint32_t, kLane1Dwords> lane1;
  std::array<uint32_t, kPortDataDwords> sideband_data;
  uint32_t sideband_metadata, sideband_opcode;
};

struct PathSilicon {
  std::array<std::atomic<uint64_t>, kPathHopsMax> entries;
  std::array<uint16_t, kPathHopsMax> pending_reads;  // so many more reads show `pending`
};

struct RouterCounters {
  uint64_t reads = 0, writes = 0;
  uint64_t refused = 0;      // reads and writes answered by an error
  uint64_t malformed = 0;    // packets that no router can read: dropped
  uint64_t ignored = 0;      // well-formed ones that mean nothing to a USB4 host router: dropped
  uint64_t forwarded = 0;    // XDomain packets from this host that left through a port
  uint64_t delivered = 0;    // and those of the other hosts that came in
  uint64_t unreachable = 0;  // and those lost at a port that is down or locked or not there
  uint64_t events = 0;       // hot-plug events sent
  uint64_t events_acknowledged = 0;
  uint64_t notifications = 0, notifications_acknowledged = 0;
  uint64_t vendor_bits_changed =
      0;  // writes that did not keep what a protocol adapter's vendor owns
};

struct RouterSilicon {
  RouterShape shape;
  std::array<uint32_t, kRouterDwords> router;
  std::array<uint32_t, kAdapterBasicDwords> nhi;
  std::array<PortSilicon, kRouterPortsMax> ports;
  std::array<PathSilicon, kRouterPortsMax> lane_paths;  // of lane 0
  PathSilicon nhi_paths;
  uint16_t stuck_pending_reads;  // for tests: what pending_reads becomes when a path is disabled
  RouterCounters counters;
  std::atomic<uint32_t> generation;
  std::atomic<uint32_t> ports_up;  // a bit per port
};

// All as it is when the power comes on, with every cable unplugged. The shape must be in its ranges
// (asserted).
void power_on(RouterSilicon& silicon, const RouterShape& shape) noexcept;
// The same with the shape that it has, while the data plane looks on.
void power_cycle(RouterSilicon& silicon) noexcept;

}  // namespace tbt::rail::emulated
