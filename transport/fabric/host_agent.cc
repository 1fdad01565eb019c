// The agent's inputs, outputs and timers; what the messages mean is in host_agent_session.cc.
#include "fabric/host_agent.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "fabric/addresses.h"

namespace tbt::fabric {
namespace {

constexpr uint8_t kNoPeer = 0xff;
constexpr uint32_t kIdentityRepeats = 4;  // of news of our GIDs
constexpr size_t kEventsMax =
    256;  // of unread ones; more are dropped, the daemon reads after each input

wire::PortIdentity identity_of(const PortEntry& entry) {
  return {entry.lid, entry.cable, {entry.gids.begin(), entry.gids.begin() + entry.gid_count}};
}

}  // namespace

HostAgent::HostAgent(const AgentConfig& config, Instant now)
    : incarnation_(config.incarnation),
      uuid_(host_uuid(config.fabric_name, config.host_index)),
      links_(config.cables.size()) {
  TBT_ASSERT(config.incarnation != 0 && config.cables.size() <= kCablesMax);
  directory_.host_index = config.host_index;
  directory_.cables = static_cast<uint32_t>(config.cables.size());
  directory_.incarnation = config.incarnation;
  directory_.vendor_id = config.vendor_id;
  directory_.device_id = config.device_id;
  set_name(directory_.host_name, config.host_name);
  set_name(directory_.fabric_name, config.fabric_name);
  directory_.ports[0] = port_entry({.fabric = config.fabric_name, .host = config.host_index});
  for (uint8_t k = 0; k < links_.size(); k++) {
    const AgentCable& cable = config.cables[k];
    directory_.ports[1 + k] = port_entry({config.fabric_name, config.host_index, k, cable.number});
    directory_.links[k].speed_gbps = cable.speed_gbps;
    directory_.links[k].state = cable.plugged ? LinkState::kConnecting : LinkState::kUnplugged;
    links_[k].next_send = cable.plugged ? now : Instant::never();
  }
}

HostAgent::HostAgent(const AgentConfig& config, const DirectoryData& before, Instant now)
    : HostAgent(config, now) {
  TBT_ASSERT(config.incarnation == before.incarnation);
  directory_.peers = before.peers;
  directory_.gone = before.gone;
  directory_.gone_count = before.gone_count;
  for (uint32_t i = 0; i < wire::kPortsMax; i++) {
    if (directory_.ports[i].lid == before.ports[i].lid) directory_.ports[i] = before.ports[i];
  }
  for (uint32_t k = 0; k < links_.size(); k++) resume_link(k, before.links[k], now);
  repeat_departures(now);  // the last words of the killed daemon
}

void HostAgent::resume_link(uint32_t cable, const CableEntry& before, Instant now) {
  CableEntry& entry = directory_.links[cable];
  if (before.peer >= kPeersMax || directory_.peers[before.peer].gone) return;
  const uint64_t theirs = directory_.peers[before.peer].incarnation;
  if (before.tag != wire::session_tag(incarnation_, theirs)) return;
  entry.peer = before.peer;
  entry.peer_cable = before.peer_cable;
  entry.tag = before.tag;
  const bool stands = before.state == LinkState::kUp || before.state == LinkState::kSilent;
  if (!stands || entry.state == LinkState::kUnplugged) return;
  entry.state = before.state;
  links_[cable].silent_since = now;
  if (before.state == LinkState::kUp) links_[cable].peer_incarnation = theirs;
}

// ---- inputs

void HostAgent::handle_message(Instant now, uint32_t cable, uint32_t tag,
                               std::span<const std::byte> message) {
  if (stopped_ || cable >= links_.size()) return;
  if (directory_.links[cable].state == LinkState::kUnplugged) return;  // was still in a ring
  stats_.messages++;
  wire::ControlMessage decoded;
  const wire::ControlError error = wire::decode_control(message, decoded);
  if (error == wire::ControlError::kUnknownVersion &&
      std::holds_alternative<wire::Hello>(decoded)) {
    stats_.refused++;
    send(cable, kHandshakeTag, wire::Refuse{wire::kProtocolVersion, wire::kRefuseVersion});
    return;
  }
  if (error != wire::ControlError::kNone) {
    stats_.malformed++;
    return;
  }
  std::visit([&](const auto& m) { on(now, cable, tag, m); }, decoded);
}

void HostAgent::handle_link(Instant now, uint32_t cable, bool plugged, uint32_t speed_gbps) {
  if (stopped_ || cable >= links_.size()) return;
  CableEntry& entry = directory_.links[cable];
  if (entry.speed_gbps != speed_gbps) {
    entry.speed_gbps = speed_gbps;
    changed_ = true;
  }
  const bool was_plugged = entry.state != LinkState::kUnplugged;
  if (was_plugged == plugged) return;
  links_[cable].hellos = 0;
  links_[cable].next_send = plugged ? now : Instant::never();
  set_state(cable, plugged ? LinkState::kConnecting : LinkState::kUnplugged, "");
}

void HostAgent::handle_process_gone(Instant now, const wire::ProcessGone& gone) {
  if (stopped_ || gone.count == 0) return;  // it had no queue pairs that anybody could know
  record_gone({gone.lid, gone.slot, gone.first, gone.count});
  send_gone(gone);
  gone_news_.push_back({gone, kGoneRepeats, now + kGoneInterval});
}

void HostAgent::handle_controller_lost(Instant /*now*/) {
  if (stopped_) return;
  for (uint32_t k = 0; k < links_.size(); k++) {
    if (directory_.links[k].state == LinkState::kUnplugged) continue;
    set_state(k, LinkState::kUnplugged, "the controller is gone");
  }
  directory_.controller_lost = true;
  changed_ = true;
  gone_news_.clear();
  outputs_.clear();
  stopped_ = true;
}

bool HostAgent::is_taken(const wire::GidBytes& gid) const {
  const auto in = [&gid](const auto& ports) {
    return std::ranges::any_of(ports, [&gid](const PortEntry& port) {
      return std::ranges::find(port.gids, gid) != port.gids.end();
    });
  };
  return in(directory_.ports) || std::ranges::any_of(directory_.peers, [&](const PeerEntry& peer) {
           return peer.known && !peer.gone && in(peer.ports);
         });
}

// The index of a GID does not change while the port has it: what is taken away leaves a gap.
Status HostAgent::change_gid(Instant now, uint32_t port, const wire::GidBytes& gid, bool present) {
  constexpr uint8_t kOwnGids = 2;
  const wire::GidBytes none{};
  if (port >= wire::kPortsMax || directory_.ports[port].lid == 0) {
    return Status(ENODEV, "the host has no such port");
  }
  if (gid == none) return Status(EINVAL, "zero is no GID");
  if (present && is_taken(gid)) return Status(EADDRINUSE, "a port has this GID already");
  PortEntry& entry = directory_.ports[port];
  const auto first = entry.gids.begin() + kOwnGids;
  const auto at = std::find(first, entry.gids.end(), present ? none : gid);
  if (at == entry.gids.end()) {
    return present ? Status(ENOSPC, "the port has as many GIDs as it can have")
                   : Status(ENOENT, "the port has no such GID that was added");
  }
  *at = present ? gid : none;
  entry.gid_count = static_cast<uint8_t>(entry.gids.size());
  while (entry.gids[entry.gid_count - 1u] == none) entry.gid_count--;
  changed_ = true;
  for (uint32_t k = 0; k < links_.size(); k++) {
    links_[k].identities = kIdentityRepeats;
    if (directory_.links[k].state == LinkState::kUp) links_[k].next_send = now;
  }
  return {};
}

void HostAgent::handle_timeout(Instant now) {
  if (stopped_) return;
  for (uint32_t k = 0; k < links_.size(); k++) {
    Link& link = links_[k];
    if (link.next_send > now) continue;
    watch_silence(now, k);
    if (directory_.links[k].state == LinkState::kUp) {
      send_identity(k);
      send_heartbeat(now, k);
    } else {
      send_hello(now, k, /*reply=*/false);
    }
  }
  for (GoneNews& news : gone_news_) {
    if (news.next_send > now) continue;
    send_gone(news.message);
    news.left--;
    news.next_send = now + kGoneInterval;
  }
  std::erase_if(gone_news_, [](const GoneNews& news) { return news.left == 0; });
}

void HostAgent::handle_shutdown(Instant /*now*/) {
  if (stopped_) return;
  for (uint32_t k = 0; k < links_.size(); k++) {
    CableEntry& entry = directory_.links[k];
    if (entry.state == LinkState::kUp) send(k, entry.tag, wire::Bye{incarnation_});
    if (entry.state != LinkState::kUnplugged) set_state(k, LinkState::kDown, "the daemon ends");
    links_[k].next_send = Instant::never();
  }
  gone_news_.clear();
  stopped_ = true;
}

// ---- outputs

bool HostAgent::poll_transmit(ControlOutput& out) {
  if (outputs_.empty()) return false;
  out = std::move(outputs_.front());
  outputs_.pop_front();
  return true;
}

bool HostAgent::poll_event(AgentEvent& out) {
  if (events_.empty()) return false;
  out = std::move(events_.front());
  events_.pop_front();
  return true;
}

bool HostAgent::take_directory_change() { return std::exchange(changed_, false); }

Instant HostAgent::poll_timeout() const {
  Instant next = Instant::never();
  for (const Link& link : links_) next = std::min(next, link.next_send);
  for (const GoneNews& news : gone_news_) next = std::min(next, news.next_send);
  return stopped_ ? Instant::never() : next;
}

// ---- sending

void HostAgent::send(uint32_t cable, uint32_t tag, const wire::ControlMessage& message) {
  outputs_.push_back({cable, tag, wire::encode_control(message)});
}

void HostAgent::send_hello(Instant now, uint32_t cable, bool reply) {
  Link& link = links_[cable];
  wire::Hello hello;
  hello.reply = reply;
  hello.features = wire::kFeaturePayloadCheck | wire::kFeatureUcWait | wire::kFeatureRcSack;
  hello.incarnation = incarnation_;
  hello.peer_incarnation = link.peer_incarnation;
  hello.uuid = uuid_;
  hello.cable = static_cast<uint8_t>(cable);
  hello.host_name = directory_.host_name.data();
  for (const PortEntry& port : directory_.ports) {
    if (port.lid != 0) hello.ports.push_back(identity_of(port));
  }
  send(cable, kHandshakeTag, hello);
  if (reply) return;
  link.hellos++;
  const bool fast = link.hellos < kFastHellos;
  link.next_send = now + (link.refused ? kRefusedInterval
                          : fast       ? kHelloInterval
                                       : kHeartbeatInterval);
}

void HostAgent::send_heartbeat(Instant now, uint32_t cable) {
  Link& link = links_[cable];
  if (link.unanswered == 0) link.unanswered_since = now;
  if (link.unanswered > 0) stats_.heartbeats_missed++;
  link.sequence++;
  link.unanswered++;
  link.next_send = now + kHeartbeatAgain;
  send(cable, directory_.links[cable].tag, wire::Heartbeat{incarnation_, link.sequence, false});
}

// A hello that wants no answer. One may get lost, so it is repeated with the next heartbeats.
void HostAgent::send_identity(uint32_t cable) {
  if (links_[cable].identities == 0) return;
  links_[cable].identities--;
  send_hello(Instant{}, cable, /*reply=*/true);
}

void HostAgent::send_gone(const wire::ProcessGone& gone) {
  for (uint32_t k = 0; k < links_.size(); k++) {
    if (directory_.links[k].state == LinkState::kUp) send(k, directory_.links[k].tag, gone);
  }
}

void HostAgent::log(bool warning, std::string text) {
  if (events_.size() < kEventsMax) events_.push_back({warning, std::move(text)});
}

std::string HostAgent::cable_text(uint32_t cable) const {
  std::string text = "cable " + std::to_string(cable);
  const uint8_t peer = directory_.links[cable].peer;
  if (peer != kNoPeer) text += " to " + std::string(directory_.peers[peer].name.data());
  return text;
}

}  // namespace tbt::fabric
