// tbt gid: gives a port of a host another GID beside its own two, as an administrator gives an
// interface another address, or takes it away.
#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "tbt/commands.h"
#include "tbt/daemon_client.h"

namespace tbt::tool {
namespace {

struct GidOptions {
  std::string fabric = "default";
  uint32_t host = 0;
  std::string device = "tbt0";
  std::string address;
};

// IPv6, or IPv4, which is mapped.
wire::GidBytes parse_address(const std::string& text) {
  wire::GidBytes gid{};
  if (::inet_pton(AF_INET6, text.c_str(), gid.data()) == 1) return gid;
  gid = {};
  gid[10] = gid[11] = 0xff;
  if (::inet_pton(AF_INET, text.c_str(), gid.data() + 12) == 1) return gid;
  fail(fmt::format("'{}' is neither an IPv6 nor an IPv4 address", text));
}

// tbt0 is port 0, tbt0cK is port K + 1.
uint32_t parse_device(const std::string& text) {
  if (text == "tbt0") return 0;
  uint32_t cable = 0;
  const char* const end = text.data() + text.size();
  if (text.starts_with("tbt0c") && std::from_chars(text.data() + 5, end, cable).ptr == end &&
      cable + 1 < wire::kPortsMax) {
    return cable + 1;
  }
  fail(fmt::format("no device is called '{}': it is tbt0, tbt0c0, ...", text));
}

void change(const GidOptions& o, bool present) {
  tell_or_fail(o.fabric, o.host,
               {.operation = fabric::Operation::kGid,
                .port = parse_device(o.device),
                .gid = parse_address(o.address),
                .present = present});
}

}  // namespace

void add_gid(CLI::App& app) {
  auto o = std::make_shared<GidOptions>();
  CLI::App* command = app.add_subcommand("gid", "Give a port another GID, or take it away");
  command->require_subcommand(1);
  command->fallthrough();
  command->add_option("--fabric", o->fabric, "name of the fabric")->capture_default_str();
  command->add_option("--host", o->host, "whose port")->capture_default_str();
  command->add_option("--device", o->device, "tbt0, or tbt0cK of its cable K")
      ->capture_default_str();
  for (const bool present : {true, false}) {
    CLI::App* change_command = command->add_subcommand(
        present ? "add" : "remove", present ? "Give it" : "Take one away that was added");
    change_command->add_option("address", o->address, "IPv6 or IPv4")->required();
    change_command->callback([o, present] { change(*o, present); });
  }
}

}  // namespace tbt::tool
