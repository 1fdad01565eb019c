// tbtd: the daemon of one host. `tbt fabric up` starts it with the fabric's descriptors from number
// 3 on; its standard error is its log.
#include <fcntl.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>

#include "fabric/open_host.h"
#include "tbtd/daemon.h"
#include "tbtd/guest_keeper.h"

namespace {

constexpr int kFirstInherited = 3;

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

template <typename Server>
int serve(const tbt::daemon::DaemonOptions& options) {
  auto fds = take_inherited(tbt::fabric::descriptors_of(options.hosts));
  if (fds.empty()) {
    spdlog::error("the fabric's descriptors are missing: start it with 'tbt fabric up'");
    return 1;
  }
  auto daemon = Server::start(options, std::move(fds));
  if (!daemon) {
    spdlog::error("{}: {}", daemon.error().text(), strerror(daemon.error().code()));
    return 1;
  }
  daemon.value()->run();
  return 0;
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
    return guest ? serve<tbt::daemon::GuestKeeper>(options) : serve<tbt::daemon::Daemon>(options);
  } catch (const std::exception& e) {
    spdlog::error("{}", e.what());
    return 1;
  }
}
