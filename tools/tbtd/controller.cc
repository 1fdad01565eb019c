#include "tbtd/controller.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "fabric/path_memory.h"
#include "rail/nhi/quirks.h"
#include "sys/monotonic_clock.h"

namespace tbt::daemon {
namespace {

// For the farewell. A peer that does not answer is not waited for longer.
constexpr Duration kShutDownMax = Duration::from_ms(800);
// How late a link's new speed is seen, which nothing tells of. A look is four packets of ring 0.
constexpr Duration kLookEvery = Duration::from_ms(1000);

// As the rails drive them (nhi_rail.cc), and behind those the rings for thunderbolt-net.
fabric::ManagerConfig with_rings(fabric::ManagerConfig config, const rail::HostMemory& memory,
                                 const rail::nhi::PciDevice& device, const IpService& ip) {
  config.first_ring = rail::nhi::quirks_of(device.identity()).first_data_ring();
  config.ring_pairs = config.first_ring + memory.cables();
  config.first_ip_ring = ip.first_ring();
  config.ip_rings = ip.rings();
  return config;
}

const char* flow_outcome_words(wire::tb::FlowOutcome outcome) {
  return outcome == wire::tb::FlowOutcome::kNothing ? "nothing came at all" : "most did not come";
}

}  // namespace

Controller::Controller(rail::HostMemory& memory, rail::nhi::PciDevice& device,
                       fabric::ManagerConfig config, Hooks hooks, uint32_t host)
    : memory_(memory),
      incarnation_(config.incarnation),
      ring_(memory, device),
      ip_(memory, device, host),
      manager_(with_rings(std::move(config), memory, device, ip_)),
      flow_(memory, device, flow_hooks()),
      hooks_(std::move(hooks)) {}

FlowControl::Hooks Controller::flow_hooks() {
  return {
      .held = [this](uint32_t port,
                     uint32_t session) { manager_.rail_held(sys::monotonic_now(), port, session); },
      .tested =
          [this](uint32_t port, uint32_t session, wire::tb::FlowOutcome outcome) {
            if (outcome != wire::tb::FlowOutcome::kHeld) {
              hooks_.log(true, fmt::format("port {}: the hardware's end-to-end credits do not "
                                           "work: of the frames that were to wait, {}",
                                           port, flow_outcome_words(outcome)));
            }
            manager_.flow_tested(sys::monotonic_now(), port, session, outcome);
          },
      .carries = [this](uint32_t port) { hooks_.link(port, true, speed_of(port)); },
      .warn = [this](const std::string& text) { hooks_.log(true, text); }};
}

Status Controller::start(Instant now, bool follows) {
  if (!follows) fabric::forget_paths(memory_);
  if (const Status s = follows ? ring_.take_over() : ring_.start(); !s) return s;
  if (follows) ip_.adopt();
  manager_.start(now);
  look_ = now + kLookEvery;
  turn(now);
  return {};
}

bool Controller::turn(Instant now) {
  bool any = false;
  rail::nhi::ControlPacketView packet;
  send(now);
  while (ring_.peek(packet)) {
    any = true;
    manager_.handle_packet(now, packet.pdf, packet.bytes);
    ring_.consume();
    send(now);
  }
  if (manager_.poll_timeout() <= now) {
    manager_.handle_timeout(now);
    send(now);
  }
  if (look_ <= now) {
    look_ = now + kLookEvery;
    manager_.look(now);
    send(now);
  }
  do {
    fabric::ManagerEvent event;
    while (manager_.poll_event(event)) {
      any = true;
      std::visit([this](const auto& e) { on(e); }, event);
    }
  } while (flow_.turn(now));
  send(now);  // what was answered to an event
  return ip_.turn(now) || any;
}

bool Controller::arm() {
  const bool quiet = ip_.arm();
  return ring_.arm() && quiet;
}

void Controller::send(Instant now) {
  while (held_ || manager_.poll_transmit(now, frame_)) {
    held_ = !ring_.send(static_cast<uint8_t>(frame_.pdf), frame_.span());
    if (held_) return;
  }
}

void Controller::shut_down() {
  manager_.shutdown(sys::monotonic_now());
  const Instant end = sys::monotonic_now() + kShutDownMax;
  for (Instant now = sys::monotonic_now(); !manager_.is_closed() && now < end;
       now = sys::monotonic_now()) {
    if (!turn(now)) ::poll(nullptr, 0, 1);
  }
  ip_.stop();
  ring_.stop();
}

uint32_t Controller::speed_of(uint32_t port) const {
  const fabric::RouterStatus router = manager_.status();
  if (port >= router.ports.size()) return 0;
  return router.ports[port].speed_gbps * std::max(router.ports[port].lanes, 1u);
}

void Controller::on(const fabric::RouterReady&) {
  const fabric::RouterStatus router = manager_.status();
  hooks_.log(false, fmt::format("the router is USB4 v{} with {} port{}", router.usb4_version,
                                router.ports.size(), router.ports.size() == 1 ? "" : "s"));
  for (const fabric::PortStatus& port : router.ports) {
    if (port.ip_ring != 0) continue;
    hooks_.log(false, fmt::format("port {} does not offer thunderbolt-net: no ring is left for it",
                                  port.port));
  }
}

void Controller::on(const fabric::RouterRefused& refused) {
  refusal_ = refused.text;
  hooks_.log(true, "the controller cannot be driven: " + refused.text);
}

void Controller::on(const fabric::PortChanged& changed) {
  const fabric::PortStatus& port = changed.status;
  std::string text = fmt::format("port {} is {}", port.port, port_state_name(port.state));
  if (port.speed_gbps != 0) text += fmt::format(", {} Gb/s x {}", port.speed_gbps, port.lanes);
  if (!port.trouble.empty()) text += ": " + port.trouble;
  hooks_.log(!port.trouble.empty(), text);
  if (flow_.carries(port.port)) hooks_.link(port.port, true, speed_of(port.port));
}

void Controller::on(const fabric::PeerFound& found) {
  const char* runs = found.peer.runs_tbt()        ? ""
                     : found.peer.thunderbolt_net ? ", which runs thunderbolt-net only"
                                                  : ", which does not run this software";
  hooks_.log(false, fmt::format("port {} leads to {}{}", found.port, found.peer.host_name, runs));
}

void Controller::on(const fabric::PeerLost& lost) {
  hooks_.log(false, fmt::format("port {} leads to nobody any more", lost.port));
}

void Controller::on(const fabric::FlowTestWanted& wanted) {
  flow_.hold(wanted.port, wanted.session);
}

void Controller::on(const fabric::FlowTestDue& due) {
  flow_.test(sys::monotonic_now(), due.port, due.session);
}

void Controller::on(const fabric::FlowTestOver& over) { flow_.rest(over.port); }

// Kept first: whoever goes on for us puts the rail right if we are killed in between.
void Controller::on(const fabric::PathUp& up) {
  const fabric::PathStatus& path = up.path;
  hooks_.log(false, fmt::format("port {} carries frames: ring {} by HopID {}, back by HopID {}; "
                                "flow control: {} ({})",
                                path.port, path.tx_ring, path.out_hop_id, path.in_hop_id,
                                wire::tb::path_flow_name(path.flow),
                                fabric::flow_reason_text(path.flow_reason)));
  fabric::keep_path(memory_, incarnation_, path);
  flow_.carry(path);
}

void Controller::on(const fabric::PathDown& down) {
  hooks_.log(false, fmt::format("port {} carries no frames: {}", down.port, down.why));
  fabric::forget_path(memory_, down.port);
  flow_.rest(down.port);
  hooks_.link(down.port, false, 0);
}

void Controller::on(const fabric::IpRingsWanted& wanted) {
  const Status s = ip_.start(wanted.port, manager_.status().uuid);
  std::optional<fabric::IpMac> mac;
  if (s) {
    mac = ip_.identity(wanted.port).mac;
  } else {
    hooks_.log(true, fmt::format("port {} does not offer thunderbolt-net: ring {}: {}", wanted.port,
                                 wanted.ring, s.text()));
  }
  manager_.ip_rings(sys::monotonic_now(), wanted.port, mac);
}

void Controller::on(const fabric::IpUp& up) {
  hooks_.log(false,
             fmt::format("port {} is connected to thunderbolt-net: ring {} by HopID {}, back "
                         "by HopID {}; {} answers ping",
                         up.port, up.link.ring, up.link.out_hop_id, up.link.in_hop_id,
                         ip::ipv4_text(ip_.identity(up.port).ipv4)));
  ip_.up(up.port);
}

void Controller::on(const fabric::IpDown& down) {
  hooks_.log(false,
             fmt::format("port {} is disconnected from thunderbolt-net: {}", down.port, down.why));
  ip_.down(down.port);
}

void Controller::on(const fabric::ManagerWarning& warning) { hooks_.log(true, warning.text); }

}  // namespace tbt::daemon
