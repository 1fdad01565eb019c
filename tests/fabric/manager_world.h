// Two hosts with a connection manager each, over models of their routers, in virtual time. Ring 0
// and cables have latencies; what crosses them may be lost. Every cable k joins port k of both.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "fabric/connection_manager.h"
#include "rail/emulated/router_model.h"

namespace tbt::fabric {

class ManagerWorld {
 public:
  static constexpr uint64_t kUniqueIds[2] = {0x1111'2222'3333'4444, 0x5555'6666'7777'8888};

  explicit ManagerWorld(uint64_t seed = 1, uint32_t ports = 1, uint32_t hop_count = 12)
      : rng_(seed), cables(ports) {
    for (uint32_t h = 0; h < 2; ++h) {
      hosts_[h].silicon = std::make_unique<rail::emulated::RouterSilicon>();
      rail::emulated::RouterShape shape;
      shape.ports = ports;
      shape.hop_count = hop_count;
      shape.unique_id = kUniqueIds[h];
      power_on(*hosts_[h].silicon, shape);
      hosts_[h].router = std::make_unique<rail::emulated::RouterModel>(*hosts_[h].silicon);
      configs[h].host_name = "host" + std::to_string(h);
      configs[h].incarnation = 100 + h;
    }
    for (uint32_t port = 0; port < ports; ++port) cables[port].generation_max = 4;
  }

  // The daemon of the host begins, as if there had been none before.
  void boot(uint32_t host) {
    drop_ring(host);
    up_[host].clear();
    untold_[host].clear();
    for (const PathStatus& path : configs[host].kept) untold_[host].insert(path.port);
    hosts_[host].manager = std::make_unique<ConnectionManager>(configs[host]);
    hosts_[host].manager->start(now);
    drain();
  }
  // It is killed: the router stays as it is, and nobody answers.
  void kill(uint32_t host) {
    drop_ring(host);
    hosts_[host].manager.reset();
  }
  // And begins anew, as another incarnation.
  void restart(uint32_t host) {
    configs[host].incarnation += 1000;
    configs[host].kept.clear();
    kept[host].clear();
    boot(host);
  }

  // Another one goes on for it, with what it has kept.
  void resume(uint32_t host) {
    configs[host].kept.clear();
    for (const auto& [port, path] : kept[host]) configs[host].kept.push_back(path);
    configs[host].generation += 1u << 16;
    boot(host);
  }

  void plug(uint32_t port, bool plugged) {
    cables[port].plugged = plugged;
    retrain(port);
    drain();
  }
  void plug_all() {
    for (uint32_t port = 0; port < cables.size(); ++port) plug(port, true);
  }
  void retrain(uint32_t port) {
    rail::emulated::RouterOutput out[2];
    train(cables[port], *hosts_[0].router, port, out[0], *hosts_[1].router, port, out[1]);
    for (uint32_t h = 0; h < 2; ++h) route(h, out[h]);
  }
  void notify(uint32_t host, uint8_t code, uint32_t port) {
    rail::emulated::RouterOutput out;
    hosts_[host].router->notify(code, port, out);
    route(host, out);
  }

  ConnectionManager& operator[](uint32_t host) { return *hosts_[host].manager; }
  [[nodiscard]] bool alive(uint32_t host) const { return hosts_[host].manager != nullptr; }
  rail::emulated::RouterModel& router(uint32_t host) { return *hosts_[host].router; }
  rail::emulated::RouterSilicon& silicon(uint32_t host) { return *hosts_[host].silicon; }
  PortStatus port(uint32_t host, uint32_t port = 0) {
    const RouterStatus status = (*this)[host].status();
    return port < status.ports.size() ? status.ports[port] : PortStatus{};
  }

  // Whether frames can go from `host` to the other through `port`, by what the entries say.
  [[nodiscard]] bool leads_across(uint32_t host, uint32_t port) {
    const uint32_t nhi = rail::emulated::nhi_adapter(static_cast<uint32_t>(cables.size()));
    const uint32_t lane = rail::emulated::lane_adapter(port);
    const auto first = router(host).path(nhi, port + 1);
    if (!first.enabled || first.egress_adapter != lane) return false;
    const auto second = router(1 - host).path(lane, first.next_hop);
    return second.enabled && second.egress_adapter == nhi && second.next_hop == port + 1;
  }
  // Entries of paths that are enabled on the host, whoever enabled them.
  [[nodiscard]] uint32_t entries(uint32_t host) {
    uint32_t count = 0;
    for (uint32_t adapter = 1; adapter <= 2 * cables.size() + 1; ++adapter) {
      for (uint32_t hop = 1; hop < rail::emulated::kPathHopsMax; ++hop) {
        count += router(host).path(adapter, hop).enabled ? 1 : 0;
      }
    }
    return count;
  }
  // Path k is up, on both hosts, and true.
  [[nodiscard]] bool up(uint32_t port = 0) {
    for (uint32_t h = 0; h < 2; ++h) {
      if (!alive(h) || !this->port(h, port).path || !leads_across(h, port)) return false;
      if (this->port(h, port).path->peer_incarnation != configs[1 - h].incarnation) return false;
    }
    return true;
  }

