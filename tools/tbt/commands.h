// The subcommands of tbt, one file each. add_X() declares the subcommand's options on `app` and
// sets a callback that does the work when the command line names it.
//
// A command that cannot do what it was asked calls fail(): one line that says what is wrong and how
// to mend it, and an exit code that is not 0. It has then undone what it began.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace tbt::tool {

void add_fabric(CLI::App& app);  // fabric_up.cc, fabric_down.cc, fabric_status.cc
// run.cc; `after_dashes` is what stands after "--" on the command line, which the parser does not
// see.
void add_run(CLI::App& app, const std::vector<std::string>& after_dashes);
void add_devices(CLI::App& app);  // devices.cc
void add_topo(CLI::App& app);     // topo.cc
void add_cable(CLI::App& app);    // cable.cc
void add_gid(CLI::App& app);      // gid.cc
void add_dump(CLI::App& app);     // dump.cc
void add_doctor(CLI::App& app);   // doctor.cc
void add_bind(CLI::App& app);     // bind.cc: bind and unbind
void add_nhi(CLI::App& app);      // nhi.cc

// Prints "tbt: MESSAGE" to standard error and ends the command with `code`.
[[noreturn]] void fail(const std::string& message, int code = 1);

}  // namespace tbt::tool
