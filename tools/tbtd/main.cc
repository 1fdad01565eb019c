// tbtd: the daemon of one host, and the keeper that replaces it when it is killed; its standard
// error is the log of both. The host's controller is either a PCI device of this machine
// (`--controller`), or a part of an emulated fabric: then `tbt fabric up` starts it with the
// fabric's descriptors from number 3 on.
#include <fcntl.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstring>
#include <map>

#include "fabric/open_host.h"
#include "sys/unix_socket.h"
#include "tbtd/daemon.h"
#include "tbtd/guest_keeper.h"
#include "tbtd/keeper.h"
#include "tbtd/pid_file.h"
#include "tbtd/vfio_hardware.h"

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

int keep(const tbt::daemon::DaemonOptions& options, std::vector<tbt::sys::UniqueFd> hardware) {
  const std::string pid_path = options.stem + ".keeper";
  const std::string socket_path = options.stem + ".sock";
  if (const tbt::Status s = tbt::daemon::write_pid_file(pid_path); !s) return complain(s);
  int code = 1;
  if (auto listener = tbt::sys::listen_seqpacket(socket_path, kBacklog); !listener) {
    code = complain(listener.error());
  } else {
    tbt::daemon::Keeper keeper(
        std::move(hardware), std::move(listener).value(),
        [&](tbt::daemon::Inheritance all) { return serve(options, std::move(all)); });
    code = keeper.run();
    ::unlink(socket_path.c_str());
  }
  ::unlink(pid_path.c_str());
  return code;
}

int serve_fabric(tbt::daemon::DaemonOptions& options, bool guest) {
  auto fds = take_inherited(tbt::fabric::descriptors_of(options.hosts));
  if (fds.empty()) {
    spdlog::error("the fabric's descriptors are missing: start it with 'tbt fabric up'");
    return 1;
  }
  const std::string name = "host" + std::to_string(options.host);
  options.stem += "/" + name;
  options.host_name = name;
  return guest ? lend(options, std::move(fds)) : keep(options, std::move(fds));
}

// The holder outlives every daemon, and lets the controller go last.
int serve_machine(tbt::daemon::DaemonOptions& options) {
  if (::mkdir(options.stem.c_str(), 0755) != 0 && errno != EEXIST) {
    return complain(tbt::Status(errno, "cannot make the folder of the socket"));
  }
  options.stem += "/tbtd";
  if (const tbt::Status s = tbt::daemon::clear_remains(options.stem); !s) return complain(s);
  auto holder = tbt::daemon::VfioHolder::open(options.controller, options.ports);
  if (!holder) return complain(holder.error());
  auto handles = holder.value()->copies();
  if (!handles) return complain(handles.error());
  spdlog::info("controller {} is open, processes attach at {}.sock", options.controller,
               options.stem);
  return keep(options, std::move(handles).value());
}

std::string machine_name() {
  std::array<char, 65> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "host";
  return name.data();
}

std::map<std::string, uint32_t> flow_choices() {
  using namespace tbt::wire::tb;
  return {{"auto", kPathFeatureE2e | kPathFeatureCredits},
          {"e2e", kPathFeatureE2e},
          {"credits", kPathFeatureCredits},
          {"none", 0}};
}

}  // namespace

int main(int argc, char** argv) {
  auto logger = spdlog::stderr_logger_st("tbtd");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);

  tbt::daemon::DaemonOptions options;
  options.stem = "/run/tbt";
  options.fabric = "default";
  options.host_name = machine_name();
  options.ports = tbt::daemon::kPortsMax;
  CLI::App app{"The daemon of one host. 'tbt fabric up' starts those of an emulated fabric."};
  app.add_option("--fabric", options.fabric, "name of the fabric, the same on all its hosts")
      ->capture_default_str();
  app.add_option("--directory", options.stem, "where the socket and the pid files go")
      ->capture_default_str();
  app.add_option("--host", options.host, "number of this host, from 0, no other host's")
      ->required()
      ->check(CLI::Range(0u, tbt::rail::emulated::kHostsMax - 1));
  auto* controller = app.add_option("--controller", options.controller,
                                    "PCI address of the controller, bound with 'tbt bind'");
  app.add_option("--ports", options.ports, "ports of the controller that are used")
      ->check(CLI::Range(1u, tbt::daemon::kPortsMax))
      ->needs(controller)
      ->capture_default_str();
  app.add_flag("!--no-direct", options.direct,
               "copy all payload: processes cannot map their memory for the controller")
      ->needs(controller);
  app.add_option("--name", options.host_name, "name of this host; else the machine's")
      ->needs(controller);
  app.add_option(
         "--flow-control", options.flow_features,
         "offered to peers: auto (the hardware's end-to-end credits where a self-test finds "
         "them to work, else credits in software), e2e (the hardware's, untested), credits "
         "(in software), none")
      ->transform(CLI::CheckedTransformer(flow_choices()).description("auto, e2e, credits or none"))
      ->default_str("auto");
  auto* hosts = app.add_option("--hosts", options.hosts, "hosts of the emulated fabric")
                    ->check(CLI::Range(2, 8))
                    ->excludes(controller);
  app.add_option("--vendor-id", options.vendor_id, "PCI vendor of the emulated controller")
      ->excludes(controller);
  app.add_option("--device-id", options.device_id, "PCI device of the emulated controller")
      ->excludes(controller);
  bool guest = false;
  app.add_flag("--guest", guest, "leave the emulated host to a virtual machine")
      ->excludes(controller);
  CLI11_PARSE(app, argc, argv);
  if (!controller->count() && !hosts->count()) {
    return complain(tbt::Status(EINVAL, "which controller? --controller, or 'tbt fabric up'"));
  }
  try {
    return controller->count() ? serve_machine(options) : serve_fabric(options, guest);
  } catch (const std::exception& e) {
    spdlog::error("{}", e.what());
    return 1;
  }
}
