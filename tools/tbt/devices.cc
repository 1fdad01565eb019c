// tbt devices: the verbs devices of the hosts, with the addresses that their peers reach them by.
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "fabric/attach.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

struct DeviceOptions {
  std::string fabric = "default";
  std::optional<uint32_t> host;
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

// Within `tbt run` the devices of this host, without any option.
bool print_own_host() {
  if (::secure_getenv("TBT_SOCKET") == nullptr) return false;
  const std::string path = fabric::daemon_socket_path();
  const auto status = ask_status(path);
  if (!status) {
    fail(fmt::format("cannot ask the daemon at {}: {} ({})", path, status.error().text(),
                     strerror(status.error().code())));
  }
  print_devices(status.value());
  return true;
}

void run(const DeviceOptions& o, bool any_option) {
  fmt::print("{:<5} {:<7} {:<6} {:<17} {:<7} {}\n", "host", "device", "lid", "guid", "state",
             "gids");
  if (!any_option && print_own_host()) return;
  const fabric::FabricFile file = load_fabric(o.fabric);
  if (o.host && *o.host >= file.hosts) {
    fail(fmt::format("fabric '{}' has hosts 0 to {}, no host {}", o.fabric, file.hosts - 1,
                     *o.host));
  }
  for (uint32_t h = o.host.value_or(0); h <= o.host.value_or(file.hosts - 1); h++) {
    print_devices(status_or_fail(o.fabric, h));
  }
}

}  // namespace

void add_devices(CLI::App& app) {
  auto o = std::make_shared<DeviceOptions>();
  CLI::App* command = app.add_subcommand("devices", "List the verbs devices of the hosts");
  command->add_option("--fabric", o->fabric, "name of the fabric")->capture_default_str();
  command->add_option("--host", o->host, "only this host");
  command->callback(
      [o, command] { run(*o, command->count("--fabric") + command->count("--host") > 0); });
}

}  // namespace tbt::tool
