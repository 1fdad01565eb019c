#include "sys/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace tbt::sys {
namespace {

std::string read_link(const std::string& path) {
  std::array<char, 4096> buffer{};
  const ssize_t n = ::readlink(path.c_str(), buffer.data(), buffer.size());
  return n > 0 ? std::string(buffer.data(), static_cast<size_t>(n)) : std::string();
}

// The `index`th (from 1) space-separated word after the program's name, which may itself hold
// spaces.
std::string_view stat_field_after_name(std::string_view stat, int index) {
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos) return {};
  stat.remove_prefix(name_end + 1);
  for (int i = 0; i < index; i++) {
    const size_t begin = stat.find_first_not_of(' ');
    if (begin == std::string_view::npos) return {};
    stat.remove_prefix(begin);
    if (i + 1 == index) break;
    stat.remove_prefix(std::min(stat.find(' '), stat.size()));
  }
  return stat.substr(0, stat.find(' '));
}

}  // namespace

Result<ProcessName> name_process(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> buffer{};
  const ssize_t n = fd ? ::read(fd.get(), buffer.data(), buffer.size() - 1) : -1;
  if (n <= 0) return Status(ESRCH, "no such process");
  const std::string_view stat(buffer.data(), static_cast<size_t>(n));
  const std::string_view state = stat_field_after_name(stat, 1);
  if (state.empty() || state == "Z" || state == "X") return Status(ESRCH, "process has ended");
  constexpr int kStartTime =
      22 - 2;  // field 22 of the file, of which two are before and in the name
  const std::string start(stat_field_after_name(stat, kStartTime));
  return ProcessName{pid, std::strtoull(start.c_str(), nullptr, 10)};
}

Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return Status(errno, "cannot open the process");
  return fd;
}

Result<UniqueFd> open_process(const ProcessName& name) {
  auto fd = open_pidfd(name.pid);
  if (!fd) return fd.error();
  const auto now = name_process(name.pid);
  if (!now) return now.error();
  if (now.value() != name) return Status(ESRCH, "the pid is another process's now");
  return fd;
}

Status signal_process(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0) return {};
  return Status(errno, "cannot signal the process");
}

bool wait_for_exit(int pidfd, int timeout_ms) {
  pollfd p{pidfd, POLLIN, 0};
  return ::poll(&p, 1, timeout_ms) > 0;
}

std::string own_program_path() { return read_link("/proc/self/exe"); }

std::string program_name_of(pid_t pid) {
  std::string path = read_link("/proc/" + std::to_string(pid) + "/exe");
  constexpr std::string_view kDeleted = " (deleted)";
  if (path.ends_with(kDeleted)) path.resize(path.size() - kDeleted.size());
  return path.substr(path.rfind('/') + 1);
}

}  // namespace tbt::sys
