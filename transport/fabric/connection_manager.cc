#include "fabric/connection_manager.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "fabric/port.h"
#include "fabric/router_regs.h"
#include "fabric/router_setup.h"
#include "wire/tb/path_agreement.h"

namespace tbt::fabric {

namespace {

struct PortPlan {
  PortShape shape;
  PortStatus status;
};

// What the router grants to a path that comes in by this lane.
uint32_t receive_credits(const RouterStatus& router, const AdapterInfo& lane) {
  uint32_t credits = std::min(kPathCredits, router.max_hi_credits.value_or(kPathCredits));
  if (lane.buffers > lane.control_credits) {
    credits = std::min(credits, lane.buffers - lane.control_credits);
  }
  return std::max(credits, 1u);
}

void find_limits(const ManagerConfig& config, const RouterStatus& router, PortStatus& status) {
  const uint32_t ring = config.first_ring + status.port;
  if (ring > router.nhi_hop_id_max || ring >= config.ring_pairs) {
    status.trouble = "the controller has no ring " + std::to_string(ring) + " for it";
  } else if (std::min(status.max_in_hop_id, status.max_out_hop_id) < wire::tb::kPathHopIdMin) {
    status.trouble = "its lane has no HopIDs for paths";
  } else if (status.port >= wire::tb::kPathRailsMax) {
    status.trouble = "more ports than there can be rails";
  } else {
    status.usable = true;
  }
  const uint32_t ip_ring = config.first_ip_ring + status.port;
  const bool hop_ids =
      std::min(status.max_in_hop_id, status.max_out_hop_id) >= wire::tb::kPathHopIdMin;
  if (hop_ids && status.port < config.ip_rings && ip_ring <= router.nhi_hop_id_max) {
    status.ip_ring = static_cast<uint16_t>(ip_ring);
  }
}

// A port is a lane adapter with the capability of a USB4 port, and the lane adapter after it, if
// that has none.
std::vector<PortPlan> find_ports(const ManagerConfig& config, const RouterStatus& router,
                                 const std::vector<AdapterInfo>& adapters) {
  std::vector<PortPlan> plans;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const AdapterInfo& lane0 = adapters[i];
    if (lane0.type != kAdapterLane || lane0.lane == 0 || lane0.usb4_port == 0) continue;
    PortPlan plan;
    plan.shape = {.lane0 = lane0.number, .lane0_cap = lane0.lane, .usb4_port = lane0.usb4_port};
    if (i + 1 < adapters.size()) {
      const AdapterInfo& lane1 = adapters[i + 1];
      if (lane1.number == lane0.number + 1 && lane1.type == kAdapterLane && lane1.lane != 0 &&
          lane1.usb4_port == 0) {
        plan.shape.lane1 = lane1.number;
        plan.shape.lane1_cap = lane1.lane;
      }
    }
    plan.status.port = static_cast<uint32_t>(plans.size());
    plan.status.adapter = lane0.number;
    plan.status.lane1_adapter = plan.shape.lane1;
    plan.status.max_in_hop_id = lane0.max_in_hop_id;
    plan.status.max_out_hop_id = lane0.max_out_hop_id;
    plan.status.receive_credits = receive_credits(router, lane0);
    find_limits(config, router, plan.status);
    plans.push_back(std::move(plan));
  }
  return plans;
}

}  // namespace

ConnectionManager::ConnectionManager(ManagerConfig config) : config_(std::move(config)) {
  TBT_ASSERT(config_.incarnation != 0);
}

ConnectionManager::~ConnectionManager() = default;

void ConnectionManager::start(Instant now) {
  TBT_ASSERT(status_.state == RouterState::kStopped);
  status_.state = RouterState::kStarting;
  setup_ = std::make_unique<RouterSetup>();
  work(now);
}

void ConnectionManager::shutdown(Instant now) {
  if (status_.state == RouterState::kClosing || is_closed()) return;
  const bool ready = status_.state == RouterState::kReady;
  status_.state = ready ? RouterState::kClosing : RouterState::kClosed;
  if (setup_ticket_ != 0) channel_.cancel(std::exchange(setup_ticket_, 0));
  setup_.reset();
  for (const auto& port : ports_) port->shutdown(now);
  work(now);
}

void ConnectionManager::rail_held(Instant now, uint32_t port, uint32_t session) {
  if (port < ports_.size()) ports_[port]->rail_held(now, session);
  work(now);
}

void ConnectionManager::flow_tested(Instant now, uint32_t port, uint32_t session,
                                    wire::tb::FlowOutcome outcome) {
  if (port < ports_.size()) ports_[port]->flow_tested(now, session, outcome);
  work(now);
}

void ConnectionManager::ip_rings(Instant now, uint32_t port, std::optional<IpMac> mac) {
  if (port < ports_.size()) ports_[port]->ip_rings(now, mac);
  work(now);
}

void ConnectionManager::handle_packet(Instant now, uint8_t pdf, std::span<const std::byte> bytes) {
  channel_.handle_packet(now, pdf, bytes);
  work(now);
}

void ConnectionManager::handle_timeout(Instant now) {
  channel_.handle_timeout(now);
  for (const auto& port : ports_) port->handle_timeout(now);
  work(now);
}

void ConnectionManager::look(Instant now) {
  for (const auto& port : ports_) port->look(now);
  work(now);
}

void ConnectionManager::refuse(std::string text) {
  status_.state = RouterState::kRefused;
  status_.refusal = text;
  setup_.reset();
  setup_ticket_ = 0;
  for (const auto& port : ports_) {
    const PortStatus& status = port->status();
    if (status.path) events_.emplace_back(PathDown{status.port, text});
    const bool ip_up = status.ip && status.ip->state == IpLinkState::kConnected;
    if (ip_up) events_.emplace_back(IpDown{status.port, text});
  }
  ports_.clear();
  drop_kept(text);
  events_.emplace_back(RouterRefused{std::move(text)});
}

