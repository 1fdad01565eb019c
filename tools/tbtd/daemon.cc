#include "tbtd/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fabric/addresses.h"
#include "fabric/open_host.h"
#include "rail/shared_rail.h"
#include "sys/monotonic_clock.h"
#include "sys/process.h"
#include "tbtd/cable_change.h"
#include "tbtd/pid_file.h"
#include "tbtd/slots.h"
#include "tbtd/status_report.h"

namespace tbt::daemon {
namespace {

enum Tag : uint64_t { kInterrupt, kTimer, kSignal };
static_assert(kSignal < Clients::kFirstTag);

constexpr int kBacklog = 64;
constexpr uint64_t kGiga = 1000000000;
// While frames of other processes keep coming, the daemon does not wait for a moment without any.
constexpr int kIdleTries = 3;
constexpr Duration kBusyNap = Duration::from_ms(1);
constexpr Duration kReclaimAgain = Duration::from_ms(10);

uint64_t draw_incarnation() {
  uint64_t value = 0;
  while (value == 0) {
    if (::getrandom(&value, sizeof value, 0) != sizeof value) value = 0;
  }
  return value;
}

bool watch(int epoll, int fd, uint64_t tag) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void drain(int fd) {
  std::array<std::byte, 256> buffer;
  while (::read(fd, buffer.data(), buffer.size()) > 0) continue;
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::start(const DaemonOptions& options,
                                              std::vector<sys::UniqueFd> fds) {
  std::unique_ptr<Daemon> daemon(new Daemon);
  const std::string stem = options.directory + "/host" + std::to_string(options.host);
  daemon->pid_path_ = stem + ".pid";
  if (const Status s = write_pid_file(daemon->pid_path_); !s) {
    daemon->pid_path_.clear();
    return s;
  }
  auto host = fabric::map_host({rail::kDaemonSlot, options.host, options.hosts}, std::move(fds));
  if (!host) return host.error();
  daemon->host_ = std::move(host).value();
  if (const Status s = daemon->bring_up(); !s) return s;
  const uint64_t incarnation = draw_incarnation();
  daemon->make_agent(options, incarnation);
  if (const Status s = daemon->open_loop(options); !s) return s;
  if (const Status s = daemon->start_controller(options, incarnation); !s) return s;
  return daemon;
}

Status Daemon::bring_up() {
  rail::HostMemory& memory = *host_->memory;
  for (; rails_up_ < memory.cables(); rails_up_++) {
    if (const Status s = rail::bring_up_nhi_rail(memory, rails_up_, *host_->device); !s) return s;
  }
  memory.slot(rail::kDaemonSlot).pid.store(::getpid());
  memory.slot(rail::kDaemonSlot).state.store(rail::SlotState::kAttached);
  fabric::directory_of(memory).daemon_pid.store(static_cast<uint32_t>(::getpid()));
  return fabric::open_rails(*host_);
}

void Daemon::make_agent(const DaemonOptions& options, uint64_t incarnation) {
  fabric::AgentConfig config;
  config.fabric_name = options.fabric;
  config.host_name = "host" + std::to_string(options.host);
  config.host_index = options.host;
  config.incarnation = incarnation;
  config.vendor_id = options.vendor_id;
  config.device_id = options.device_id;
  for (uint32_t k = 0; k < host_->memory->cables(); k++) {
    const uint32_t number = host_->silicon->cable_of(options.host, k);
    config.cables.push_back({static_cast<uint8_t>(number), /*plugged=*/false, 0});
  }
  agent_ = std::make_unique<fabric::HostAgent>(config, sys::monotonic_now());
  pump_ = std::make_unique<RailPump>(
      *host_, [this](uint32_t cable, uint32_t tag, std::span<const std::byte> message) {
        agent_->handle_message(sys::monotonic_now(), cable, tag, message);
      });
}

// A cable counts as plugged while its path is up: what is behind it is the controller's affair.
Status Daemon::start_controller(const DaemonOptions& options, uint64_t incarnation) {
  fabric::ManagerConfig config;
  config.host_name = "host" + std::to_string(options.host);
  config.incarnation = incarnation;
  config.ring_pairs = host_->memory->cables() + 1;
  config.ring_entries = static_cast<uint16_t>(host_->memory->config().ring_entries);
  config.service.settings = wire::tb::kTbtSettingE2e;
  Controller::Hooks hooks;
  hooks.link = [this](uint32_t cable, bool open, uint32_t speed_gbps) {
    agent_->handle_link(sys::monotonic_now(), cable, open, speed_gbps);
  };
  hooks.log = [](bool warning, const std::string& text) {
    spdlog::log(warning ? spdlog::level::warn : spdlog::level::info, "{}", text);
  };
  controller_ = std::make_unique<Controller>(*host_->memory, *host_->device, std::move(config),
                                             std::move(hooks));
  return controller_->start(sys::monotonic_now());
}

Status Daemon::open_loop(const DaemonOptions& options) {
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGTERM);
  ::sigaddset(&ends, SIGINT);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  signals_.reset(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  const int interrupt = host_->interrupt_fds[options.host].get();
  if (!epoll_ || !timer_ || !signals_ || !watch(epoll_.get(), timer_.get(), kTimer) ||
      !watch(epoll_.get(), signals_.get(), kSignal) ||
      !watch(epoll_.get(), interrupt, kInterrupt)) {
    return Status(errno, "cannot make the descriptors of the main loop");
  }
  const std::string path = options.directory + "/host" + std::to_string(options.host) + ".sock";
  auto listener = sys::listen_seqpacket(path, kBacklog);
  if (!listener) return listener.error();
  socket_path_ = path;
  Clients::Hooks hooks;
  hooks.answer = [this](const Client& c, const fabric::Request& r) { return answer(c, r); };
  hooks.gone = [this](rail::SlotId slot, pid_t pid) { process_gone(slot, pid); };
  clients_ = std::make_unique<Clients>(epoll_.get(), std::move(listener).value(), std::move(hooks));
  return {};
}

Daemon::~Daemon() {
  if (host_) {
    for (uint32_t k = 0; k < rails_up_; k++) {
      (void)rail::shut_down_nhi_rail(*host_->memory, k, *host_->device);
    }
    fabric::directory_of(*host_->memory).daemon_pid.store(0);
  }
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
  if (!pid_path_.empty()) ::unlink(pid_path_.c_str());
}

void Daemon::run() {
  const auto& data = agent_->directory();
  spdlog::info("{} of fabric {} serves {} cables, incarnation {:016x}", data.host_name.data(),
               data.fabric_name.data(), data.cables, data.incarnation);
  while (!stop_) {
    turn();
    wait();
  }
  shut_down();
}

// Everything that can be done now.
void Daemon::turn() {
  const Instant now = sys::monotonic_now();
  controller_->turn(now);
  pump_->receive();
  if (agent_->poll_timeout() <= now) agent_->handle_timeout(now);
  carry_out();
  next_ = std::min({pump_->advance(now), agent_->poll_timeout(), controller_->poll_timeout(),
                    clients_->expire(now), reclaim_slots(now)});
}

void Daemon::carry_out() {
  fabric::ControlOutput output;
  while (agent_->poll_transmit(output)) pump_->send(output);
  if (agent_->take_directory_change()) fabric::write_directory(*host_->memory, agent_->directory());
  fabric::AgentEvent event;
  while (agent_->poll_event(event)) {
    spdlog::log(event.warning ? spdlog::level::warn : spdlog::level::info, "{}", event.text);
  }
}

// Sleeps until something happens, in the order that loses no wake-up: say so, look once more,
// sleep.
void Daemon::wait() {
  if (!go_idle()) next_ = std::min(next_, sys::monotonic_now() + kBusyNap);
  set_timer(next_);
  std::array<epoll_event, 32> events;
  const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
  host_->memory->cancel_sleep(rail::kDaemonSlot);
  for (int i = 0; i < n; i++) handle_event(events[static_cast<size_t>(i)].data.u64);
}

bool Daemon::go_idle() {
  for (int i = 0; i < kIdleTries; i++) {
    host_->memory->prepare_sleep(rail::kDaemonSlot);
    const bool news = controller_->turn(sys::monotonic_now());
    const bool found = pump_->receive() || news;
    const bool quiet = pump_->arm() && controller_->arm();
    if (!found && quiet) return true;
    carry_out();
  }
  return false;
}

void Daemon::set_timer(Instant due) {
  itimerspec spec{};  // zero: never
  if (!due.is_never()) {
    const int64_t ns = std::max<int64_t>(due.ns, 1);
    spec.it_value.tv_sec = ns / static_cast<int64_t>(kGiga);
    spec.it_value.tv_nsec = ns % static_cast<int64_t>(kGiga);
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

void Daemon::handle_event(uint64_t tag) {
  switch (tag) {
    case kInterrupt:
      drain(host_->interrupt_fds[agent_->directory().host_index].get());
      break;
    case kTimer:
      drain(timer_.get());
      break;
    case kSignal:
      drain(signals_.get());
      stop_ = true;
      break;
    default:
      clients_->handle(tag, sys::monotonic_now());
  }
}

void Daemon::shut_down() {
  spdlog::info("ends");
  agent_->handle_shutdown(sys::monotonic_now());
  carry_out();
  controller_->shut_down();
}

Answer Daemon::answer(const Client& client, const fabric::Request& request) {
  switch (request.operation) {
    case fabric::Operation::kAttach:
      return attach(client);
    case fabric::Operation::kStatus:
      return {.text = status_report(*host_, *agent_, controller_->status())};
    case fabric::Operation::kCable:
      return change_cable(*host_->silicon, host_->interrupt_fds, request);
    case fabric::Operation::kGuest:
      return {.text = fabric::encode_refusal(EBUSY, "this daemon plays the controller itself"),
              .close = true};
  }
  return {.text = fabric::encode_refusal(EINVAL, "unknown operation"), .close = true};
}

Answer Daemon::attach(const Client& client) {
  if (client.slot != rail::kNoSlot) {
    return {.text = fabric::encode_refusal(EALREADY, "this connection is attached"), .close = true};
  }
  const rail::SlotId slot = take_slot(*host_->memory, last_slot_, client.credentials.pid);
  if (slot == rail::kNoSlot) {
    return {.text = fabric::encode_refusal(EAGAIN, "the host has no free process slot"),
            .close = true};
  }
  spdlog::info("process {} has slot {}", client.credentials.pid, slot);
  Answer a;
  a.attached = slot;
  a.text = fabric::encode_grant({slot, agent_->directory().host_index, host_->silicon->hosts()});
  a.fds.push_back(host_->silicon->fd());
  for (const auto& memory : host_->memories) a.fds.push_back(memory->fd());
  for (const auto& interrupt : host_->interrupt_fds) a.fds.push_back(interrupt.get());
  return a;
}

// The order matters: nobody may deliver to the slot any more before its buffers are taken back, and
// the slot is given out again only when everything is.
void Daemon::process_gone(rail::SlotId slot, pid_t pid) {
  wire::ProcessGone gone = mark_slot_dead(*host_->memory, slot);
  gone.lid = fabric::aggregate_lid(agent_->directory().host_index);
  unreclaimed_.push_back(slot);
  reclaim_slots(sys::monotonic_now());
  agent_->handle_process_gone(sys::monotonic_now(), gone);
  carry_out();
  spdlog::info("process {} in slot {} is gone, with {} queue pair numbers", pid, slot, gone.count);
}

// A process that was stopped while it held a lock of the host keeps the slots of dead ones from
// being cleaned up; they are tried again until it goes on. When that is next due.
Instant Daemon::reclaim_slots(Instant now) {
  std::erase_if(unreclaimed_, [this](rail::SlotId slot) {
    if (!pump_->reclaim(slot)) return false;
    free_slot(*host_->memory, slot);
    return true;
  });
  return unreclaimed_.empty() ? Instant::never() : now + kReclaimAgain;
}

}  // namespace tbt::daemon
