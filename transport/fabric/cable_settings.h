// CableSettings: a change to a cable's parameters, as the command line writes it ("tb5,drop=1%"),
// as the daemon's protocol carries it, and as it is applied to the emulated cable. One table names
// the fields.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rail/emulated/emulated_fabric.h"

namespace tbt::fabric {

enum CableField : size_t {
  kRateBps,
  kLatencyNs,
  kDropPpm,
  kCorruptPpm,
  kDuplicatePpm,
  kLostInterruptPpm,
  kStrandedPpm,
  kPlugged,
  kOneLane,
  kCableFields
};

// The name in the daemon's protocol ("drop_ppm") and the greatest value allowed.
const char* cable_field_name(CableField field) noexcept;
uint64_t cable_field_max(CableField field) noexcept;

struct CableSettings {
  std::array<std::optional<uint64_t>, kCableFields> values{};
};

void apply_settings(const CableSettings& settings, rail::emulated::CableParams& params) noexcept;
CableSettings settings_of(const rail::emulated::CableParams& params) noexcept;

// Parses comma-separated items, later ones winning: a preset's name, or key=value with the keys
// rate (bits per second; k, M, G), latency (ns, us, ms), drop, corrupt, duplicate, lost-interrupt,
// stranded (a percentage "1%" or "500ppm"), plugged and one-lane (yes, no). Returns an empty string, or what
// is wrong.
std::string parse_cable_text(std::string_view text, CableSettings& out);

}  // namespace tbt::fabric
