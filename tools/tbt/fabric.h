// The subcommands of `tbt fabric`, which fabric.cc puts together.
#pragma once

#include <CLI/CLI.hpp>

namespace tbt::tool {

void add_fabric_up(CLI::App& fabric);
void add_fabric_down(CLI::App& fabric);
void add_fabric_status(CLI::App& fabric);
void add_fabric_serve(CLI::App& fabric);
void add_fabric_remove(CLI::App& fabric);

}  // namespace tbt::tool
