#include "tbtd/daemon.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fabric/addresses.h"
#include "fabric/open_host.h"
#include "fabric/path_memory.h"
#include "rail/shared_rail.h"
#include "sys/monotonic_clock.h"
#include "sys/process.h"
#include "tbtd/emulated_hardware.h"
#include "tbtd/pid_file.h"
#include "tbtd/slots.h"
#include "tbtd/status_report.h"
#include "tbtd/vfio_hardware.h"

namespace tbt::daemon {
namespace {

enum Tag : uint64_t { kInterrupt, kTimer, kSignal };
static_assert(kSignal < Clients::kFirstTag);
// Of the hardware's own descriptors, which are in the low bits.
constexpr uint64_t kHardware = uint64_t{1} << 63;

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

// What was wanted, and what there is.
void tell_memlock(rail::HostMemory& memory) {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  spdlog::error("the controller needs {} locked bytes for {} cables, and the limit is {}",
                rail::HostMemory::dma_bytes_of(memory.config()), memory.cables(), limit.rlim_cur);
}

// One look takes all that there is, and what comes later is another event: whoever read until
// nothing is left would never end, on a crowded machine, while processes go on signalling.
void drain(int fd) {
  std::array<std::byte, 256> buffer;
  [[maybe_unused]] const ssize_t n = ::read(fd, buffer.data(), buffer.size());
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::start(const DaemonOptions& options, Inheritance all) {
  std::unique_ptr<Daemon> daemon(new Daemon);
  daemon->pid_path_ = options.stem + ".pid";
  daemon->restarts_ = all.restarts;
  daemon->last_slot_ = all.last_slot;
  daemon->keeper_ = std::move(all.keeper);
  if (all.restarts > 0) ::unlink(daemon->pid_path_.c_str());
  if (const Status s = write_pid_file(daemon->pid_path_); !s) {
    daemon->pid_path_.clear();
    return s;
  }
  auto hardware =
      options.controller.empty()
          ? EmulatedHardware::open(options.host, options.hosts, std::move(all.hardware))
          : VfioHardware::open({.address = options.controller,
                                .host = options.host,
                                .goes_on = all.restarts > 0,
                                .direct = options.direct && VfioHardware::kernel_takes_back()},
                               std::move(all.hardware));
  if (!hardware) return hardware.error();
  daemon->hardware_ = std::move(hardware).value();
  daemon->host_ = &daemon->hardware_->host();
  daemon->recover();
  if (const Status s = daemon->bring_up(); !s) return s;
  daemon->make_agent(options);
  if (const Status s = daemon->open_loop(options, std::move(all.listener)); !s) return s;
  daemon->adopt(std::move(all.processes));
  if (const Status s = daemon->start_controller(options); !s) return s;
  daemon->carry_out();  // the directory stands before a successor may need it
  daemon->keeper_.ready();
  return daemon;
}

// The keeper has seen the end of the daemon before; one that had ended in good order left no pid.
void Daemon::recover() {
  rail::HostMemory& memory = *host_->memory;
  if (restarts_ > 0 && fabric::directory_of(memory).daemon_pid.load() != 0) {
    fabric::recover_directory(memory, before_);
  }
  incarnation_ = before_.incarnation != 0 ? before_.incarnation : draw_incarnation();
  kept_paths_ = fabric::kept_paths(memory, incarnation_);
}

Status Daemon::bring_up() {
  rail::HostMemory& memory = *host_->memory;
  if (before_.incarnation != 0) rails_up_ = memory.cables();  // they have never been down
  for (; rails_up_ < memory.cables(); rails_up_++) {
    const Status s = rail::bring_up_nhi_rail(memory, rails_up_, *host_->device);
    if (s.code() == ENOMEM) tell_memlock(memory);
    if (!s) return s;
  }
  memory.slot(rail::kDaemonSlot).pid.store(::getpid());
  memory.slot(rail::kDaemonSlot).state.store(rail::SlotState::kAttached);
  fabric::directory_of(memory).daemon_pid.store(static_cast<uint32_t>(::getpid()));
  return fabric::open_rails(*host_);
}

void Daemon::make_agent(const DaemonOptions& options) {
  fabric::AgentConfig config;
  config.fabric_name = options.fabric;
  config.host_name = options.host_name;
  config.host_index = options.host;
  config.incarnation = incarnation_;
  const rail::nhi::PciIdentity identity = host_->device->identity();
  config.vendor_id = options.controller.empty() ? options.vendor_id : identity.vendor;
  config.device_id = options.controller.empty() ? options.device_id : identity.device;
  for (uint32_t k = 0; k < host_->memory->cables(); k++) {
    const uint32_t number = hardware_->cable_number(k);
    const bool open =
        std::ranges::find(kept_paths_, k, &fabric::PathStatus::port) != kept_paths_.end();
    config.cables.push_back(
        {static_cast<uint8_t>(number), open, open ? before_.links[k].speed_gbps : 0});
  }
  const Instant now = sys::monotonic_now();
  agent_ = before_.incarnation != 0 ? std::make_unique<fabric::HostAgent>(config, before_, now)
                                    : std::make_unique<fabric::HostAgent>(config, now);
  pump_ = std::make_unique<RailPump>(
      *host_, [this](uint32_t cable, uint32_t tag, std::span<const std::byte> message) {
        agent_->handle_message(sys::monotonic_now(), cable, tag, message);
      });
}

// A cable counts as plugged while its path is up: what is behind it is the controller's affair.
Status Daemon::start_controller(const DaemonOptions& options) {
  fabric::ManagerConfig config;
  config.host_name = options.host_name;
  config.incarnation = incarnation_;
  config.ring_entries = static_cast<uint16_t>(host_->memory->config().ring_entries);
  config.flow_features = options.flow_features;
  config.kept = kept_paths_;
  config.generation = restarts_ << 16;  // more than one daemon loses its paths
  Controller::Hooks hooks;
  hooks.link = [this](uint32_t cable, bool open, uint32_t speed_gbps) {
    agent_->handle_link(sys::monotonic_now(), cable, open, speed_gbps);
  };
  hooks.log = [](bool warning, const std::string& text) {
    spdlog::log(warning ? spdlog::level::warn : spdlog::level::info, "{}", text);
  };
  controller_ = std::make_unique<Controller>(*host_->memory, *host_->device, std::move(config),
                                             std::move(hooks), options.host);
  return controller_->start(sys::monotonic_now(), before_.incarnation != 0);
}

// What the killed daemon held, and what processes that ended meanwhile have left, is taken back.
void Daemon::adopt(std::map<rail::SlotId, KeptProcess> processes) {
  if (restarts_ == 0) return;
  unreclaimed_.push_back(rail::kDaemonSlot);
  for (rail::SlotId id = 1; id < rail::kSlotsMax; id++) {
    const rail::Slot& slot = host_->memory->slot(id);
    const auto state = slot.state.load();
    const auto kept = processes.find(id);
    if (state == rail::SlotState::kAttached && kept != processes.end()) {
      clients_->adopt(id, std::move(kept->second.connection), std::move(kept->second.process));
    } else if (state != rail::SlotState::kFree) {
      process_gone(id, slot.pid.load());
    }
  }
  reclaim_slots(sys::monotonic_now());
}

Status Daemon::open_loop(const DaemonOptions& options, sys::UniqueFd listener) {
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGTERM);
  ::sigaddset(&ends, SIGINT);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  signals_.reset(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  bool watched = epoll_ && timer_ && signals_ && watch(epoll_.get(), timer_.get(), kTimer) &&
                 watch(epoll_.get(), signals_.get(), kSignal) &&
                 watch(epoll_.get(), host_->wake_fd, kInterrupt);
  for (const int fd : hardware_->descriptors()) {
    watched = watched && watch(epoll_.get(), fd, kHardware | static_cast<uint64_t>(fd));
  }
  if (!watched) return Status(errno, "cannot make the descriptors of the main loop");
  socket_path_ = options.stem + ".sock";
  Clients::Hooks hooks;
  hooks.answer = [this](const Client& c, const fabric::Request& r) { return answer(c, r); };
  hooks.attached = [this](const Client& c) {
    keeper_.keep(c.slot, c.socket.get(), c.process.get());
  };
  hooks.gone = [this](rail::SlotId slot, pid_t pid) { process_gone(slot, pid); };
  clients_ = std::make_unique<Clients>(epoll_.get(), std::move(listener), std::move(hooks));
  return {};
}

Daemon::~Daemon() {
  if (host_ != nullptr) {
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
  spdlog::info("{} of fabric {} serves {} cables, incarnation {:016x}{}", data.host_name.data(),
               data.fabric_name.data(), data.cables, data.incarnation,
               restarts_ == 0 ? "" : fmt::format(", restart {}", restarts_));
  while (!stop_) {
    turn();
    wait();
    look_for_trouble();
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
  if ((tag & kHardware) != 0) return hardware_->handle(static_cast<int>(tag & ~kHardware));
  switch (tag) {
    case kInterrupt:
      drain(host_->wake_fd);
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

void Daemon::look_for_trouble() {
  const std::string trouble = hardware_->trouble();
  if (trouble.empty()) return;
  spdlog::error("{}", trouble);
  if (hardware_->is_gone()) agent_->handle_controller_lost(sys::monotonic_now());
  stop_ = true;
}

void Daemon::shut_down() {
  spdlog::info("ends");
  agent_->handle_shutdown(sys::monotonic_now());
  carry_out();
  if (!hardware_->is_gone()) controller_->shut_down();
}

Answer Daemon::answer(const Client& client, const fabric::Request& request) {
  switch (request.operation) {
    case fabric::Operation::kAttach:
      return attach(client);
    case fabric::Operation::kStatus:
      return {.text = status_report(*hardware_, *agent_, controller_->status(), restarts_)};
    case fabric::Operation::kCable:
      return hardware_->change_cable(request);
    case fabric::Operation::kGuest:
      return {.text = fabric::encode_refusal(EBUSY, "this daemon plays the controller itself"),
              .close = true};
    case fabric::Operation::kRemove:
      return hardware_->remove();
    case fabric::Operation::kGid:
      return change_gid(request);
  }
  return {.text = fabric::encode_refusal(EINVAL, "unknown operation"), .close = true};
}

Answer Daemon::change_gid(const fabric::Request& request) {
  const Status s =
      agent_->change_gid(sys::monotonic_now(), request.port, request.gid, request.present);
  if (!s) return {.text = fabric::encode_refusal(s.code(), s.text())};
  carry_out();
  return {.text = fabric::encode_done()};
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
  return hardware_->grant(slot);
}

// The order matters: nobody may deliver to the slot any more before its buffers are taken back, and
// the slot is given out again only when everything is.
void Daemon::process_gone(rail::SlotId slot, pid_t pid) {
  keeper_.drop(slot);
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
    if (!pump_->reclaim(slot) || !hardware_->reclaim(slot)) return false;
    if (slot != rail::kDaemonSlot) free_slot(*host_->memory, slot);
    return true;
  });
  return unreclaimed_.empty() ? Instant::never() : now + kReclaimAgain;
}

}  // namespace tbt::daemon
