#include "tbt/runtime_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "sys/unix_socket.h"
#include "tbt/commands.h"

namespace tbt::tool {
namespace {

constexpr const char* kDaemonProgram = "tbtd";
constexpr size_t kFileBytesMax = 64 * 1024;
constexpr size_t kSocketPathMax = 107;

const char* variable(const char* name) {
  const char* value = ::secure_getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

bool is_folder(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::optional<std::string> read_small_file(const std::string& path) {
  const sys::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) return std::nullopt;
  std::string text(kFileBytesMax + 1, '\0');
  const ssize_t n = ::read(fd.get(), text.data(), text.size());
  if (n < 0) return std::nullopt;
  text.resize(static_cast<size_t>(n));
  return text;
}

std::optional<sys::ProcessName> process_from_pid_file(const std::string& path) {
  const auto text = read_small_file(path);
  if (!text) return std::nullopt;
  sys::ProcessName named;
  unsigned long long start = 0;
  if (std::sscanf(text->c_str(), "%d %llu", &named.pid, &start) != 2 || named.pid <= 0) {
    return std::nullopt;
  }
  named.start_ticks = start;
  const auto now = sys::name_process(named.pid);
  if (!now || now.value() != named) return std::nullopt;
  return named;
}

std::optional<sys::ProcessName> daemon_from_socket(const std::string& path) {
  const auto socket = sys::connect_seqpacket(path);
  if (!socket) return std::nullopt;
  const auto who = sys::peer_credentials(socket.value().get());
  if (!who || who.value().pid <= 0) return std::nullopt;
  const auto process = sys::name_process(who.value().pid);
  return process ? std::optional(process.value()) : std::nullopt;
}

}  // namespace

std::string runtime_dir() {
  if (const char* dir = variable("TBT_RUNTIME_DIR")) return dir;
  if (::geteuid() == 0) return "/run/tbt";
  if (const char* dir = variable("XDG_RUNTIME_DIR")) return std::string(dir) + "/tbt";
  return fmt::format("/tmp/tbt-{}", ::geteuid());
}

void make_runtime_dir() {
  const std::string dir = runtime_dir();
  if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) {
    fail(fmt::format("cannot make {}: {}; set TBT_RUNTIME_DIR to a folder that you own", dir,
                     strerror(errno)));
  }
  struct stat info {};
  if (::lstat(dir.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    fail(fmt::format("{} is not a folder: remove it or set TBT_RUNTIME_DIR", dir));
  }
  if (info.st_uid != ::geteuid()) {
    fail(fmt::format("{} belongs to another user: set TBT_RUNTIME_DIR to a folder that you own",
                     dir));
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    fail(fmt::format("others may write to {0}: chmod 700 {0}", dir));
  }
}

std::string fabric_dir(const std::string& name) {
  if (!fabric::fabric_name_is_legal(name)) {
    fail(fmt::format("'{}' is no name for a fabric: use 1 to 32 letters, digits, '-', '_' or '.'",
                     name));
  }
  return runtime_dir() + "/" + name;
}

std::string host_file(const std::string& name, uint32_t host, const char* extension) {
  std::string path = fmt::format("{}/host{}.{}", fabric_dir(name), host, extension);
  if (path.size() > kSocketPathMax) {
    fail(fmt::format("{} is too long for a socket: set TBT_RUNTIME_DIR to a shorter one",
                     runtime_dir()));
  }
  return path;
}

bool fabric_exists(const std::string& name) {
  struct stat info {};
  return ::stat(fabric_dir(name).c_str(), &info) == 0;
}

std::vector<std::string> fabric_names() {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(runtime_dir().c_str()), ::closedir);
  while (dir != nullptr) {
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) break;
    // Fabrics are folders; the files of a daemon that serves a real controller lie beside them.
    if (fabric::fabric_name_is_legal(entry->d_name) && is_folder(fabric_dir(entry->d_name))) {
      names.emplace_back(entry->d_name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

fabric::FabricFile load_fabric(const std::string& name) {
  if (!fabric_exists(name)) {
    if (errno == EACCES) {
      fail(fmt::format("not allowed to look into {}: it is another user's", runtime_dir()));
    }
    fail(fmt::format("no fabric '{0}' is up: start it with 'tbt fabric up --name {0}'", name));
  }
  const std::string path = fabric_dir(name) + "/fabric.json";
  const auto text = read_small_file(path);
  if (!text && errno == EACCES) {
    fail(fmt::format("not allowed to use fabric '{}': it is another user's, run as that user",
                     name));
  }
  if (!text) {
    fail(fmt::format("cannot read {}: {}; end the fabric with 'tbt fabric down --name {}'", path,
                     strerror(errno), name));
  }
  fabric::FabricFile file;
  std::string wrong = fabric::parse_fabric_file(*text, file);
  if (wrong.empty() && file.name != name) wrong = "it is about another fabric";
  if (!wrong.empty()) {
    fail(fmt::format("{} is damaged ({}): end the fabric with 'tbt fabric down --name {}'", path,
                     wrong, name));
  }
  return file;
}

void save_fabric(const fabric::FabricFile& file) {
  const std::string path = fabric_dir(file.name) + "/fabric.json";
  const std::string fresh = path + ".new";
  const std::string text = fabric::encode_fabric_file(file);
  const sys::UniqueFd fd(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  const bool written =
      fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!written || ::rename(fresh.c_str(), path.c_str()) != 0) {
    fail(fmt::format("cannot write {}: {}", path, strerror(errno)));
  }
}

std::optional<sys::ProcessName> find_daemon(const std::string& name, uint32_t host) {
  for (const auto& found : {process_from_pid_file(host_file(name, host, "pid")),
                            daemon_from_socket(host_file(name, host, "sock"))}) {
    if (found && sys::program_name_of(found->pid) == kDaemonProgram) return found;
  }
  return std::nullopt;
}

std::optional<sys::ProcessName> find_keeper(const std::string& name, uint32_t host) {
  const auto found = process_from_pid_file(host_file(name, host, "keeper"));
  return found && sys::program_name_of(found->pid) == kDaemonProgram ? found : std::nullopt;
}

bool remove_fabric_dir(const std::string& name) {
  const std::string dir = fabric_dir(name);
  for (uint32_t h = 0; h < rail::emulated::kHostsMax; h++) {
    for (const char* extension : {"sock", "pid", "log", "keeper"}) {
      ::unlink(host_file(name, h, extension).c_str());
    }
  }
  ::unlink((dir + "/fabric.json").c_str());
  ::unlink((dir + "/fabric.json.new").c_str());
  return ::rmdir(dir.c_str()) == 0 || errno == ENOENT;
}

}  // namespace tbt::tool
