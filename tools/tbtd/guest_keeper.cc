#include "tbtd/guest_keeper.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "fabric/open_host.h"
#include "sys/monotonic_clock.h"
#include "tbtd/cable_change.h"
#include "tbtd/pid_file.h"
#include "tbtd/status_report.h"

namespace tbt::daemon {
namespace {

constexpr uint64_t kSignal = 0;
static_assert(kSignal < Clients::kFirstTag);
constexpr int kBacklog = 64;
// The slot of a grant to the controller's player; it is nobody's, since no process attaches here.
constexpr rail::SlotId kPlayerSlot = 1;

// Until something happens or a connection has been silent for too long.
int wait_ms(Instant due) {
  if (due.is_never()) return -1;
  const int64_t ms = (due - sys::monotonic_now()).ns / 1000000 + 1;
  return static_cast<int>(std::clamp<int64_t>(ms, 0, 60 * 1000));
}

}  // namespace

Result<std::unique_ptr<GuestKeeper>> GuestKeeper::start(const DaemonOptions& options,
                                                        std::vector<sys::UniqueFd> fds) {
  std::unique_ptr<GuestKeeper> keeper(new GuestKeeper(options));
  const std::string& stem = options.stem;
  if (const Status s = write_pid_file(stem + ".pid"); !s) return s;
  keeper->pid_path_ = stem + ".pid";
  auto fabric = fabric::map_host({rail::kDaemonSlot, options.host, options.hosts}, std::move(fds));
  if (!fabric) return fabric.error();
  keeper->fabric_ = std::move(fabric).value();
  if (const Status s = keeper->open_loop(); !s) return s;
  auto listener = sys::listen_seqpacket(stem + ".sock", kBacklog);
  if (!listener) return listener.error();
  keeper->socket_path_ = stem + ".sock";
  Clients::Hooks hooks;
  GuestKeeper* const self = keeper.get();
  hooks.answer = [self](const Client& c, const fabric::Request& r) { return self->answer(c, r); };
  hooks.gone = [self](rail::SlotId, pid_t pid) {
    self->served_by_ = 0;
    spdlog::info("process {} no longer plays the controller", pid);
  };
  keeper->clients_ =
      std::make_unique<Clients>(keeper->epoll_.get(), std::move(listener).value(), hooks);
  return keeper;
}

GuestKeeper::~GuestKeeper() {
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
  if (!pid_path_.empty()) ::unlink(pid_path_.c_str());
}

Status GuestKeeper::open_loop() {
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGTERM);
  ::sigaddset(&ends, SIGINT);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  signals_.reset(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kSignal;
  if (!epoll_ || !signals_ ||
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, signals_.get(), &event) != 0) {
    return Status(errno, "cannot make the descriptors of the main loop");
  }
  return {};
}

void GuestKeeper::run() {
  spdlog::info("host {} of fabric {} is left to a virtual machine", options_.host, options_.fabric);
  while (true) {
    const Instant due = clients_->expire(sys::monotonic_now());
    std::array<epoll_event, 32> events;
    const int n =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms(due));
    for (int i = 0; i < n; i++) {
      const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
      if (tag == kSignal) return spdlog::info("ends");
      clients_->handle(tag, sys::monotonic_now());
    }
  }
}

Answer GuestKeeper::answer(const Client& client, const fabric::Request& request) {
  switch (request.operation) {
    case fabric::Operation::kAttach:
      return {.text = fabric::encode_refusal(ENODEV, "this host is a virtual machine"),
              .close = true};
    case fabric::Operation::kStatus:
      return {.text = guest_status_report(
                  *fabric_->silicon,
                  {.fabric = options_.fabric, .host = options_.host, .served_by = served_by_})};
    case fabric::Operation::kCable:
      return change_cable(*fabric_->silicon, fabric_->interrupt_fds, request);
    case fabric::Operation::kGuest:
      return grant(client);
    case fabric::Operation::kRemove:
    case fabric::Operation::kGid:
      return {.text = fabric::encode_refusal(EOPNOTSUPP, "this host is a virtual machine")};
  }
  return {.text = fabric::encode_refusal(EINVAL, "unknown operation"), .close = true};
}

Answer GuestKeeper::grant(const Client& client) {
  if (served_by_ != 0) {
    return {.text = fabric::encode_refusal(EBUSY, "another process plays this controller"),
            .close = true};
  }
  served_by_ = client.credentials.pid;
  spdlog::info("process {} plays the controller", served_by_);
  Answer a;
  a.attached = kPlayerSlot;
  a.text = fabric::encode_guest_grant(
      {options_.host, options_.hosts, options_.vendor_id, options_.device_id});
  a.fds.push_back(fabric_->silicon->fd());
  for (const auto& memory : fabric_->memories) a.fds.push_back(memory->fd());
  for (const auto& interrupt : fabric_->interrupt_fds) a.fds.push_back(interrupt.get());
  return a;
}

}  // namespace tbt::daemon
