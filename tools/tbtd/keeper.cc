#include "tbtd/keeper.h"

#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "sys/monotonic_clock.h"
#include "sys/unix_socket.h"

namespace tbt::daemon {
namespace {

constexpr Duration kNap = Duration::from_ms(20);  // before another try, doubled each time

sigset_t watched_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) ::sigaddset(&set, signal);
  return set;
}

}  // namespace

// ---- the daemon's side

void KeeperLink::ready() { say("ready", {}); }

void KeeperLink::keep(rail::SlotId slot, int connection, int process) {
  std::vector<int> fds{connection};
  if (process >= 0) fds.push_back(process);
  say("keep " + std::to_string(slot), std::move(fds));
}

void KeeperLink::drop(rail::SlotId slot) { say("drop " + std::to_string(slot), {}); }

void KeeperLink::say(const std::string& text, std::vector<int> fds) {
  if (!socket_) return;
  const Status s = sys::send_message(socket_.get(), text, fds);
  if (s) return;
  spdlog::warn("the keeper does not listen ({}): a killed daemon will not be replaced",
               strerror(s.code()));
  socket_.reset();
}

// ---- the keeper

Keeper::Keeper(std::vector<sys::UniqueFd> hardware, sys::UniqueFd listener, DaemonMain daemon)
    : listener_(std::move(listener)), hardware_(std::move(hardware)), daemon_(std::move(daemon)) {
  const sigset_t watched = watched_signals();
  ::sigprocmask(SIG_BLOCK, &watched, nullptr);
  signals_.reset(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
}

int Keeper::run() {
  Duration pause = kNap;
  for (int quick = 0;; restarts_++) {
    const Instant begin = sys::monotonic_now();
    if (!signals_ || !start()) {
      spdlog::error("cannot start the daemon: {}", strerror(errno));
      return 1;
    }
    const int status = watch();
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    spdlog::error("the daemon was killed by signal {} ({})", WTERMSIG(status),
                  ::sigabbrev_np(WTERMSIG(status)));
    if (stopping_ || (!ready_ && restarts_ == 0)) return 1;
    const bool soon = !ready_ || sys::monotonic_now() - begin < kKeeperQuick;
    quick = soon ? quick + 1 : 0;
    if (quick == kKeeperQuickDeaths) {
      spdlog::error("it was killed {} times in a row soon after its start: no other follows",
                    quick);
      return 1;
    }
    if (quick > 1 && !nap(pause)) return 1;
    pause = quick > 1 ? pause * 2 : kNap;
  }
}

bool Keeper::start() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return false;
  }
  link_.reset(ends[0]);
  sys::UniqueFd far(ends[1]);
  ready_ = false;
  pid_ = ::fork();
  if (pid_ == 0) become_daemon(std::move(far));
  return pid_ > 0;
}

// Of the child, everything that the keeper has is the child's own copy.
void Keeper::become_daemon(sys::UniqueFd link) {
  link_.reset();
  signals_.reset();
  sigset_t child;  // the daemon takes the others by a descriptor of its own
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_UNBLOCK, &child, nullptr);
  int code = 1;
  {
    Inheritance all;
    all.hardware = std::move(hardware_);
    all.listener = std::move(listener_);
    all.processes = std::move(processes_);
    all.keeper = KeeperLink(std::move(link));
    all.last_slot = last_slot_;
    all.restarts = restarts_;
    code = daemon_(std::move(all));
  }
  std::fflush(nullptr);
  ::_exit(code);
}

// Until the daemon has ended; its wait status. What it said before it died is heard.
int Keeper::watch() {
  for (;;) {
    pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {link_.get(), POLLIN, 0}};
    ::poll(fds, 2, -1);
    take_message();
    handle_signals();
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) continue;
    pid_ = -1;
    take_message();
    return status;
  }
}

void Keeper::take_message() {
  while (link_) {
    auto message = sys::receive_message(link_.get(), 0);
    if (!message) {
      if (message.error().code() != EAGAIN) link_.reset();  // the daemon has closed it
      return;
    }
    unsigned slot = 0;
    auto& fds = message.value().fds;
    const char* text = message.value().text.c_str();
    if (std::strcmp(text, "ready") == 0) {
      ready_ = true;
    } else if (std::sscanf(text, "keep %u", &slot) == 1 && !fds.empty()) {
      last_slot_ = static_cast<rail::SlotId>(slot);
      KeptProcess& kept = processes_[last_slot_];
      kept.connection = std::move(fds[0]);
      kept.process = fds.size() > 1 ? std::move(fds[1]) : sys::UniqueFd();
    } else if (std::sscanf(text, "drop %u", &slot) == 1) {
      processes_.erase(static_cast<rail::SlotId>(slot));
    }
  }
}

void Keeper::handle_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;
    stopping_ = true;
    if (pid_ > 0) ::kill(pid_, SIGTERM);
  }
}

// False if it was told to end.
bool Keeper::nap(Duration duration) {
  const Instant end = sys::monotonic_now() + duration;
  for (Duration left = duration; left.ns > 0 && !stopping_; left = end - sys::monotonic_now()) {
    pollfd signals{signals_.get(), POLLIN, 0};
    ::poll(&signals, 1, static_cast<int>(left.ns / 1000000) + 1);
    handle_signals();
  }
  return !stopping_;
}

}  // namespace tbt::daemon
