// tbtd: the daemon of one host, and the keeper that replaces it when it is killed. `tbt fabric up`
// starts the keeper with the fabric's descriptors from number 3 on; its standard error is the log
// of both.
#include <fcntl.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>

#include "fabric/open_host.h"
#include "sys/unix_socket.h"
#include "tbtd/daemon.h"
#include "tbtd/guest_keeper.h"
#include "tbtd/keeper.h"
#include "tbtd/pid_file.h"

namespace {

constexpr int kFirstInherited = 3;
constexpr int kBacklog = 64;

// Empty if any of them is not open.
std::vector<tbt::sys::UniqueFd> take_inherited(size_t count) {
  std::vector<tbt::sys::UniqueFd> fds;
  for (size_t i = 0; i < count; i++) {
    const int fd = kFirstInherited + static_cast<int>(i);
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return {};
    fds.emplace_back(fd);
  }
  return fds;
}

int complain(const tbt::Status& status) {
  spdlog::error("{}: {}", status.text(), strerror(status.code()));
  return 1;
}

int serve(const tbt::daemon::DaemonOptions& options, tbt::daemon::Inheritance all) {
  auto daemon = tbt::daemon::Daemon::start(options, std::move(all));
  if (!daemon) return complain(daemon.error());
  daemon.value()->run();
  return 0;
}

// For a virtual machine: nothing is driven, so there is nothing to go on with, and no keeper.
int lend(const tbt::daemon::DaemonOptions& options, std::vector<tbt::sys::UniqueFd> fds) {
  auto server = tbt::daemon::GuestKeeper::start(options, std::move(fds));
  if (!server) return complain(server.error());
  server.value()->run();
  return 0;
}

int keep(const tbt::daemon::DaemonOptions& options, std::vector<tbt::sys::UniqueFd> fds) {
  const std::string stem = options.directory + "/host" + std::to_string(options.host);
  const std::string pid_path = stem + ".keeper";
  const std::string socket_path = stem + ".sock";
  if (const tbt::Status s = tbt::daemon::write_pid_file(pid_path); !s) return complain(s);
  int code = 1;
  if (auto listener = tbt::sys::listen_seqpacket(socket_path, kBacklog); !listener) {
    code = complain(listener.error());
  } else {
    tbt::daemon::Keeper keeper(
        std::move(fds), std::move(listener).value(),
        [&](tbt::daemon::Inheritance all) { return serve(options, std::move(all)); });
    code = keeper.run();
    ::unlink(socket_path.c_str());
  }
  ::unlink(pid_path.c_str());
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  auto logger = spdlog::stderr_logger_st("tbtd");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);

  tbt::daemon::DaemonOptions options;
  CLI::App app{"The daemon of one host; started by 'tbt fabric up'."};
  app.add_option("--fabric", options.fabric, "name of the fabric")->required();
  app.add_option("--directory", options.directory, "where the socket and the pid file go")
      ->required();
  app.add_option("--host", options.host, "number of this host, from 0")->required();
  app.add_option("--hosts", options.hosts, "number of hosts")->required()->check(CLI::Range(2, 8));
  app.add_option("--vendor-id", options.vendor_id, "PCI vendor of the controller")->required();
  app.add_option("--device-id", options.device_id, "PCI device of the controller")->required();
  bool guest = false;
  app.add_flag("--guest", guest, "leave the host to a virtual machine");
  CLI11_PARSE(app, argc, argv);
  try {
    auto fds = take_inherited(tbt::fabric::descriptors_of(options.hosts));
    if (fds.empty()) {
      spdlog::error("the fabric's descriptors are missing: start it with 'tbt fabric up'");
      return 1;
    }
    return guest ? lend(options, std::move(fds)) : keep(options, std::move(fds));
  } catch (const std::exception& e) {
    spdlog::error("{}", e.what());
    return 1;
  }
}
