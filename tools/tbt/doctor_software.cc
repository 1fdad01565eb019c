// The doctor's checks of limits, libraries and folders.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "rail/host_memory.h"
#include "sys/file_look.h"
#include "tbt/doctor.h"

namespace tbt::tool {
namespace {

using sys::exists;
using sys::link_target_name;

constexpr uint64_t kMemlockComfortable = uint64_t{1} << 30;
// A process holds 17 descriptors of ours in the largest fabric, a daemon one more per process.
constexpr uint64_t kOpenFilesNeeded = 256;
constexpr const char* kVerbsLibrary = "libibverbs.so.1";
constexpr const char* kUcxDevice = "/dev/infiniband/tbt0";

constexpr std::array kLibraryFolders = {
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib",
    "/lib64",
};

std::string limit_text(uint64_t value) {
  if (value == UINT64_MAX) return "unlimited";
  if (value >= (1 << 20)) return fmt::format("{} MiB", value >> 20);
  return fmt::format("{} KiB", value >> 10);
}

// rdma-core numbers the library 1.<ABI>.<rdma-core version>: libibverbs.so.1.14.44.0 is of 44.0.
std::string rdma_core_version(const std::string& file) {
  unsigned abi = 0, major = 0, minor = 0;
  if (std::sscanf(file.c_str(), "libibverbs.so.1.%u.%u.%u", &abi, &major, &minor) != 3) return "";
  return fmt::format("{}.{}", major, minor);
}

bool may_be_made(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string parent = slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
  return ::access(parent.c_str(), W_OK | X_OK) == 0;
}

Check fixed(Check check, std::string text, std::string next) {
  check.result = CheckResult::kFix;
  check.text = std::move(text);
  check.next = std::move(next);
  return check;
}

}  // namespace

// Of a controller with two ports: what its daemon locks at once. A process locks what it registers.
Check check_memlock(const Machine& m) {
  const uint64_t wanted = rail::HostMemory::dma_bytes_of({.cables = 2});
  Check check{.name = "memlock", .text = limit_text(m.memlock_bytes)};
  if (m.memlock_bytes >= kMemlockComfortable) return check;
  check.result = CheckResult::kMissing;
  check.next = fmt::format(
      "enough for emulated fabrics; a controller's daemon locks {} ({} bytes){}, and a process "
      "what it registers, or its payload is copied: ulimit -l unlimited (memlock in "
      "/etc/security/limits.conf, LimitMEMLOCK= of a service)",
      limit_text(wanted), wanted, m.memlock_bytes < wanted ? ", which is more" : "");
  return check;
}

Check check_open_files(const Machine& m) {
  const Check check{
      .name = "open files",
      .text = m.open_files == UINT64_MAX ? "unlimited" : fmt::format("{}", m.open_files),
      .needed = true};
  if (m.open_files >= kOpenFilesNeeded) return check;
  return fixed(check, check.text, fmt::format("ulimit -n {} or more", kOpenFilesNeeded));
}

Check check_libibverbs(const Machine& m) {
  Check check{.name = "libibverbs"};
  for (const char* folder : kLibraryFolders) {
    const std::string path = std::string(folder) + "/" + kVerbsLibrary;
    if (!exists(m.root + path)) continue;
    const std::string version = rdma_core_version(link_target_name(m.root + path));
    check.text = version.empty() ? path : fmt::format("{}, rdma-core {}", path, version);
    return check;
  }
  check.result = CheckResult::kMissing;
  check.text = "the system has none";
  check.next =
      "not needed by 'tbt run'; for other RDMA devices and for test programs: "
      "apt install libibverbs1 ibverbs-utils perftest";
  return check;
}

Check check_front_door(const Machine& m) {
  Check check{.name = "front door", .needed = true};
  check.text = m.front_door_dir + "/" + kVerbsLibrary;
  if (exists(m.root + check.text)) return check;
  return fixed(check, check.text + " is not there", "build or install the whole of tbt-rdma");
}

Check check_ucx_device(const Machine& m) {
  Check check{.name = "ucx device", .text = kUcxDevice};
  struct stat info {};
  if (::stat((m.root + kUcxDevice).c_str(), &info) == 0) {
    if (S_ISCHR(info.st_mode)) return check;
    return fixed(check, std::string(kUcxDevice) + " is no character device", "remove it");
  }
  check.result = CheckResult::kMissing;
  check.text = fmt::format("no {}", kUcxDevice);
  check.next =
      "UCX (and Open MPI above it) passes over a device without one: "
      "mkdir -p /dev/infiniband && mknod -m 666 /dev/infiniband/tbt0 c 1 3";
  return check;
}

Check check_runtime_dir(const Machine& m) {
  Check check{.name = "runtime folder", .text = m.runtime_dir, .needed = true};
  const std::string path = m.root + m.runtime_dir;
  const char* elsewhere = "set TBT_RUNTIME_DIR to a folder that you own";
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (!may_be_made(path)) return fixed(check, m.runtime_dir + " cannot be made", elsewhere);
    check.text += " (made when needed)";
    return check;
  }
  if (!S_ISDIR(info.st_mode)) return fixed(check, m.runtime_dir + " is no folder", elsewhere);
  if (info.st_uid != ::geteuid()) {
    return fixed(check, m.runtime_dir + " belongs to another user", elsewhere);
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fixed(check, "others may write to " + m.runtime_dir, "chmod 700 " + m.runtime_dir);
  }
  return check;
}

const char* check_result_name(CheckResult result) noexcept {
  switch (result) {
    case CheckResult::kOk:
      return "ok";
    case CheckResult::kMissing:
      return "missing";
    case CheckResult::kFix:
      return "fix";
  }
  return "?";
}

std::vector<Check> check_machine(const Machine& m) {
  std::vector<Check> checks;
  for (const auto check :
       {check_kernel, check_controllers, check_domains, check_thunderbolt_net, check_tbstream,
        check_vfio, check_memlock, check_open_files, check_libibverbs, check_front_door,
        check_ucx_device, check_runtime_dir}) {
    checks.push_back(check(m));
  }
  return checks;
}

int exit_code_of(const std::vector<Check>& checks) noexcept {
  const bool broken = std::any_of(checks.begin(), checks.end(), [](const Check& check) {
    return check.needed && check.result != CheckResult::kOk;
  });
  return broken ? 1 : 0;
}

}  // namespace tbt::tool
