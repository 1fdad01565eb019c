#include "tbt/guest_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sys/event_fd.h"
#include "sys/monotonic_clock.h"
#include "sys/unix_socket.h"
#include "tbt/commands.h"

namespace tbt::tool {
namespace {

using rail::emulated::VfioUserConnection;

constexpr int64_t kNsPerMs = 1000 * 1000;
constexpr int kWaitMsMax = 1000;

sys::UniqueFd watch_signals() {
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGTERM);
  ::sigaddset(&ends, SIGINT);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  return sys::UniqueFd(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
}

}  // namespace

GuestServer::GuestServer(fabric::Attachment& fabric, const fabric::GuestGrant& shape,
                         const GuestServerOptions& options)
    : fabric_(fabric),
      options_(options),
      host_(shape.host),
      trace_(nullptr, std::fclose),
      device_({shape.vendor_id, shape.device_id}),
      signals_(watch_signals()) {
  if (!signals_) fail("cannot watch for signals");
  if (!options_.trace_path.empty()) open_trace(options_.trace_path);
  device_.set_controller(fabric_.device.get());
  device_.on_memory_change(
      [this] { fabric_.silicon->guest_memory_changed(host_, device_.memory().bytes()); });
  fabric_.silicon->attach_guest(host_, &device_);
}

GuestServer::~GuestServer() {
  device_.disconnect();
  fabric_.silicon->attach_guest(host_, nullptr);
}

void GuestServer::open_trace(const std::string& path) {
  trace_.reset(std::fopen(path.c_str(), "we"));
  if (trace_ == nullptr) fail(fmt::format("cannot write {}: {}", path, strerror(errno)));
  fabric_.silicon->trace_control([this](uint32_t host, const rail::emulated::TracedPacket& packet) {
    if (host != host_) return;
    fmt::print(trace_.get(), "{}\n", rail::emulated::trace_line(sys::monotonic_now().ns, packet));
    std::fflush(trace_.get());
  });
}

// Milliseconds until the model must be looked at again.
int GuestServer::advance() noexcept {
  const int64_t now = sys::monotonic_now().ns;
  const int64_t due = fabric_.device->advance(now);
  if (due == INT64_MAX) return kWaitMsMax;
  return static_cast<int>(
      std::clamp<int64_t>((due - now + kNsPerMs - 1) / kNsPerMs, 0, kWaitMsMax));
}

std::string GuestServer::run(int listener, int keeper) {
  while (true) {
    const int wait_ms = advance();
    const int service = fabric_.interrupt_fds[host_].get();
    std::array<pollfd, 5> fds{{{signals_.get(), POLLIN, 0},
                               {keeper, POLLIN, 0},
                               {service, POLLIN, 0},
                               {connection_ ? -1 : listener, POLLIN, 0},
                               {connection_ ? connection_->fd() : -1, POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), wait_ms) < 0 && errno != EINTR) return strerror(errno);
    if (fds[0].revents != 0) return "told to end";
    if (fds[1].revents != 0) return "the fabric goes down";
    if (fds[2].revents != 0) sys::drain_eventfd(service);
    if (fds[3].revents != 0) admit(listener);
    if (fds[4].revents == 0) continue;
    if (const std::string why = serve_machine(); !why.empty()) return why;
  }
}

void GuestServer::admit(int listener) {
  auto socket = sys::accept_seqpacket(listener);
  if (!socket) return;
  connection_ = std::make_unique<VfioUserConnection>(std::move(socket).value(), device_);
  fmt::print("the virtual machine is there\n");
  std::fflush(stdout);
}

std::string GuestServer::serve_machine() {
  const auto more = connection_->serve();
  if (more) return {};
  connection_.reset();
  device_.disconnect();
  const Status why = more.error();
  const std::string text = why.code() == EPIPE
                               ? "the virtual machine has gone"
                               : fmt::format("the virtual machine was cut off: {}", why.text());
  if (!options_.stay) return text;
  fmt::print("{}; waiting for the next\n", text);
  std::fflush(stdout);
  return {};
}

}  // namespace tbt::tool
