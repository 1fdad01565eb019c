// tbt fabric up: makes the silicon, the hosts' memories and interrupts, and starts a daemon per
// host that inherits them. If anything fails on the way, everything made so far is undone.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>

#include "fabric/cable_settings.h"
#include "fabric/directory.h"
#include "rail/emulated/emulated_fabric.h"
#include "rail/host_memory.h"
#include "sys/event_fd.h"
#include "sys/monotonic_clock.h"
#include "sys/spawn.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/fabric.h"
#include "tbt/runtime_dir.h"
#include "tbt/topology.h"

namespace tbt::tool {
namespace {

constexpr Duration kReadyTimeout = Duration::from_s(5);
constexpr int kPollMs = 5;
constexpr int kEndTimeoutMs = 2000;

struct UpOptions {
  std::string name = "default";
  uint32_t hosts = 2;
  std::string topology = "mesh";
  std::string cable = "ideal";
  uint32_t hops = 12;
  std::vector<std::string> nhi = {"intel"};  // of all hosts, or one for each
  uint64_t seed = 1;
  uint32_t cables_per_pair = 1;
  std::string flow_control = "auto";
  std::string e2e = "works";
  std::vector<uint32_t> guests;  // hosts that are left to virtual machines

  [[nodiscard]] bool is_amd(uint32_t host) const {
    return nhi[nhi.size() == 1 ? 0 : host] == "amd";
  }
  [[nodiscard]] bool is_guest(uint32_t host) const {
    return std::find(guests.begin(), guests.end(), host) != guests.end();
  }
};

volatile sig_atomic_t interrupted = 0;

// The controller that a host seems to have.
struct ControllerIds {
  uint16_t vendor = 0, device = 0;
};
ControllerIds controller_ids(bool amd) {
  if (amd) return {0x1022, 0x158d};  // Strix Halo
  return {0x8086, 0x5781};           // Barlow Ridge, 80 Gb/s
}

// A fabric that is being made. Unless keep() is called, it is taken down again.
class Construction {
 public:
  explicit Construction(std::string name) : name_(std::move(name)) {}
  Construction(const Construction&) = delete;
  Construction& operator=(const Construction&) = delete;
  ~Construction() {
    if (kept_) return;
    for (const pid_t pid : daemons_) end(pid);
    if (made_dir_) remove_fabric_dir(name_);
  }

  void make_dir();
  void start_daemon(const sys::SpawnOptions& options, uint32_t host);
  // Fails with the last line of the log if a daemon has ended.
  void check_daemons();
  void keep() { kept_ = true; }

 private:
  static void end(pid_t pid);
  [[nodiscard]] std::string last_log_line(uint32_t host) const;

