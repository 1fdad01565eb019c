#include "tbt/fabric.h"

#include "tbt/commands.h"

namespace tbt::tool {

void add_fabric(CLI::App& app) {
  CLI::App* fabric =
      app.add_subcommand("fabric", "Emulated fabrics: hosts and cables without hardware");
  fabric->require_subcommand(1);
  add_fabric_up(*fabric);
  add_fabric_down(*fabric);
  add_fabric_status(*fabric);
  add_fabric_serve(*fabric);
  add_fabric_remove(*fabric);
}

}  // namespace tbt::tool
