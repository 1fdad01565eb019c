// What the daemon answers to the operation "status", as JSON; docs/daemon.md lists the members.
#pragma once

#include <string>

#include "fabric/attach.h"
#include "fabric/host_agent.h"

namespace tbt::daemon {

std::string status_report(fabric::Attachment& host, const fabric::HostAgent& agent);

}  // namespace tbt::daemon
