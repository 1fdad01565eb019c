// What the daemon answers to the operation "status", as JSON; docs/daemon.md lists the members.
#pragma once

#include <string>

#include "fabric/attach.h"
#include "fabric/host_agent.h"
#include "fabric/router_status.h"

namespace tbt::daemon {

std::string status_report(fabric::Attachment& host, const fabric::HostAgent& agent,
                          const fabric::RouterStatus& router);

}  // namespace tbt::daemon
