// A file that names a process so that it is not mistaken for another: its pid, and its start time
// in clock ticks since boot.
#pragma once

#include <string>

#include "tbt/status.h"

namespace tbt::daemon {

// Of this process; EEXIST if the file is there.
Status write_pid_file(const std::string& path);

// Removes what a tbtd that was killed has left: the files that begin with `stem`. EADDRINUSE if one
// is at work there.
Status clear_remains(const std::string& stem);

}  // namespace tbt::daemon
