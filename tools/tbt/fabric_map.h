// FabricMap: the hosts and cables of a fabric as its daemons describe them, for `tbt topo` and
// `tbt devices --cables`; and the words in which both say what a port found. Plain data.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace tbt::tool {

// A host at the far end of a cable, by what it said of itself.
struct MapPeer {
  std::string name, uuid;
  bool runs_tbt = false;
  bool thunderbolt_net = false;
  std::vector<std::string> services;  // keys
};

struct MapPath {
  uint32_t tx_ring = 0, rx_ring = 0;
  uint32_t out_hop_id = 0, in_hop_id = 0;
  uint32_t peer_rail = 0;
  std::string flow_control, flow_reason;
};

// ThunderboltIP with a peer that runs nothing else.
struct MapIp {
  std::string state;
  std::string address;  // of ours, which answers ping; while it is connected
  uint32_t ring = 0, out_hop_id = 0, in_hop_id = 0;
};

// A USB4 port of a host, which is one end of a cable.
struct MapPort {
  uint32_t port = 0, adapter = 0;
  std::optional<uint32_t> cable;  // its number in the fabric, if that has numbers
  std::string state;
  uint32_t speed_gbps = 0, lanes = 0;  // of one lane; 0 while the link is down
  std::string trouble;
  std::optional<MapPeer> peer;
  std::optional<MapPath> path;
  std::optional<MapIp> ip;
};

struct MapHost {
  uint32_t number = 0;
  std::string name;
  std::string uuid;  // of the router; empty while it is not known
  uint32_t usb4_version = 0;
  std::string silent;   // not empty: no daemon answers, and why
  bool guest = false;   // a virtual machine drives the controller
  std::string refusal;  // not empty: the controller cannot be driven, and why
  std::vector<MapPort> ports;
};

struct MapCable {
  uint32_t number = 0;
  uint32_t host_a = 0, host_b = 0;
};

struct FabricMap {
  std::string name;
  std::string topology;
  std::vector<MapHost> hosts;
  std::vector<MapCable> cables;  // between hosts of the fabric
};

// From what `tbt fabric status --json` shows of one fabric, or of one host. What is missing or of
// another kind is taken for not known.
FabricMap map_of_fabric(const nlohmann::json& report);
MapHost map_of_host(const nlohmann::json& status);
nlohmann::json json_of_map(const FabricMap& map);

// The port of `host` that the cable is plugged into, or nullptr if that is not known.
const MapPort* end_of(const FabricMap& map, const MapCable& cable, uint32_t host);
const MapHost* host_of(const FabricMap& map, uint32_t number);

// "40 Gb/s x 2", or "-" while the link is down.
std::string speed_words(const MapPort& port);
// "ring 1 by HopID 8, back by HopID 8 to ring 1", or "-" without a path. That of ThunderboltIP says
// so at its end.
std::string path_words(const MapPort& port);
// What is at the far end of the cable, and why no frames pass if none do: "host1",
// "host1 runs thunderbolt-net only, logging in", "not a host", "unplugged".
std::string far_words(const MapPort& port);
// Nothing special is to be said of it: frames pass.
inline bool carries_frames(const MapPort& port) { return port.path.has_value(); }
inline bool carries_ip(const MapPort& port) { return port.ip && !port.ip->address.empty(); }

}  // namespace tbt::tool
