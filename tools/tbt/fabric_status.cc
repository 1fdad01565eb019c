// tbt fabric status: what the daemons of the fabrics say of themselves.
#include <fmt/format.h>

#include <memory>

#include "fabric/json_text.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/fabric.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

struct StatusOptions {
  std::string name;
  bool as_json = false;
};

void print_link(const json& link) {
  fmt::print("    {:<8} cable {:<3} {:<11} {:<8} {} Gb/s\n", link.value("device", "?"),
             link.value("cable", 0), link.value("state", "?"), link.value("peer", "-"),
             link.value("speed_gbps", 0));
}

void print_host(const json& host) {
  if (host.contains("error")) {
    fmt::print("  host {}  {}\n", host.value("host", 0), host.value("error", ""));
    return;
  }
  if (host.contains("guest")) {
    const int player = host["guest"].value("served_by", 0);
    fmt::print("  host {}  pid {}  virtual machine, {}\n", host.value("host", 0),
               host.value("pid", 0),
               player == 0 ? "not served" : fmt::format("served by {}", player));
    return;
  }
  const json ports = host.value("ports", json::array());
  fmt::print("  host {}  pid {}  lid {}\n", host.value("host", 0), host.value("pid", 0),
             ports.empty() ? 0 : ports[0].value("lid", 0));
  for (const json& link : host.value("links", json::array())) print_link(link);
  for (const json& process : host.value("processes", json::array())) {
    fmt::print("    process {} in slot {}\n", process.value("pid", 0), process.value("slot", 0));
  }
}

void run(const StatusOptions& o) {
  std::vector<std::string> names = fabric_names();
  if (!o.name.empty()) names = {o.name};
  json reports = json::array();
  for (const std::string& name : names) reports.push_back(fabric_report(name));
  if (o.as_json) {
    fmt::print("{}\n", fabric::json_dump(reports));
    return;
  }
  if (reports.empty()) fmt::print("no fabric is up\n");
  for (const json& report : reports) {
    fmt::print("fabric '{}'  {}  in {}\n", report.value("name", ""), report.value("topology", ""),
               report.value("directory", ""));
    for (const json& host : report["hosts"]) print_host(host);
  }
}

}  // namespace

void add_fabric_status(CLI::App& fabric) {
  auto o = std::make_shared<StatusOptions>();
  CLI::App* status = fabric.add_subcommand("status", "Show the fabrics that are up");
  status->add_option("--name", o->name, "only this fabric");
  status->add_flag("--json", o->as_json, "as JSON");
  status->callback([o] { run(*o); });
}

}  // namespace tbt::tool
