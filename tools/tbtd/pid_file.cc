#include "tbtd/pid_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "sys/process.h"
#include "sys/unique_fd.h"
#include "sys/unix_socket.h"

namespace tbt::daemon {

Status write_pid_file(const std::string& path) {
  const auto self = sys::name_process(::getpid());
  if (!self) return self.error();
  const std::string text = fmt::format("{} {}\n", self.value().pid, self.value().start_ticks);
  const sys::UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return Status(errno, "cannot make the pid file");
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return Status(errno, "cannot write the pid file");
  }
  return {};
}

Status clear_remains(const std::string& stem) {
  if (sys::connect_seqpacket(stem + ".sock")) {
    return Status(EADDRINUSE, "another tbtd serves this machine");
  }
  for (const char* extension : {".sock", ".pid", ".keeper"}) {
    if (::unlink((stem + extension).c_str()) != 0 && errno != ENOENT) {
      return Status(errno, "cannot remove what an earlier tbtd has left");
    }
  }
  return {};
}

}  // namespace tbt::daemon
