// tbt cable: what the cables of an emulated fabric do to frames, shown and changed while it runs.
#include <fmt/format.h>

#include <charconv>
#include <memory>

#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

struct CableOptions {
  std::string fabric = "default";
  std::string cable;
  std::vector<std::string> settings;
};

// A number, or "0-1": the first cable between two hosts.
uint32_t find_cable(const CableOptions& o) {
  const fabric::FabricFile file = load_fabric(o.fabric);
  for (uint32_t c = 0; c < file.cables.size(); c++) {
    const auto& ends = file.cables[c];
    if (o.cable == std::to_string(c) || o.cable == fmt::format("{}-{}", ends.host_a, ends.host_b) ||
        o.cable == fmt::format("{}-{}", ends.host_b, ends.host_a)) {
      return c;
    }
  }
  fail(
      fmt::format("fabric '{}' has no cable '{}': 'tbt cable list' shows them", o.fabric, o.cable));
}

void list(const CableOptions& o) {
  const fabric::FabricFile file = load_fabric(o.fabric);
  const json status = status_or_fail(o.fabric, 0);
  for (const json& cable : status.value("cables", json::array())) {
    fmt::print("cable {}  hosts {}-{} ", cable.value("cable", 0), cable.value("a", 0),
               cable.value("b", 0));
    for (size_t i = 0; i < fabric::kCableFields; i++) {
      const char* name = fabric::cable_field_name(static_cast<fabric::CableField>(i));
      fmt::print(" {} {}", name, cable.value(name, uint64_t{0}));
    }
    fmt::print("\n");
  }
}

void set(const CableOptions& o) {
  const uint32_t cable = find_cable(o);
  fabric::CableSettings settings;
  for (const std::string& text : o.settings) {
    if (const std::string wrong = fabric::parse_cable_text(text, settings); !wrong.empty())
      fail(wrong);
  }
  change_cable_or_fail(o.fabric, cable, settings);
}

void plug(const CableOptions& o, bool plugged) {
  fabric::CableSettings settings;
  settings.values[fabric::kPlugged] = plugged ? 1 : 0;
  change_cable_or_fail(o.fabric, find_cable(o), settings);
}

}  // namespace

void add_cable(CLI::App& app) {
  auto o = std::make_shared<CableOptions>();
  CLI::App* command =
      app.add_subcommand("cable", "Show and change the cables of an emulated fabric");
  command->add_option("--fabric", o->fabric, "name of the fabric")->capture_default_str();
  command->require_subcommand(1);
  command->fallthrough();
  const auto add = [&](const char* name, const char* what) {
    return command->add_subcommand(name, what);
  };
  const auto name_cable = [&](CLI::App* c) {
    c->add_option("cable", o->cable, "its number, or the hosts it joins: 0-1")->required();
  };
  CLI::App* list_command = add("list", "Show the cables");
  list_command->callback([o] { list(*o); });
  CLI::App* set_command = add("set", "Change a cable, e.g. set 0 drop=1% latency=2us");
  name_cable(set_command);
  set_command->add_option("settings", o->settings, "a preset, or key=value")->required();
  set_command->callback([o] { set(*o); });
  CLI::App* unplug_command = add("unplug", "Pull a cable");
  name_cable(unplug_command);
  unplug_command->callback([o] { plug(*o, false); });
  CLI::App* plug_command = add("plug", "Put a cable in again");
  name_cable(plug_command);
  plug_command->callback([o] { plug(*o, true); });
}

}  // namespace tbt::tool
