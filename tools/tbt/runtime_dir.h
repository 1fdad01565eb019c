// Where the fabrics of this user live, and what is in a fabric's folder; docs/daemon.md has the
// list.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "fabric/fabric_file.h"
#include "sys/process.h"

namespace tbt::tool {

// $TBT_RUNTIME_DIR; else /run/tbt for root; else $XDG_RUNTIME_DIR/tbt; else /tmp/tbt-UID.
std::string runtime_dir();
// Makes it (0700) if it is not there; fails if it is another user's or others may write to it.
void make_runtime_dir();

// Fails if the name is not a legal one.
std::string fabric_dir(const std::string& name);
std::string host_file(const std::string& name, uint32_t host, const char* extension);
bool fabric_exists(const std::string& name);
std::vector<std::string> fabric_names();

// Fails, with the way to mend it, if there is no such fabric or its file is damaged.
fabric::FabricFile load_fabric(const std::string& name);
// Whole or not at all.
void save_fabric(const fabric::FabricFile& file);

// The daemon of a host if it runs: from its pid file, checked against the start time and the
// program's name; failing that, from the credentials of whoever listens on its socket.
std::optional<sys::ProcessName> find_daemon(const std::string& name, uint32_t host);

// The keeper of a host, which replaces its daemon if that is killed.
std::optional<sys::ProcessName> find_keeper(const std::string& name, uint32_t host);

// Removes the files that tbt makes, and the folder. False if something else is in it.
bool remove_fabric_dir(const std::string& name);

}  // namespace tbt::tool
