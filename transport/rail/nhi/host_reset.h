// Host router reset: the router behind the NHI, and with it every ring, path and adapter of this
// host, begins anew. Nothing of another driver's set-up is left.
#pragma once

#include <cstdint>
#include <functional>

#include "rail/nhi/pci_device.h"
#include "tbt/status.h"

namespace tbt::rail::nhi {

using SleepUs = std::function<void(uint32_t)>;

// USB4 v2: bit 0 of kRegResetV2, 100 ms, then up to 500 ms until it reads 0 (K7.3: nhi.c). USB4 v1:
// bit 0 of kRegResetV1, up to 10 ms (thunderbolt-utils; Linux does without). ETIMEDOUT if it does
// not end, ENODEV if the controller is gone.
Status reset_host_router(PciDevice& device, const SleepUs& sleep_us);

}  // namespace tbt::rail::nhi
