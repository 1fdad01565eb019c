#include "tbt/fabric_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "fabric/json_text.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

uint32_t number_in(const json& object, const char* key) {
  const auto value = fabric::json_uint(object, key, std::numeric_limits<uint32_t>::max());
  return static_cast<uint32_t>(value.value_or(0));
}

std::string text_in(const json& object, const char* key) {
  return fabric::json_string(object, key).value_or("");
}

bool flag_in(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

// An empty value of the kind if it is not there.
json member(const json& object, const char* key, json::value_t kind) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || it == object.end() || it->type() != kind) return json(kind);
  return *it;
}
json list_in(const json& object, const char* key) {
  return member(object, key, json::value_t::array);
}
json object_in(const json& object, const char* key) {
  return member(object, key, json::value_t::object);
}

MapPort port_of(const json& item) {
  MapPort port;
  port.port = number_in(item, "port");
  port.adapter = number_in(item, "adapter");
  port.state = text_in(item, "state");
  port.speed_gbps = number_in(item, "speed_gbps");
  port.lanes = number_in(item, "lanes");
  port.trouble = text_in(item, "trouble");
  if (const json peer = object_in(item, "peer"); !peer.empty()) {
    port.peer = MapPeer{.name = text_in(peer, "name"),
                        .uuid = text_in(peer, "uuid"),
                        .runs_tbt = flag_in(peer, "runs_tbt"),
                        .thunderbolt_net = flag_in(peer, "thunderbolt_net"),
                        .services = {}};
    for (const json& service : list_in(peer, "services"))
      port.peer->services.push_back(text_in(service, "key"));
  }
  if (const json path = object_in(item, "path"); !path.empty()) {
    port.path = MapPath{.tx_ring = number_in(path, "tx_ring"),
                        .rx_ring = number_in(path, "rx_ring"),
                        .out_hop_id = number_in(path, "out_hop_id"),
                        .in_hop_id = number_in(path, "in_hop_id"),
                        .peer_rail = number_in(path, "peer_rail"),
                        .flow_control = text_in(path, "flow_control"),
                        .flow_reason = text_in(path, "flow_reason")};
  }
  if (const json ip = object_in(item, "thunderbolt_ip"); !ip.empty()) {
    port.ip = MapIp{.state = text_in(ip, "state"),
                    .address = text_in(ip, "address"),
                    .ring = number_in(ip, "ring"),
                    .out_hop_id = number_in(ip, "out_hop_id"),
                    .in_hop_id = number_in(ip, "in_hop_id")};
  }
  return port;
}

void read_cables(const json& list, std::vector<MapCable>& out) {
  for (const json& item : list) {
    if (!item.is_object()) continue;
    out.push_back({number_in(item, "cable"), number_in(item, "a"), number_in(item, "b")});
  }
}

json json_of_port(const MapPort& port) {
  json out{{"port", port.port},      {"adapter", port.adapter},
           {"state", port.state},    {"speed_gbps", port.speed_gbps},
           {"lanes", port.lanes},    {"carries_frames", carries_frames(port)},
           {"says", far_words(port)}};
  if (port.cable) out["cable"] = *port.cable;
  if (!port.trouble.empty()) out["trouble"] = port.trouble;
  if (port.peer) {
    out["peer"] = {{"name", port.peer->name},
                   {"uuid", port.peer->uuid},
                   {"runs_tbt", port.peer->runs_tbt},
                   {"thunderbolt_net", port.peer->thunderbolt_net},
                   {"services", port.peer->services}};
  }
  if (port.path) {
    out["path"] = {
        {"tx_ring", port.path->tx_ring},        {"rx_ring", port.path->rx_ring},
        {"out_hop_id", port.path->out_hop_id},  {"in_hop_id", port.path->in_hop_id},
        {"peer_rail", port.path->peer_rail},    {"flow_control", port.path->flow_control},
        {"flow_reason", port.path->flow_reason}};
  }
  if (port.ip) {
    out["thunderbolt_ip"] = {{"state", port.ip->state},
                             {"address", port.ip->address},
                             {"ring", port.ip->ring},
                             {"out_hop_id", port.ip->out_hop_id},
                             {"in_hop_id", port.ip->in_hop_id}};
  }
  return out;
}

}  // namespace

MapHost map_of_host(const json& status) {
  MapHost host;
  host.number = number_in(status, "host");
  host.name = text_in(status, "name");
  if (host.name.empty()) host.name = fmt::format("host{}", host.number);
  host.silent = text_in(status, "error");
  host.guest = !member(status, "guest", json::value_t::object).empty();
  const json router = object_in(status, "router");
  host.uuid = text_in(router, "uuid");
  host.usb4_version = number_in(router, "usb4_version");
  host.refusal = text_in(router, "refusal");
  for (const json& item : list_in(router, "ports")) host.ports.push_back(port_of(item));
  // Port k is the host's cable k, and "links" has that one's number in the fabric.
  const json links = list_in(status, "links");
  for (MapPort& port : host.ports) {
    if (port.port < links.size() && links[port.port].is_object() &&
        links[port.port].contains("cable")) {
      port.cable = number_in(links[port.port], "cable");
    }
  }
  return host;
}

