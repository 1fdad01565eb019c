// What the silicon of an emulated fabric says in a status: the counters of a host's controller, and
// the cables with their settings.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rail/emulated/emulated_fabric.h"

namespace tbt::daemon {

// Adds "controller" and "cables".
void report_silicon(const rail::emulated::EmulatedFabric& silicon, uint32_t host,
                    nlohmann::json& status);

}  // namespace tbt::daemon
