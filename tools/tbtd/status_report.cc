#include "tbtd/status_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include "fabric/attach_protocol.h"
#include "fabric/json_text.h"
#include "ip/identity.h"
#include "tbtd/silicon_report.h"
#include "tbtd/slots.h"

namespace tbt::daemon {
namespace {

using nlohmann::json;

const char* state_name(fabric::LinkState state) {
  switch (state) {
    case fabric::LinkState::kDown:
      return "down";
    case fabric::LinkState::kUnplugged:
      return "unplugged";
    case fabric::LinkState::kConnecting:
      return "connecting";
    case fabric::LinkState::kUp:
      return "up";
    case fabric::LinkState::kSilent:
      return "silent";
  }
  return "?";
}

std::string gid_text(const wire::GidBytes& gid) {
  std::string out;
  for (size_t i = 0; i < gid.size(); i += 2) {
    out += fmt::format("{}{:02x}{:02x}", i == 0 ? "" : ":", gid[i], gid[i + 1]);
  }
  return out;
}

bool is_active(const fabric::DirectoryData& d, const fabric::PortEntry& port) {
  for (uint32_t k = 0; k < d.cables; k++) {
    if (port.cable != fabric::kAggregate && port.cable != k) continue;
    if (d.links[k].state == fabric::LinkState::kUp) return true;
  }
  return false;
}

json ports_of(const fabric::DirectoryData& d) {
  json out = json::array();
  for (const fabric::PortEntry& port : d.ports) {
    if (port.lid == 0) continue;
    json gids = json::array();
    for (uint8_t i = 0; i < port.gid_count; i++) gids.push_back(gid_text(port.gids[i]));
    const bool aggregate = port.cable == fabric::kAggregate;
    out.push_back({{"device", aggregate ? "tbt0" : fmt::format("tbt0c{}", port.cable)},
                   {"lid", port.lid},
                   {"guid", fmt::format("{:016x}", port.guid)},
                   {"gids", gids},
                   {"active", is_active(d, port)}});
  }
  return out;
}

json rail_counters(const rail::RailStats& s) {
  return {{"tx_frames", s.tx_frames},
          {"tx_bytes", s.tx_bytes},
          {"rx_frames", s.rx_frames},
          {"rx_bytes", s.rx_bytes},
          {"tx_direct", s.tx_direct},
          {"tx_full", s.tx_full},
          {"rx_crc_errors", s.rx_crc_errors},
          {"rx_overruns", s.rx_overruns},
          {"rx_no_slot", s.rx_no_slot},
          {"rx_inbox_full", s.rx_inbox_full},
          {"rx_orphan_payload", s.rx_orphan_payload},
          {"credit_frames", s.credit_frames},
          {"credit_requests", s.credit_requests},
          {"credit_refused", s.credit_refused},
          {"tx_held_up", s.tx_held_up},
          {"interrupts", s.interrupts},
          {"stranded", s.stranded}};
}

// A cable that carries no frames yet, or none for us, is down; the router's ports say why.
const char* link_state_name(const fabric::CableEntry& link, const fabric::RouterStatus& router,
                            uint32_t port) {
  if (link.state != fabric::LinkState::kUnplugged) return state_name(link.state);
  const bool known = router.state == fabric::RouterState::kReady && port < router.ports.size();
  if (!known) return "down";
  switch (router.ports[port].state) {
    case fabric::PortState::kUnplugged:
      return "unplugged";
    case fabric::PortState::kDisabled:
    case fabric::PortState::kFailed:
      return "failed";
    case fabric::PortState::kForeign:
      return "foreign";
    default:
      return "down";
  }
}

json links_of(Hardware& hardware, const fabric::DirectoryData& d,
              const fabric::RouterStatus& router) {
  json out = json::array();
  for (uint32_t k = 0; k < d.cables; k++) {
    const fabric::CableEntry& link = d.links[k];
    json item{{"device", fmt::format("tbt0c{}", k)},
              {"cable", hardware.cable_number(k)},
              {"state", link_state_name(link, router, k)},
              {"speed_gbps", link.speed_gbps},
              {"counters", rail_counters(hardware.host().rails[k]->stats())}};
    if (link.peer < fabric::kPeersMax) item["peer"] = d.peers[link.peer].name.data();
    out.push_back(std::move(item));
  }
  return out;
}

json peers_of(const fabric::DirectoryData& d) {
  json out = json::array();
  for (const fabric::PeerEntry& peer : d.peers) {
    if (!peer.known) continue;
    out.push_back({{"name", peer.name.data()},
                   {"gone", peer.gone},
                   {"incarnation", fmt::format("{:016x}", peer.incarnation)}});
  }
  return out;
}

json services_of(const fabric::PeerStatus& peer) {
  json out = json::array();
  for (const wire::tb::ServiceInfo& service : peer.services) {
    out.push_back({{"key", service.key},
                   {"protocol", service.protocol_id},
                   {"version", service.version},
                   {"revision", service.revision}});
  }
  return out;
}

// The login to a peer that runs thunderbolt-net only, and the address that answers it.
json thunderbolt_ip_of(const fabric::RouterStatus& router, const fabric::PortStatus& port,
                       uint32_t host) {
  const ip::Identity me = ip::identity_of(router.uuid.bytes, port.port, host);
  json out{{"state", fabric::ip_link_state_name(port.ip->state)}, {"ring", port.ip->ring}};
  if (port.ip->state == fabric::IpLinkState::kConnected) {
    out["in_hop_id"] = port.ip->in_hop_id;
    out["out_hop_id"] = port.ip->out_hop_id;
    out["mac"] = ip::mac_text(port.ip->mac);
    out["peer_mac"] = ip::mac_text(port.ip->peer_mac);
    out["address"] = ip::ipv4_text(me.ipv4);
  }
  return out;
}

// What discovery found behind a port, and the path that it made.
json router_port(const fabric::RouterStatus& router, const fabric::PortStatus& port,
                 uint32_t host) {
  json item{{"port", port.port},
            {"adapter", port.adapter},
            {"state", fabric::port_state_name(port.state)},
            {"speed_gbps", port.speed_gbps},
            {"lanes", port.lanes}};
  if (!port.trouble.empty()) item["trouble"] = port.trouble;
  if (port.peer) {
    item["peer"] = {{"uuid", wire::tb::uuid_text(port.peer->uuid)},
                    {"vendor", port.peer->vendor_name},
                    {"name", port.peer->host_name},
                    {"runs_tbt", port.peer->runs_tbt()},
                    {"thunderbolt_net", port.peer->thunderbolt_net},
                    {"services", services_of(*port.peer)}};
  }
  if (port.path) {
    item["path"] = {{"tx_ring", port.path->tx_ring},
                    {"rx_ring", port.path->rx_ring},
                    {"in_hop_id", port.path->in_hop_id},
                    {"out_hop_id", port.path->out_hop_id},
                    {"peer_rail", port.path->peer_rail},
                    {"flow_control", wire::tb::path_flow_name(port.path->flow)},
                    {"flow_reason", fabric::flow_reason_text(port.path->flow_reason)}};
  }
  if (port.ip) item["thunderbolt_ip"] = thunderbolt_ip_of(router, port, host);
  return item;
}

json router_of(const fabric::RouterStatus& router, uint32_t host) {
  json out{{"state", fabric::router_state_name(router.state)},
           {"uuid", wire::tb::uuid_text(router.uuid)},
           {"vendor_id", router.vendor_id},
           {"device_id", router.device_id},
           {"usb4_version", router.usb4_version},
           {"ports", json::array()}};
  if (!router.refusal.empty()) out["refusal"] = router.refusal;
  for (const fabric::PortStatus& port : router.ports) {
    out["ports"].push_back(router_port(router, port, host));
  }
  return out;
}

json processes_of(rail::HostMemory& memory) {
  json out = json::array();
  for (const SlotUse& use : slots_in_use(memory))
    out.push_back({{"slot", use.slot},
                   {"pid", use.pid},
                   {"direct_bytes", use.direct_bytes},
                   {"copied_regions", use.copied_regions}});
  return out;
}

}  // namespace

std::string status_report(Hardware& hardware, const fabric::HostAgent& agent,
                          const fabric::RouterStatus& router, uint32_t restarts) {
  fabric::Attachment& host = hardware.host();
  const fabric::DirectoryData& d = agent.directory();
  const fabric::AgentStats& s = agent.stats();
  json report{{"ok", true},
              {"version", fabric::kAttachVersion},
              {"fabric", d.fabric_name.data()},
              {"host", d.host_index},
              {"name", d.host_name.data()},
              {"pid", ::getpid()},
              {"restarts", restarts},
              {"incarnation", fmt::format("{:016x}", d.incarnation)},
              {"ports", ports_of(d)},
              {"links", links_of(hardware, d, router)},
              {"router", router_of(router, d.host_index)},
              {"peers", peers_of(d)},
              {"processes", processes_of(*host.memory)},
              {"control",
               {{"messages", s.messages},
                {"malformed", s.malformed},
                {"stale", s.stale},
                {"refused", s.refused},
                {"heartbeats_missed", s.heartbeats_missed}}}};
  hardware.report(report);
  return fabric::json_dump(report);
}

std::string guest_status_report(const rail::emulated::EmulatedFabric& silicon,
                                const GuestReport& guest) {
  json report{{"ok", true},
              {"version", fabric::kAttachVersion},
              {"fabric", guest.fabric},
              {"host", guest.host},
              {"name", fmt::format("host{}", guest.host)},
              {"pid", ::getpid()},
              {"guest", {{"served_by", guest.served_by}}},
              {"links", json::array()}};
  report_silicon(silicon, guest.host, report);
  return fabric::json_dump(report);
}

}  // namespace tbt::daemon
