// tbt doctor: what this machine has and lacks, one line per check, and what to do next.
#include "tbt/doctor.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "fabric/fabric_file.h"
#include "fabric/json_text.h"
#include "sys/file_look.h"
#include "sys/process.h"
#include "tbt/commands.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

using sys::exists;

struct DoctorOptions {
  bool as_json = false;
  std::string root;
};

uint64_t limit_of(__rlimit_resource_t resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

// Beside the programs' folder, as `tbt run` looks for it.
std::string find_front_door_dir() {
  const std::string self = sys::own_program_path();
  const std::string bin = self.substr(0, self.rfind('/'));
  const std::string prefix = bin.substr(0, bin.rfind('/'));
  const std::string installed = prefix + "/" + TBT_LIBDIR + "/tbt-rdma";
  return exists(installed + "/libibverbs.so.1") ? installed : prefix + "/lib/tbt-rdma";
}

Machine this_machine(const std::string& root) {
  utsname names{};
  ::uname(&names);
  return {.root = root,
          .kernel_release = names.release,
          .memlock_bytes = limit_of(RLIMIT_MEMLOCK),
          .open_files = limit_of(RLIMIT_NOFILE),
          .front_door_dir = find_front_door_dir(),
          .runtime_dir = runtime_dir()};
}

Check check_fabric(const std::string& name) {
  Check check{.name = "fabric " + name};
  const std::string end = fmt::format("tbt fabric down --name {}", name);
  std::ifstream in(fabric_dir(name) + "/fabric.json");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  fabric::FabricFile file;
  if (!fabric::parse_fabric_file(text, file).empty()) {
    return {.name = check.name,
            .result = CheckResult::kFix,
            .text = "stale: its file is damaged",
            .next = end};
  }
  uint32_t running = 0;
  for (uint32_t host = 0; host < file.hosts; ++host) running += find_daemon(name, host) ? 1 : 0;
  check.text = fmt::format("{} of {} hosts running", running, file.hosts);
  if (running != file.hosts) {
    check.result = CheckResult::kFix;
    check.text += running == 0 ? " (stale)" : " (daemons have died)";
    check.next = end + ", then up again";
  }
  return check;
}

std::vector<Check> check_fabrics() {
  std::vector<Check> checks;
  for (const std::string& name : fabric_names()) checks.push_back(check_fabric(name));
  if (checks.empty()) {
    checks.push_back({.name = "fabrics",
                      .result = CheckResult::kMissing,
                      .text = "no emulated fabric is up",
                      .next = "tbt fabric up --hosts 2"});
  }
  return checks;
}

void print_json(const std::vector<Check>& checks) {
  nlohmann::json list = nlohmann::json::array();
  for (const Check& check : checks) {
    list.push_back({{"name", check.name},
                    {"result", check_result_name(check.result)},
                    {"text", check.text},
                    {"next", check.next},
                    {"needed", check.needed}});
  }
  fmt::print("{}\n", fabric::json_dump(list));
}

void print_text(const std::vector<Check>& checks) {
  for (const Check& check : checks) {
    fmt::print("{:<8} {:<16} {}{}{}\n", check_result_name(check.result), check.name, check.text,
               check.next.empty() ? "" : "; ", check.next);
  }
}

void run(const DoctorOptions& o) {
  std::vector<Check> checks = check_machine(this_machine(o.root));
  // Daemons are processes of the machine itself, not of a folder.
  if (o.root.empty()) {
    for (Check& check : check_fabrics()) checks.push_back(std::move(check));
  }
  o.as_json ? print_json(checks) : print_text(checks);
  const int code = exit_code_of(checks);
  if (code != 0)
    fail("the emulated fabric does not work before the lines marked fix are mended", code);
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto o = std::make_shared<DoctorOptions>();
  CLI::App* command = app.add_subcommand("doctor", "Say what this machine has and lacks");
  command->add_flag("--json", o->as_json, "as JSON");
  command->add_option("--root", o->root, "look at the files below this folder, not at /");
  command->callback([o] { run(*o); });
}

}  // namespace tbt::tool
