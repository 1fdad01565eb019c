// tbt fabric down: asks each daemon to end, waits, kills what does not, and removes the files.
// Works as well when the daemons were killed before, or when the fabric's file is missing or
// damaged.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "sys/monotonic_clock.h"
#include "tbt/commands.h"
#include "tbt/fabric.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

constexpr Duration kGrace = Duration::from_s(3);
constexpr Duration kAfter = Duration::from_ms(500);  // a keeper after its daemon
constexpr int kKillTimeoutMs = 2000;

struct DownOptions {
  std::string name = "default";
  bool named = false;
  bool all = false;
};

// What runs of a host. The keeper is told first, so that it does not replace the daemon.
struct Host {
  sys::UniqueFd keeper;
  sys::UniqueFd daemon;
};

sys::UniqueFd open_found(const std::optional<sys::ProcessName>& found) {
  if (!found) return {};
  auto process = sys::open_process(*found);
  return process ? std::move(process).value() : sys::UniqueFd();
}

// Handles on the fabric's processes: from here on no pid is used any more.
std::vector<Host> open_hosts(const std::string& name) {
  std::vector<Host> hosts;
  for (uint32_t h = 0; h < rail::emulated::kHostsMax; h++) {
    Host host{open_found(find_keeper(name, h)), open_found(find_daemon(name, h))};
    if (host.keeper || host.daemon) hosts.push_back(std::move(host));
  }
  return hosts;
}

// True if it ended of its own accord.
bool end_process(const sys::UniqueFd& process, Instant deadline) {
  if (!process) return true;
  const Duration left = deadline - sys::monotonic_now();
  const auto left_ms = static_cast<int>(std::max<int64_t>(left.ns / 1000000, 0));
  if (sys::wait_for_exit(process.get(), left_ms)) return true;
  (void)sys::signal_process(process.get(), SIGKILL);
  (void)sys::wait_for_exit(process.get(), kKillTimeoutMs);
  return false;
}

void refuse_anothers(const std::string& name) {
  struct stat info {};
  const bool known = ::stat(fabric_dir(name).c_str(), &info) == 0;
  if (!known || ::geteuid() == 0 || info.st_uid == ::geteuid()) return;
  fail(fmt::format("fabric '{}' is another user's: take it down as that user", name));
}

void take_down(const std::string& name) {
  refuse_anothers(name);
  const std::vector<Host> hosts = open_hosts(name);
  for (const Host& host : hosts) {
    if (host.keeper) (void)sys::signal_process(host.keeper.get(), SIGTERM);
    if (host.daemon) (void)sys::signal_process(host.daemon.get(), SIGTERM);
  }
  const Instant deadline = sys::monotonic_now() + kGrace;
  size_t killed = 0;
  for (const Host& host : hosts) {
    const bool daemon = end_process(host.daemon, deadline);
    const bool keeper = end_process(host.keeper, std::max(deadline, sys::monotonic_now() + kAfter));
    killed += daemon && keeper ? 0 : 1;
  }
  if (!remove_fabric_dir(name)) {
    fail(fmt::format("{} holds files that are not tbt's: remove them and the folder by hand",
                     fabric_dir(name)));
  }
  fmt::print("fabric '{}' is down: {} daemon{} ended{}\n", name, hosts.size(),
             hosts.size() == 1 ? "" : "s",
             killed == 0 ? "" : fmt::format(", {} had to be killed", killed));
}

void run(const DownOptions& o) {
  if (o.all) {
    const auto names = fabric_names();
    if (names.empty()) fmt::print("no fabric is up\n");
    for (const std::string& name : names) take_down(name);
    return;
  }
  if (fabric_exists(o.name)) return take_down(o.name);
  if (o.named)
    fail(fmt::format("no fabric '{}' is up: 'tbt fabric status' lists those that are", o.name));
  fmt::print("no fabric '{}' is up\n", o.name);
}

}  // namespace

void add_fabric_down(CLI::App& fabric) {
  auto o = std::make_shared<DownOptions>();
  CLI::App* down = fabric.add_subcommand("down", "Take an emulated fabric down");
  CLI::Option* name =
      down->add_option("--name", o->name, "name of the fabric")->capture_default_str();
  down->add_flag("--all", o->all, "every fabric of this user")->excludes(name);
  down->callback([o, name] {
    o->named = name->count() > 0;
    run(*o);
  });
}

}  // namespace tbt::tool
