// What the daemon answers to the operation "status", as JSON; docs/daemon.md lists the members.
#pragma once

#include <sys/types.h>

#include <string>

#include "fabric/host_agent.h"
#include "fabric/router_status.h"
#include "tbtd/hardware.h"

namespace tbt::daemon {

std::string status_report(Hardware& hardware, const fabric::HostAgent& agent,
                          const fabric::RouterStatus& router, uint32_t restarts);

// The same of a host that is left to a virtual machine.
struct GuestReport {
  std::string fabric;
  uint32_t host = 0;
  pid_t served_by = 0;  // 0: nobody plays its controller now
};
std::string guest_status_report(const rail::emulated::EmulatedFabric& silicon,
                                const GuestReport& guest);

}  // namespace tbt::daemon
