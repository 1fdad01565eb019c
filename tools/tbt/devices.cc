// tbt devices: the verbs devices of the hosts, with the addresses that their peers reach them by;
// with --cables what discovery found behind each port.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <optional>

#include "fabric/json_text.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/fabric_map.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

struct DeviceOptions {
  std::string fabric = "default";
  std::optional<uint32_t> host;
  bool cables = false;
  bool as_json = false;
};

void print_devices(const json& status) {
  for (const json& port : status.value("ports", json::array())) {
    const json gids = port.value("gids", json::array());
    fmt::print("{:<5} {:<7} {:<6} {:<17} {:<7}", status.value("host", 0), port.value("device", "?"),
               port.value("lid", 0), port.value("guid", "?"),
               port.value("active", false) ? "active" : "down");
    for (const json& gid : gids) fmt::print(" {}", gid.is_string() ? gid.get<std::string>() : "?");
    fmt::print("\n");
  }
}

void print_cables(const json& status) {
  const MapHost host = map_of_host(status);
  for (const MapPort& port : host.ports) {
    fmt::print("{:<5} {:<5} {:<6} {:<11} {:<13} {}\n", host.number, port.port,
               port.cable ? std::to_string(*port.cable) : "-", port.state, speed_words(port),
               far_words(port));
    if (port.peer) {
      fmt::print("{:<12}uuid {}  services {}\n", "", port.peer->uuid,
                 fmt::join(port.peer->services, ","));
    }
    if (carries_frames(port) || carries_ip(port)) {
      fmt::print("{:<12}{}\n", "", path_words(port));
    }
  }
  const std::string& refusal = host.refusal;
  if (!refusal.empty())
    fmt::print("{:<5} the controller cannot be driven: {}\n", host.number, refusal);
  if (host.guest) fmt::print("{:<5} a virtual machine drives the controller\n", host.number);
}

// The two tables of each host, for programs; and what the rails and the processes count.
json json_of(const json& status) {
  const auto list = [&](const json& object, const char* key) {
    return object.value(key, json::array());
  };
  return {{"host", status.value("host", 0)},
          {"name", status.value("name", "")},
          {"devices", list(status, "ports")},
          {"cables", list(status.value("router", json::object()), "ports")},
          {"rails", list(status, "links")},
          {"controller", status.value("controller", json::object())},
          {"processes", list(status, "processes")}};
}

void print(const DeviceOptions& o, const std::vector<json>& hosts) {
  if (o.as_json) {
    json all = json::array();
    for (const json& status : hosts) all.push_back(json_of(status));
    fmt::print("{}\n", fabric::json_dump(all));
    return;
  }
  if (o.cables) {
    fmt::print("{:<5} {:<5} {:<6} {:<11} {:<13} {}\n", "host", "port", "cable", "state", "speed",
               "peer");
  } else {
    fmt::print("{:<5} {:<7} {:<6} {:<17} {:<7} {}\n", "host", "device", "lid", "guid", "state",
               "gids");
  }
  for (const json& status : hosts) o.cables ? print_cables(status) : print_devices(status);
}

void run(const DeviceOptions& o, bool names_one) {
  if (is_about_own_host(names_one)) return print(o, {own_status_or_fail()});
  const fabric::FabricFile file = load_fabric(o.fabric);
  if (o.host && *o.host >= file.hosts) {
    fail(fmt::format("fabric '{}' has hosts 0 to {}, no host {}", o.fabric, file.hosts - 1,
                     *o.host));
  }
  std::vector<json> hosts;
  for (uint32_t h = o.host.value_or(0); h <= o.host.value_or(file.hosts - 1); h++) {
    hosts.push_back(status_or_fail(o.fabric, h));
  }
  print(o, hosts);
}

}  // namespace

void add_devices(CLI::App& app) {
  auto o = std::make_shared<DeviceOptions>();
  CLI::App* command = app.add_subcommand(
      "devices", "List the verbs devices of the hosts, or what is at the ends of their cables");
  command->add_option("--fabric", o->fabric, "name of the fabric")->capture_default_str();
  command->add_option("--host", o->host, "only this host");
  command->add_flag("--cables", o->cables, "the ports: state, speed, peer with its services, path");
  command->add_flag("--json", o->as_json, "devices and cables as JSON");
  command->callback(
      [o, command] { run(*o, command->count("--fabric") + command->count("--host") > 0); });
}

}  // namespace tbt::tool