FabricMap map_of_fabric(const json& report) {
  FabricMap map;
  map.name = text_in(report, "name");
  map.topology = text_in(report, "topology");
  read_cables(list_in(report, "cables"), map.cables);
  for (const json& status : list_in(report, "hosts")) {
    if (!status.is_object()) continue;
    map.hosts.push_back(map_of_host(status));
    if (map.cables.empty()) read_cables(list_in(status, "cables"), map.cables);
  }
  // A drawing has room for hosts that are there only.
  std::erase_if(map.cables, [&map](const MapCable& cable) {
    return host_of(map, cable.host_a) == nullptr || host_of(map, cable.host_b) == nullptr;
  });
  return map;
}

json json_of_map(const FabricMap& map) {
  json out{{"name", map.name},
           {"topology", map.topology},
           {"hosts", json::array()},
           {"cables", json::array()}};
  for (const MapHost& host : map.hosts) {
    json item{{"host", host.number}, {"name", host.name}, {"ports", json::array()}};
    if (!host.uuid.empty()) item["uuid"] = host.uuid;
    if (host.usb4_version != 0) item["usb4_version"] = host.usb4_version;
    if (!host.silent.empty()) item["silent"] = host.silent;
    if (!host.refusal.empty()) item["refused"] = host.refusal;
    item["virtual_machine"] = host.guest;
    for (const MapPort& port : host.ports) item["ports"].push_back(json_of_port(port));
    out["hosts"].push_back(std::move(item));
  }
  for (const MapCable& cable : map.cables) {
    json item{{"cable", cable.number}, {"ends", json::array()}};
    for (const uint32_t number : {cable.host_a, cable.host_b}) {
      const MapPort* port = end_of(map, cable, number);
      item["ends"].push_back({{"host", number}});
      if (port != nullptr) item["ends"].back()["port"] = port->port;
    }
    out["cables"].push_back(std::move(item));
  }
  return out;
}

const MapHost* host_of(const FabricMap& map, uint32_t number) {
  const auto at =
      std::ranges::find_if(map.hosts, [&](const MapHost& host) { return host.number == number; });
  return at == map.hosts.end() ? nullptr : &*at;
}

const MapPort* end_of(const FabricMap& map, const MapCable& cable, uint32_t number) {
  const MapHost* host = host_of(map, number);
  if (host == nullptr) return nullptr;
  const auto at = std::ranges::find_if(
      host->ports, [&](const MapPort& port) { return port.cable == cable.number; });
  return at == host->ports.end() ? nullptr : &*at;
}

std::string speed_words(const MapPort& port) {
  return port.speed_gbps == 0 ? "-" : fmt::format("{} Gb/s x {}", port.speed_gbps, port.lanes);
}

namespace {

std::string flow_words(const MapPath& path) {
  if (path.flow_control.empty()) return "";  // a daemon of another version
  const char* kind = path.flow_control == "e2e"       ? "end-to-end credits"
                     : path.flow_control == "credits" ? "credits in software"
                                                      : "no flow control";
  return fmt::format("; {}: {}", kind, path.flow_reason);
}

}  // namespace

std::string path_words(const MapPort& port) {
  if (carries_ip(port)) {
    return fmt::format("ring {0} by HopID {1}, back by HopID {2} to ring {0}, for thunderbolt-net",
                       port.ip->ring, port.ip->out_hop_id, port.ip->in_hop_id);
  }
  if (!port.path) return "-";
  return fmt::format("ring {} by HopID {}, back by HopID {} to ring {}{}", port.path->tx_ring,
                     port.path->out_hop_id, port.path->in_hop_id, port.path->rx_ring,
                     flow_words(*port.path));
}

std::string far_words(const MapPort& port) {
  const std::string why = port.trouble.empty() ? "" : ": " + port.trouble;
  if (!port.peer) {
    if (port.state == "up") return "no host answers" + why;
    return port.state + why;  // unplugged, not a host, failed
  }
  const std::string name = port.peer->name.empty() ? port.peer->uuid : port.peer->name;
  if (carries_frames(port)) return name;
  if (port.peer->runs_tbt) {
    return name + (why.empty() ? ", path not agreed yet" : ", refused" + why);
  }
  if (port.peer->thunderbolt_net) {
    const std::string login = !port.ip ? "" : ", " + port.ip->state;
    const std::string as = carries_ip(port) ? " as " + port.ip->address : "";
    return name + " runs thunderbolt-net only" + login + as + why;
  }
  return name + " does not run this software";
}

}  // namespace tbt::tool