// Carries what has come in to those whom it concerns, and their accesses and events on.
void ConnectionManager::work(Instant now) {
  ChannelEvent event;
  while (channel_.poll_event(event)) handle_event(now, event);
  if (setup_ && setup_->finished()) router_known(now);
  post_accesses(now);
  ManagerEvent news;
  for (const auto& port : ports_) {
    while (port->poll_event(news)) events_.push_back(std::move(news));
  }
  const bool closed = std::ranges::all_of(ports_, [](const auto& port) { return port->closed(); });
  if (status_.state == RouterState::kClosing && closed) status_.state = RouterState::kClosed;
}

void ConnectionManager::handle_event(Instant now, const ChannelEvent& event) {
  if (const auto* result = std::get_if<ConfigResult>(&event)) {
    if (setup_ && result->ticket == setup_ticket_) {
      setup_ticket_ = 0;
      setup_->handle_result(now, *result);
    }
    for (const auto& port : ports_) {
      if (result->ticket == port->ticket()) port->handle_result(now, *result);
    }
  } else if (const auto* plug = std::get_if<wire::tb::HotPlug>(&event)) {
    // Lane 1 comes and goes with lane 0; deeper routers are not ours.
    Port* port = plug->route.value == 0 ? port_of_adapter(plug->adapter) : nullptr;
    if (port == nullptr) return;
    if (port->status().adapter == plug->adapter) {
      port->handle_hot_plug(now, plug->unplug);
    } else {
      port->handle_link_news(now);
    }
  } else if (const auto* news = std::get_if<wire::tb::Notification>(&event)) {
    Port* port = news->route.value == 0 ? port_of_adapter(news->adapter) : nullptr;
    if (port != nullptr) port->handle_link_news(now);
  } else if (const auto* packet = std::get_if<wire::tb::XDomainPacket>(&event)) {
    handle_message(now, *packet);
  } else if (status_.state != RouterState::kRefused && !is_closed()) {
    refuse("firmware of this controller is its connection manager");
  }
}

void ConnectionManager::handle_message(Instant now, const wire::tb::XDomainPacket& packet) {
  const auto at =
      std::ranges::find_if(ports_, [&](const auto& port) { return port->route() == packet.route; });
  const bool ours = packet.protocol == wire::tb::kDiscoveryProtocol ||
                    packet.protocol == wire::tb::kPathProtocol ||
                    packet.protocol == wire::tb::kFlowProtocol ||
                    packet.protocol == wire::tb::kThunderboltIpProtocol;
  if (at != ports_.end() && ours) (*at)->handle_packet(now, packet);
}

Port* ConnectionManager::port_of_adapter(uint8_t adapter) {
  const auto at =
      std::ranges::find_if(ports_, [&](const auto& port) { return port->owns(adapter); });
  return at == ports_.end() ? nullptr : at->get();
}

void ConnectionManager::router_known(Instant now) {
  if (!setup_->failure().empty()) {
    refuse(setup_->failure());
    return;
  }
  const std::unique_ptr<RouterSetup> setup = std::move(setup_);
  status_ = setup->router();
  status_.state = RouterState::kReady;
  for (const std::string& warning : setup->warnings()) {
    events_.emplace_back(ManagerWarning{warning});
  }
  for (PortPlan& plan : find_ports(config_, status_, setup->adapters())) {
    if (!plan.status.usable) {
      events_.emplace_back(ManagerWarning{"port " + std::to_string(plan.status.port) +
                                          " is not used: " + plan.status.trouble});
    }
    ports_.push_back(std::make_unique<Port>(config_, status_, plan.shape, std::move(plan.status)));
  }
  events_.emplace_back(RouterReady{});
  for (const auto& port : ports_) {
    const auto kept = std::ranges::find(config_.kept, port->status().port, &PathStatus::port);
    port->start(now, kept == config_.kept.end() ? nullptr : &*kept);
  }
  drop_kept("the router has no such port");
}

void ConnectionManager::drop_kept(const std::string& why) {
  for (const PathStatus& path : config_.kept) {
    if (path.port >= ports_.size()) events_.emplace_back(PathDown{path.port, why});
  }
  config_.kept.clear();
}

void ConnectionManager::post_accesses(Instant now) {
  if (setup_ && setup_ticket_ == 0) {
    if (const auto access = setup_->poll_access(now)) setup_ticket_ = channel_.post(*access);
  }
  for (const auto& port : ports_) {
    if (const auto access = port->poll_access(now)) port->posted(channel_.post(*access));
  }
}

bool ConnectionManager::poll_transmit(Instant now, wire::tb::ControlFrame& out) {
  wire::tb::XDomainPacket packet;
  for (const auto& port : ports_) {
    while (port->poll_transmit(now, packet)) channel_.send(packet);
  }
  work(now);
  return channel_.poll_transmit(now, out);
}

bool ConnectionManager::poll_event(ManagerEvent& out) {
  if (events_.empty()) return false;
  out = std::move(events_.front());
  events_.pop_front();
  return true;
}

Instant ConnectionManager::poll_timeout() const {
  Instant next = channel_.poll_timeout();
  if (setup_) next = std::min(next, setup_->poll_timeout());
  for (const auto& port : ports_) next = std::min(next, port->poll_timeout());
  return next;
}

RouterStatus ConnectionManager::status() const {
  RouterStatus status = status_;
  for (const auto& port : ports_) status.ports.push_back(port->status());
  return status;
}

}  // namespace tbt::fabric
