// The file that says which process is a host's daemon.
#pragma once

#include <string>

#include "tbt/status.h"

namespace tbt::daemon {

// This process's pid and start time; EEXIST if there is such a file already.
Status write_pid_file(const std::string& path);

}  // namespace tbt::daemon