  // Until nothing is in flight and nothing is waited for, or `limit` has passed.
  void run(Duration limit) {
    const Instant end = now + limit;
    while (step(end)) {
    }
    now = std::max(now, end);
  }
  // Until the path is up or `limit` has passed; how long that took.
  Duration run_until_up(Duration limit, uint32_t port = 0) {
    const Instant begun = now, end = now + limit;
    while (!up(port) && step(end)) {
    }
    return now - begun;
  }
  // So many arrivals and time-outs.
  void run_steps(uint64_t count) {
    while (count-- > 0 && step(now + Duration::from_s(60))) {
    }
  }

  static IpMac mac_of(uint32_t host) { return {2, 0, 0, 0, 0, static_cast<uint8_t>(host)}; }

  // A packet out of ring 0 of `host`.
  void give(uint32_t host, const wire::tb::ControlPacket& packet) {
    Arrival arrival{host, false, 0, {}};
    encode_control_packet(packet, arrival.frame);
    in_flight_.emplace(now + latency, arrival);
  }

  template <typename T>
  [[nodiscard]] std::vector<T> events_of(uint32_t host) const {
    std::vector<T> found;
    for (const ManagerEvent& event : events[host]) {
      if (const T* one = std::get_if<T>(&event)) found.push_back(*one);
    }
    return found;
  }
  [[nodiscard]] std::string last_down(uint32_t host) const {
    const auto downs = events_of<PathDown>(host);
    return downs.empty() ? "" : downs.back().why;
  }

  bool step(Instant end) {
    drain();
    Instant next = in_flight_.empty() ? Instant::never() : in_flight_.begin()->first;
    for (const Host& host : hosts_) {
      if (host.manager) next = std::min(next, host.manager->poll_timeout());
    }
    if (next > end) return false;
    now = std::max(now, next);
    if (!in_flight_.empty() && in_flight_.begin()->first <= now) {
      const Arrival arrival = in_flight_.begin()->second;
      in_flight_.erase(in_flight_.begin());
      deliver(arrival);
    } else {
      for (Host& host : hosts_) {
        if (host.manager) host.manager->handle_timeout(now);
      }
    }
    ++steps;
    drain();
    return true;
  }

 private:
  Rng rng_;

