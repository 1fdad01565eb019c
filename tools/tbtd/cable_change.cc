#include "tbtd/cable_change.h"

#include <spdlog/spdlog.h>

#include "sys/event_fd.h"

namespace tbt::daemon {

Answer change_cable(rail::emulated::EmulatedFabric& silicon,
                    std::span<const sys::UniqueFd> interrupts, const fabric::Request& request) {
  if (request.cable >= silicon.cables()) {
    return {.text = fabric::encode_refusal(ENODEV, "the fabric has no such cable")};
  }
  auto params = silicon.params(request.cable);
  fabric::apply_settings(request.settings, params);
  silicon.set_params(request.cable, params);
  spdlog::info("cable {} of the fabric was changed", request.cable);
  const auto ends = silicon.ends(request.cable);
  for (const uint32_t host : {ends.host_a, ends.host_b}) {
    sys::signal_eventfd(interrupts[host].get());
  }
  return {.text = fabric::encode_done()};
}

}  // namespace tbt::daemon
