// tbt: one command with subcommands, each in a file of its name.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <vector>

#include "tbt/commands.h"

namespace tbt::tool {

void fail(const std::string& message, int code) {
  fmt::print(stderr, "tbt: {}\n", message);
  throw CLI::RuntimeError(code);
}

}  // namespace tbt::tool

namespace {

// Takes "--" and what follows it away from `argc`: those words are another program's, not ours to
// parse.
std::vector<std::string> split_at_dashes(int& argc, char** argv) {
  char** const end = argv + argc;
  char** const dashes = std::find(argv, end, std::string_view("--"));
  argc = static_cast<int>(dashes - argv);
  return dashes == end ? std::vector<std::string>() : std::vector<std::string>(dashes + 1, end);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> after_dashes = split_at_dashes(argc, argv);
  CLI::App app{"RDMA over Thunderbolt cables, real and emulated."};
  app.set_version_flag("--version", TBT_VERSION);
  app.require_subcommand(1);
  tbt::tool::add_fabric(app);
  tbt::tool::add_run(app, after_dashes);
  tbt::tool::add_devices(app);
  tbt::tool::add_topo(app);
  tbt::tool::add_cable(app);
  tbt::tool::add_gid(app);
  tbt::tool::add_bind(app);
  tbt::tool::add_nhi(app);
#ifdef TBT_HAS_DUMP
  tbt::tool::add_dump(app);
#endif
#ifdef TBT_HAS_DOCTOR
  tbt::tool::add_doctor(app);
#endif
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();  // fail() has said what is wrong
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --version, --help-all
    const bool unknown = app.get_subcommands().empty() && !app.remaining().empty();
    const std::string what =
        unknown ? "no command is called '" + app.remaining()[0] + "'" : e.what();
    fmt::print(stderr, "tbt: {}; see 'tbt --help'\n", what);
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "tbt: {}\n", e.what());
    return 1;
  }
  return 0;
}
