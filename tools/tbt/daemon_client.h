// Questions of the command line to a host's daemon.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "fabric/attach_protocol.h"
#include "tbt/status.h"

namespace tbt::tool {

// The daemon's answer to "status" (docs/daemon.md). Errors are those of connecting, ETIMEDOUT if it
// does not answer within 5 s, EACCES and EAGAIN if it refuses.
Result<nlohmann::json> ask_status(const std::string& socket_path);

// The same, with one line for the user on failure.
nlohmann::json status_or_fail(const std::string& fabric, uint32_t host);

// One fabric with its cables and what its daemons say of themselves, as `tbt fabric status --json`
// shows it. A host whose daemon does not answer has the member "error" in place of its status.
nlohmann::json fabric_report(const std::string& fabric);

// What a command is about that names no fabric: the host that this process is on, within `tbt run`,
// or where a tbtd serves a controller of this machine and no fabric is called "default".
bool is_about_own_host(bool names_one);
nlohmann::json own_status_or_fail();

// Fail if the daemon refuses, or there is no such host or cable.
void tell_or_fail(const std::string& fabric, uint32_t host, const fabric::Request& request);
void change_cable_or_fail(const std::string& fabric, uint32_t cable,
                          const fabric::CableSettings& settings);

// What a failure to reach the daemon of this host means and how to mend it.
std::string unreachable_text(const std::string& fabric, uint32_t host, const Status& status);

}  // namespace tbt::tool
