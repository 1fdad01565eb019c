// Processes by pid without mistaking one for another: a pid is trusted only together with its start
// time, and signals go through a pidfd that was opened before the start time was compared.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::sys {

struct ProcessName {
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // since boot, field 22 of /proc/PID/stat
  bool operator==(const ProcessName&) const = default;
};

// ESRCH if there is none (or it is a zombie).
Result<ProcessName> name_process(pid_t pid);

// Readable when the process ends. ESRCH if it has ended already.
Result<UniqueFd> open_pidfd(pid_t pid);

// A handle on exactly the named process; ESRCH if it is gone, even if another has its pid.
Result<UniqueFd> open_process(const ProcessName& name);
Status signal_process(int pidfd, int signal);
// True if it ended within the time.
bool wait_for_exit(int pidfd, int timeout_ms);

// The path of this program, with links resolved; empty if /proc is not there.
std::string own_program_path();
// The last part of the path of a process's program, without " (deleted)"; empty if it cannot be
// read.
std::string program_name_of(pid_t pid);

}  // namespace tbt::sys
