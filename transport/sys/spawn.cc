#include "sys/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "sys/unique_fd.h"

namespace tbt::sys {
namespace {

constexpr int kFirstInherited = 3;

// What the child needs, made before fork: it allocates nothing afterwards.
struct ChildPlan {
  const char* program = nullptr;
  std::vector<char*> argv;
  std::vector<int> fds;  // all numbers above the targets, so that no dup2 hits one still needed
  int log = -1;
  int error_pipe = -1;
};

[[noreturn]] void die(int error_pipe) noexcept {
  const int error = errno;
  [[maybe_unused]] const ssize_t n = ::write(error_pipe, &error, sizeof error);
  ::_exit(127);
}

void reset_signals() noexcept {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT}) ::signal(signal, SIG_DFL);
}

[[noreturn]] void run_child(const ChildPlan& plan) noexcept {
  ::setsid();
  reset_signals();
  const int null = ::open("/dev/null", O_RDONLY);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(plan.log, 1) < 0 || ::dup2(plan.log, 2) < 0) {
    die(plan.error_pipe);
  }
  int target = kFirstInherited;
  for (const int fd : plan.fds) {
    if (::dup2(fd, target++) < 0) die(plan.error_pipe);
  }
  // The error pipe stays open, close-on-exec: its end tells the parent that exec succeeded.
  if (::dup2(plan.error_pipe, target) < 0) die(plan.error_pipe);
  ::fcntl(target, F_SETFD, FD_CLOEXEC);
  ::syscall(SYS_close_range, static_cast<unsigned>(target + 1), ~0u, 0);
  ::execv(plan.program, plan.argv.data());
  die(target);
}

// Duplicates of `fds` with numbers at or above `floor`.
Status lift(const std::vector<int>& fds, int floor, std::vector<UniqueFd>& out) {
  for (const int fd : fds) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, floor));
    if (!copy) return Status(errno == EINVAL ? EMFILE : errno, "too few file descriptors");
    out.push_back(std::move(copy));
  }
  return {};
}

Result<pid_t> await_exec(pid_t pid, int pipe) {
  int error = 0;
  ssize_t n = 0;
  do {
    n = ::read(pipe, &error, sizeof error);
  } while (n < 0 && errno == EINTR);
  if (n == 0) return pid;
  ::waitpid(pid, nullptr, 0);
  return Status(n == sizeof error ? error : EIO, "cannot start the program");
}

}  // namespace

Result<pid_t> spawn_daemon(const SpawnOptions& options) {
  const int floor = kFirstInherited + static_cast<int>(options.fds.size()) + 1;
  std::vector<UniqueFd> lifted;
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return Status(errno, "cannot make a pipe");
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  constexpr int kLogFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
  const UniqueFd log(::open(options.log_path.c_str(), kLogFlags, 0600));
  if (!log) return Status(errno, "cannot open the log file");
  std::vector<int> wanted = options.fds;
  wanted.push_back(write_end.get());
  wanted.push_back(log.get());
  if (const Status s = lift(wanted, floor, lifted); !s) return s;
  write_end.reset();

  ChildPlan plan;
  plan.program = options.program.c_str();
  plan.argv.push_back(const_cast<char*>(options.program.c_str()));
  for (const std::string& a : options.arguments) plan.argv.push_back(const_cast<char*>(a.c_str()));
  plan.argv.push_back(nullptr);
  for (size_t i = 0; i < options.fds.size(); i++) plan.fds.push_back(lifted[i].get());
  plan.error_pipe = lifted[options.fds.size()].get();
  plan.log = lifted[options.fds.size() + 1].get();

  const pid_t pid = ::fork();
  if (pid < 0) return Status(errno, "cannot start a process");
  if (pid == 0) run_child(plan);
  lifted.clear();  // with it goes our copy of the pipe's write end
  return await_exec(pid, read_end.get());
}

}  // namespace tbt::sys