 public:
  Instant now{1'000'000'000};
  std::array<ManagerConfig, 2> configs;
  std::vector<rail::emulated::CableLink> cables;
  uint32_t cable_lost_ppm = 0;  // of messages between hosts
  uint32_t ring_lost_ppm = 0;   // of packets between a manager and its router
  Duration latency = Duration::from_us(5);
  uint64_t steps = 0;
  bool rails_are_held = true;  // when they are to be; otherwise a test says so by itself
  std::array<bool, 2> tests_end{true, true};
  std::array<wire::tb::FlowOutcome, 2> flow_outcomes{wire::tb::FlowOutcome::kHeld,
                                                     wire::tb::FlowOutcome::kHeld};
  bool ip_rings_run = true;  // those of host 0 for ThunderboltIP
  std::function<std::optional<wire::tb::ControlPacket>(uint32_t, const wire::tb::ControlPacket&)>
      intercept;
  std::array<std::vector<ManagerEvent>, 2> events;
  std::array<std::map<uint32_t, PathStatus>, 2> kept;  // as the daemon writes them down

 private:
  struct Host {
    std::unique_ptr<rail::emulated::RouterSilicon> silicon;
    std::unique_ptr<rail::emulated::RouterModel> router;
    std::unique_ptr<ConnectionManager> manager;
  };
  struct Arrival {
    uint32_t host = 0;
    bool by_cable = false;  // at the router, not out of ring 0
    uint32_t port = 0;
    wire::tb::ControlFrame frame;
  };

  void drain() {
    do {
      again_ = false;
      drain_once();
    } while (again_);
  }
  void drain_once() {
    for (uint32_t h = 0; h < 2; ++h) {
      if (!alive(h)) continue;
      wire::tb::ControlFrame frame;
      while ((*this)[h].poll_transmit(now, frame)) {
        if (rng_.chance_ppm(ring_lost_ppm) || intercepted(h, frame)) continue;
        rail::emulated::RouterOutput out;
        router(h).handle_host(static_cast<uint8_t>(frame.pdf), frame.span(), out);
        route(h, out);
      }
      ManagerEvent event;
      while ((*this)[h].poll_event(event)) {
        if (const auto* up = std::get_if<PathUp>(&event)) kept[h][up->path.port] = up->path;
        if (const auto* down = std::get_if<PathDown>(&event)) kept[h].erase(down->port);
        if (const auto* wanted = std::get_if<IpRingsWanted>(&event)) start_rings(h, *wanted);
        if (const auto* wanted = std::get_if<FlowTestWanted>(&event); wanted && rails_are_held) {
          (*this)[h].rail_held(now, wanted->port, wanted->session);
          again_ = true;
        }
        if (const auto* due = std::get_if<FlowTestDue>(&event); due && tests_end[h]) {
          (*this)[h].flow_tested(now, due->port, due->session, flow_outcomes[h]);
          again_ = true;
        }
        check_order(h, event);
        events[h].push_back(event);
      }
    }
  }

  void start_rings(uint32_t host, const IpRingsWanted& wanted) {
    const auto mac = ip_rings_run || host != 0 ? std::optional(mac_of(host)) : std::nullopt;
    (*this)[host].ip_rings(now, wanted.port, mac);
    again_ = true;
  }

  // A path goes up and down in turn; of one that was kept the first news may be either.
  void check_order(uint32_t host, const ManagerEvent& event) {
    if (const auto* path = std::get_if<PathUp>(&event)) {
      EXPECT_FALSE(std::exchange(up_[host][path->path.port], true)) << "up twice";
      untold_[host].erase(path->path.port);
    } else if (const auto* gone = std::get_if<PathDown>(&event)) {
      const bool untold = untold_[host].erase(gone->port) != 0;
      EXPECT_TRUE(std::exchange(up_[host][gone->port], false) || untold) << "down twice";
    }
  }

  // Whether a test answers the packet in the router's place.
  bool intercepted(uint32_t host, const wire::tb::ControlFrame& frame) {
    if (!intercept) return false;
    wire::tb::ControlPacket packet;
    EXPECT_EQ(decode_control_packet(static_cast<uint8_t>(frame.pdf), frame.span(), packet),
              wire::tb::PacketError::kNone);
    const auto answer = intercept(host, packet);
    if (!answer) return false;
    give(host, *answer);
    return true;
  }

  void route(uint32_t host, const rail::emulated::RouterOutput& out) {
    for (size_t i = 0; i < out.count; ++i) {
      const auto& packet = out.packets[i];
      if (packet.to == rail::emulated::RouterOutput::kHost) {
        if (rng_.chance_ppm(ring_lost_ppm)) continue;
        in_flight_.emplace(now + latency, Arrival{host, false, 0, packet.frame});
      } else if (!rng_.chance_ppm(cable_lost_ppm)) {
        in_flight_.emplace(now + latency, Arrival{1 - host, true, packet.to, packet.frame});
      }
    }
    for (uint32_t port = 0; port < cables.size(); ++port) {
      if ((out.retrain >> port & 1) != 0) retrain(port);
    }
  }

  void deliver(const Arrival& arrival) {
    const auto pdf = static_cast<uint8_t>(arrival.frame.pdf);
    if (arrival.by_cable) {
      rail::emulated::RouterOutput out;
      router(arrival.host).handle_cable(arrival.port, pdf, arrival.frame.span(), out);
      route(arrival.host, out);
    } else if (alive(arrival.host)) {
      (*this)[arrival.host].handle_packet(now, pdf, arrival.frame.span());
    }
  }

  // What stood in the ring of a daemon that is gone.
  void drop_ring(uint32_t host) {
    std::erase_if(in_flight_, [&](const auto& entry) {
      return entry.second.host == host && !entry.second.by_cable;
    });
  }

  std::array<Host, 2> hosts_;
  bool again_ = false;                          // a manager has been told something
  std::array<std::map<uint32_t, bool>, 2> up_;  // by port
  std::array<std::set<uint32_t>, 2> untold_;
  std::multimap<Instant, Arrival> in_flight_;  // equal times keep their order
};

}  // namespace tbt::fabric
