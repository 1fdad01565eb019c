#include "sys/process_token.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sys/unique_fd.h"

namespace tbt::sys {
namespace {

struct ProcessStat {
  char state = '?';
  long threads = 0;
  uint32_t start_ticks = 0;
};

// /proc/PID/stat: the name stands in parentheses and may itself hold any character, so fields are
// counted from the last parenthesis: state is field 3, the number of threads 20, the start time 22.
bool parse_stat(const char* text, ProcessStat& out) noexcept {
  const char* p = std::strrchr(text, ')');
  if (p == nullptr || p[1] != ' ') return false;
  p += 2;
  out.state = *p;
  for (int field = 3; field < 22; ++field) {
    p = std::strchr(p, ' ');
    if (p == nullptr) return false;
    ++p;
    if (field + 1 == 20) out.threads = std::strtol(p, nullptr, 10);
  }
  out.start_ticks = static_cast<uint32_t>(std::strtoull(p, nullptr, 10));
  return true;
}

bool read_stat(uint32_t pid, ProcessStat& out) noexcept {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%u/stat", pid);
  UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return false;
  char text[1024];
  const ssize_t n = read(fd.get(), text, sizeof text - 1);
  if (n <= 0) return false;
  text[n] = '\0';
  return parse_stat(text, out);
}

ProcessToken make_token() noexcept {
  const auto pid = static_cast<uint32_t>(getpid());
  ProcessStat stat;
  read_stat(pid,
            stat);  // without /proc the start time is 0 on both sides, and the pid alone decides
  return uint64_t{stat.start_ticks} << 32 | pid;
}

void forget_token() noexcept { cached_token.store(0, std::memory_order_relaxed); }

}  // namespace

ProcessToken make_own_token() noexcept {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_token);
  static_cast<void>(registered);
  const ProcessToken token = make_token();
  cached_token.store(token, std::memory_order_relaxed);
  return token;
}

bool is_alive(ProcessToken token) noexcept {
  const uint32_t pid = token_pid(token);
  if (kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return false;
  ProcessStat stat;
  if (!read_stat(pid, stat)) return true;  // hidden from us: it may well live
  if (stat.start_ticks != static_cast<uint32_t>(token >> 32)) return false;
  const bool ended = stat.state == 'Z' || stat.state == 'X';
  return !ended || stat.threads > 1;
}

}  // namespace tbt::sys
