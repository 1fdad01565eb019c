#include "tbtd/silicon_report.h"

#include <nlohmann/json.hpp>

#include "fabric/cable_settings.h"

namespace tbt::daemon {
namespace {

using nlohmann::json;

json cables_of(const rail::emulated::EmulatedFabric& silicon) {
  json out = json::array();
  for (uint32_t c = 0; c < silicon.cables(); c++) {
    const rail::emulated::CableEnds ends = silicon.ends(c);
    const fabric::CableSettings settings = fabric::settings_of(silicon.params(c));
    json item{{"cable", c}, {"a", ends.host_a}, {"b", ends.host_b}};
    for (size_t i = 0; i < fabric::kCableFields; i++) {
      item[fabric::cable_field_name(static_cast<fabric::CableField>(i))] = *settings.values[i];
    }
    out.push_back(std::move(item));
  }
  return out;
}

json controller_of(const rail::emulated::NhiCounters& c) {
  return {{"interrupts", c.interrupts},
          {"dma_faults", c.dma_faults},
          {"misuse", c.misuse},
          {"last_misuse", c.last_misuse},
          {"pdf_drops", c.pdf_drops},
          {"overruns", c.overruns},
          {"unreachable", c.unreachable},
          {"control_drops", c.control_drops},
          {"mapped_bytes", c.mapped_bytes}};
}

}  // namespace

void report_silicon(const rail::emulated::EmulatedFabric& silicon, uint32_t host, json& status) {
  status["controller"] = controller_of(silicon.counters(host));
  status["cables"] = cables_of(silicon);
}

}  // namespace tbt::daemon
