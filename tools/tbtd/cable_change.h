// The operation "cable", for whichever process of a host is asked.
#pragma once

#include <span>

#include "fabric/attach_protocol.h"
#include "rail/emulated/emulated_fabric.h"
#include "sys/unique_fd.h"
#include "tbtd/clients.h"

namespace tbt::daemon {

// `interrupts` are the hosts', in order: both ends of the cable look at it again, at once.
Answer change_cable(rail::emulated::EmulatedFabric& silicon,
                    std::span<const sys::UniqueFd> interrupts, const fabric::Request& request);

}  // namespace tbt::daemon
