// tbt run: runs a program as if on one of the fabric's hosts. The program finds our libibverbs.so.1
// before the system's, and the host's daemon through TBT_SOCKET; nothing else of its surroundings
// changes.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "fabric/attach.h"
#include "sys/process.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

// As with env, nohup and timeout: our own failures are told from the program's.
constexpr int kOwnFailure = 125;
constexpr int kCannotExecute = 126;
constexpr int kNotFound = 127;

struct RunOptions {
  std::string fabric = "default";
  std::optional<uint32_t> host;  // else the one that this machine is
};

// In the build tree and where we were installed the library lies beside the programs' folder.
std::string front_door_dir() {
  const std::string self = sys::own_program_path();
  const std::string bin = self.substr(0, self.rfind('/'));
  const std::string prefix = bin.substr(0, bin.rfind('/'));
  const std::string candidates[] = {prefix + "/lib/tbt-rdma",
                                    prefix + "/" + TBT_LIBDIR + "/tbt-rdma"};
  for (const std::string& dir : candidates) {
    if (::access((dir + "/libibverbs.so.1").c_str(), R_OK) == 0) return dir;
  }
  fail(fmt::format("{}/libibverbs.so.1 is missing: build or install the whole of tbt-rdma",
                   candidates[0]));
}

void prepare_environment(const std::string& socket) {
  const std::string dir = front_door_dir();
  const char* old = ::getenv("LD_LIBRARY_PATH");
  const std::string path = old != nullptr && *old != '\0' ? dir + ":" + old : dir;
  ::setenv("LD_LIBRARY_PATH", path.c_str(), 1);
  ::setenv("TBT_SOCKET", socket.c_str(), 1);
}

[[noreturn]] void execute(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  const int error = errno;
  fail(fmt::format("cannot run '{}': {}", words[0], strerror(error)),
       error == ENOENT ? kNotFound : kCannotExecute);
}

// The library says nothing and the program knows only that it has no device, so it is said here:
// the program needs our memory of each host and a wake-up of each daemon, and files of its own.
void check_descriptors(uint32_t hosts) {
  rlimit limit{};
  const rlim_t needed = 20 + 2 * rlim_t{hosts};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
  fail(fmt::format("too few file descriptors for a program ({} may be open): ulimit -n {}",
                   limit.rlim_cur, needed));
}

// Of the daemon that serves a controller of this machine.
std::string own_socket() {
  const std::string path = fabric::daemon_socket_path();
  if (::access(path.c_str(), F_OK) != 0) {
    fail(
        fmt::format("no tbtd serves this machine (there is no {}): --host names a host of an "
                    "emulated fabric",
                    path));
  }
  (void)own_status_or_fail();
  return path;
}

std::string socket_of(const RunOptions& o) {
  if (!o.host) return own_socket();
  const fabric::FabricFile file = load_fabric(o.fabric);
  if (*o.host >= file.hosts) {
    fail(fmt::format("fabric '{}' has hosts 0 to {}, no host {}", o.fabric, file.hosts - 1,
                     *o.host));
  }
  check_descriptors(file.hosts);
  (void)status_or_fail(o.fabric, *o.host);
  return host_file(o.fabric, *o.host, "sock");
}

void run(const RunOptions& o, const std::vector<std::string>& words) {
  try {
    if (words.empty()) fail("no program is named: tbt run --host 0 -- ibv_devices");
    prepare_environment(socket_of(o));
  } catch (const CLI::RuntimeError&) {
    throw CLI::RuntimeError(kOwnFailure);
  }
  execute(words);
}

}  // namespace

void add_run(CLI::App& app, const std::vector<std::string>& after_dashes) {
  auto o = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Run a program on a host of a fabric");
  auto* host = command->add_option("--host", o->host,
                                   "number of the host of an emulated fabric, from 0; else the "
                                   "program runs on this machine's controller");
  command->add_option("--fabric", o->fabric, "name of the fabric")
      ->needs(host)
      ->capture_default_str();
  command->prefix_command();
  command->footer("Everything after -- is the program and its arguments.");
  command->callback([o, command, after_dashes] {
    std::vector<std::string> words = command->remaining();
    if (!words.empty() && !after_dashes.empty())
      words.emplace_back("--");  // one of the program's own
    words.insert(words.end(), after_dashes.begin(), after_dashes.end());
    run(*o, words);
  });
}

}  // namespace tbt::tool
