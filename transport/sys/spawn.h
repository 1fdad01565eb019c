// Starts a program as a daemon: its own session, no terminal, output to a log file, and a given
// list of descriptors inherited from number 3 upwards; every other descriptor is closed.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tbt/status.h"

namespace tbt::sys {

struct SpawnOptions {
  std::string program;
  std::vector<std::string> arguments;  // without the program's name
  std::vector<int> fds;                // become 3, 4, ... in the child
  std::string log_path;                // created with mode 0600, appended to
};

// Returns the pid once the program runs (exec succeeded); the errno of what failed otherwise. The
// caller is the parent and must reap it if it outlives it.
Result<pid_t> spawn_daemon(const SpawnOptions& options);

}  // namespace tbt::sys