  std::string name_;
  // By host: the keepers, our children, so the pids cannot be another's. Each leads a process group
  // with its daemon.
  std::vector<pid_t> daemons_;
  bool made_dir_ = false;
  bool kept_ = false;
};

void Construction::make_dir() {
  make_runtime_dir();
  (void)host_file(name_, rail::emulated::kHostsMax - 1, "sock");  // is the path short enough?
  if (::mkdir(fabric_dir(name_).c_str(), 0700) == 0) {
    made_dir_ = true;
    return;
  }
  if (errno != EEXIST) fail(fmt::format("cannot make {}: {}", fabric_dir(name_), strerror(errno)));
  bool alive = false;
  for (uint32_t h = 0; h < rail::emulated::kHostsMax; h++)
    alive = alive || find_keeper(name_, h) || find_daemon(name_, h);
  if (alive) {
    fail(fmt::format(
        "fabric '{0}' is up already: use it, end it with 'tbt fabric down --name {0}', or "
        "take another --name",
        name_));
  }
  fail(fmt::format(
      "fabric '{0}' was left behind by daemons that died: clean up with 'tbt fabric down "
      "--name {0}'",
      name_));
}

void Construction::start_daemon(const sys::SpawnOptions& options, uint32_t host) {
  const auto pid = sys::spawn_daemon(options);
  if (!pid) {
    const bool files = pid.error().code() == EMFILE;
    fail(fmt::format("cannot start the daemon of host {}: {}: {} ({}){}", host, options.program,
                     pid.error().text(), strerror(pid.error().code()),
                     files ? "; allow more: ulimit -n 1024" : ""));
  }
  daemons_.push_back(pid.value());
}

void Construction::check_daemons() {
  for (uint32_t h = 0; h < daemons_.size(); h++) {
    if (::waitpid(daemons_[h], nullptr, WNOHANG) == 0) continue;
    daemons_.erase(daemons_.begin() + h);
    fail(fmt::format("the daemon of host {} ended: {}", h, last_log_line(h)));
  }
}

std::string Construction::last_log_line(uint32_t host) const {
  std::ifstream log(host_file(name_, host, "log"));
  std::string last = "it said nothing";
  for (std::string line; std::getline(log, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

void Construction::end(pid_t pid) {
  ::kill(pid, SIGTERM);
  if (const auto process = sys::open_pidfd(pid); process) {
    if (!sys::wait_for_exit(process.value().get(), kEndTimeoutMs)) ::kill(-pid, SIGKILL);
  }
  ::waitpid(pid, nullptr, 0);
}

template <typename T>
T value_or_fail(Result<T> result, const char* what) {
  if (!result) {
    const int code = result.error().code();
    const char* hint = code == EMFILE   ? "; raise the limit on open files, ulimit -n"
                       : code == ENOMEM ? "; free memory or use fewer hosts"
                                        : "";
    fail(fmt::format("cannot make {}: {} ({}){}", what, result.error().text(), strerror(code),
                     hint));
  }
  return std::move(result).value();
}

struct Parts {
  std::unique_ptr<rail::emulated::EmulatedFabric> silicon;
  std::vector<std::unique_ptr<rail::HostMemory>> memories;
  std::vector<sys::UniqueFd> interrupts;

  [[nodiscard]] std::vector<int> fds() const {
    std::vector<int> out{silicon->fd()};
    for (const auto& memory : memories) out.push_back(memory->fd());
    for (const auto& interrupt : interrupts) out.push_back(interrupt.get());
    return out;
  }
};

uint32_t cables_of(const fabric::FabricFile& file, uint32_t host) {
  uint32_t n = 0;
  for (const auto& c : file.cables)
    n += (c.host_a == host ? 1u : 0u) + (c.host_b == host ? 1u : 0u);
  return n;
}

Parts make_parts(const UpOptions& o, const fabric::FabricFile& file) {
  fabric::CableSettings settings;
  if (const std::string wrong = fabric::parse_cable_text(o.cable, settings); !wrong.empty())
    fail(wrong);
  rail::emulated::FabricConfig config;
  config.hosts = o.hosts;
  config.hop_count = o.hops;
  for (uint32_t h = 0; h < o.hosts; h++) config.amd |= (o.is_amd(h) ? 1u : 0u) << h;
  config.e2e = o.e2e != "absent";
  config.e2e_sticks = o.e2e == "sticks";
  config.seed = o.seed;
  config.fixed_paths = false;  // the connection managers set them
  for (const uint32_t guest : o.guests) config.guests |= 1u << guest;
  config.cables = file.cables;
  config.params.resize(file.cables.size());
  for (auto& params : config.params) fabric::apply_settings(settings, params);
  Parts parts;
  parts.silicon =
      value_or_fail(rail::emulated::EmulatedFabric::create(config), "the emulated controllers");
  for (uint32_t h = 0; h < o.hosts; h++) {
    rail::HostConfig host;
    host.cables = cables_of(file, h);
    parts.memories.push_back(value_or_fail(rail::HostMemory::create(host), "a host's memory"));
    parts.interrupts.push_back(value_or_fail(sys::make_eventfd(), "a host's interrupt"));
  }
  return parts;
}

sys::SpawnOptions daemon_options(const UpOptions& o, const Parts& parts, uint32_t host) {
  const std::string self = sys::own_program_path();
  const ControllerIds ids = controller_ids(o.is_amd(host));
  sys::SpawnOptions s;
  s.program = self.substr(0, self.rfind('/') + 1) + "tbtd";
  s.arguments = {"--fabric",       o.name,
                 "--directory",    fabric_dir(o.name),
                 "--host",         std::to_string(host),
                 "--hosts",        std::to_string(o.hosts),
                 "--vendor-id",    std::to_string(ids.vendor),
                 "--device-id",    std::to_string(ids.device),
                 "--flow-control", o.flow_control};
  if (o.is_guest(host)) s.arguments.emplace_back("--guest");
  s.fds = parts.fds();
  s.log_path = host_file(o.name, host, "log");
  return s;
}

bool leads_to_guest(const UpOptions& o, const fabric::FabricFile& file, uint32_t cable) {
  if (cable >= file.cables.size()) return false;
  return o.is_guest(file.cables[cable].host_a) || o.is_guest(file.cables[cable].host_b);
}

// Every plugged cable of the host has had its hello; virtual machines say hello when they run.
bool is_ready(const UpOptions& o, const fabric::FabricFile& file, uint32_t host) {
  const auto status = ask_status(host_file(o.name, host, "sock"));
  if (!status || !status.value().contains("links")) return false;
  for (const auto& link : status.value()["links"]) {
    if (leads_to_guest(o, file, link.value("cable", UINT32_MAX))) continue;
    const std::string state = link.value("state", "");
    if (state != "up" && state != "unplugged") return false;
  }
  return true;
}

void await_hellos(const UpOptions& o, const fabric::FabricFile& file, Construction& construction) {
  const Instant deadline = sys::monotonic_now() + kReadyTimeout;
  for (uint32_t host = 0; host < o.hosts;) {
    if (interrupted != 0) fail("interrupted: the fabric was taken down again", 130);
    construction.check_daemons();
    if (is_ready(o, file, host)) {
      host++;
    } else if (sys::monotonic_now() > deadline) {
      fail(
          fmt::format("host {} did not get through to its peers within 5 s: does the cable lose "
                      "everything (--cable {})?",
                      host, o.cable));
    } else {
      ::usleep(kPollMs * 1000);
    }
  }
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void run(const UpOptions& o) {
  for (const uint32_t guest : o.guests) {
    if (guest >= o.hosts)
      fail(fmt::format("there is no host {}: --guest is 0 to {}", guest, o.hosts - 1));
  }
  if (o.nhi.size() != 1 && o.nhi.size() != o.hosts)
    fail(fmt::format("--nhi has {} flavours for {} hosts: one for all, or one for each",
                     o.nhi.size(), o.hosts));
  fabric::FabricFile file{o.name, o.hosts, o.topology, o.hops, o.seed, {}};
  const TopologyWish wish{o.topology, o.hosts, o.cables_per_pair, o.hops};
  if (const std::string wrong = lay_cables(wish, file.cables); !wrong.empty()) fail(wrong);
  const Parts parts = make_parts(o, file);
  catch_interrupts();
  Construction construction(o.name);
  construction.make_dir();
  for (uint32_t h = 0; h < o.hosts; h++) construction.start_daemon(daemon_options(o, parts, h), h);
  await_hellos(o, file, construction);
  save_fabric(file);
  construction.keep();
  fmt::print("fabric '{}' is up: {} hosts, {} cable{}\n", o.name, o.hosts, file.cables.size(),
             file.cables.size() == 1 ? "" : "s");
}

}  // namespace

void add_fabric_up(CLI::App& fabric) {
  auto o = std::make_shared<UpOptions>();
  CLI::App* up = fabric.add_subcommand("up", "Bring an emulated fabric up");
  up->add_option("--name", o->name, "name of the fabric")->capture_default_str();
  up->add_option("--hosts", o->hosts, "number of hosts, 2 to 8")
      ->check(CLI::Range(2u, rail::emulated::kHostsMax))
      ->capture_default_str();
  up->add_option("--topology", o->topology, "mesh, ring, chain or pairs:0-1,1-2,...")
      ->capture_default_str();
  up->add_option("--cable", o->cable, "ideal, tb5, usb4-40 and key=value, with commas between")
      ->capture_default_str();
  up->add_option("--cables-per-pair", o->cables_per_pair, "cables between two cabled hosts, 1 to 8")
      ->check(CLI::Range(1u, fabric::kCablesMax))
      ->capture_default_str();
  up->add_option("--hops", o->hops, "hops of each controller: 3, 12 or 32")
      ->check(CLI::IsMember({3u, 12u, 32u}))
      ->capture_default_str();
  up->add_option("--nhi", o->nhi,
                 "flavour of the controllers, intel or amd; or of each host's, with commas between")
      ->delimiter(',')
      ->expected(1)
      ->take_all()
      ->check(CLI::IsMember({"intel", "amd"}))
      ->capture_default_str();
  up->add_option("--e2e", o->e2e,
                 "the controllers' end-to-end credits: works, absent (frames without a buffer are "
                 "lost) or sticks (who has waited waits for ever)")
      ->check(CLI::IsMember({"works", "absent", "sticks"}))
      ->capture_default_str();
  up->add_option("--flow-control", o->flow_control,
                 "what the daemons offer their peers: auto, e2e, credits or none (tbtd --help)")
      ->check(CLI::IsMember({"auto", "e2e", "credits", "none"}))
      ->capture_default_str();
  up->add_option("--guest", o->guests,
                 "leave this host to a virtual machine: see 'tbt fabric serve'; may be repeated")
      ->expected(1)
      ->take_all();
  up->add_option("--seed", o->seed, "seed of the cables' faults")->capture_default_str();
  up->callback([o] { run(*o); });
}

}  // namespace tbt::tool
