#include "fabric/cable_settings.h"

#include <charconv>
#include <cmath>
#include <span>

namespace tbt::fabric {
namespace {

enum class Unit { kRate, kTime, kProbability, kYesNo };

struct FieldInfo {
  const char* name;  // in the protocol
  const char* key;   // on the command line
  Unit unit;
  uint64_t max;
};

constexpr uint64_t kMillion = 1000000;
constexpr std::array<FieldInfo, kCableFields> kFields{{
    {"rate_bps", "rate", Unit::kRate, 1000ull * 1000 * kMillion},
    {"latency_ns", "latency", Unit::kTime, 10ull * 1000 * kMillion},
    {"drop_ppm", "drop", Unit::kProbability, kMillion},
    {"corrupt_ppm", "corrupt", Unit::kProbability, kMillion},
    {"duplicate_ppm", "duplicate", Unit::kProbability, kMillion},
    {"lost_interrupt_ppm", "lost-interrupt", Unit::kProbability, kMillion},
    {"stranded_ppm", "stranded", Unit::kProbability, kMillion},
    {"plugged", "plugged", Unit::kYesNo, 1},
    {"one_lane", "one-lane", Unit::kYesNo, 1},
}};

struct Suffix {
  std::string_view text;
  double factor;
};
constexpr std::array<Suffix, 4> kRateSuffixes{{{"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}}};
constexpr std::array<Suffix, 5> kTimeSuffixes{
    {{"", 1}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}}};
constexpr std::array<Suffix, 2> kProbabilitySuffixes{{{"%", 1e4}, {"ppm", 1}}};

std::span<const Suffix> suffixes_of(Unit unit) noexcept {
  switch (unit) {
    case Unit::kRate:
      return kRateSuffixes;
    case Unit::kTime:
      return kTimeSuffixes;
    default:
      return kProbabilitySuffixes;
  }
}

bool parse_yes_no(std::string_view text, uint64_t& out) noexcept {
  const bool yes = text == "yes" || text == "1" || text == "true";
  const bool no = text == "no" || text == "0" || text == "false";
  out = yes ? 1 : 0;
  return yes || no;
}

// A bare 0 needs no unit, whatever the field.
bool parse_value(const FieldInfo& field, std::string_view text, uint64_t& out) noexcept {
  if (field.unit == Unit::kYesNo) return parse_yes_no(text, out);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !(number >= 0) || !std::isfinite(number)) return false;
  const std::string_view suffix = text.substr(static_cast<size_t>(end - text.data()));
  if (number == 0 && suffix.empty()) {
    out = 0;
    return true;
  }
  for (const Suffix& s : suffixes_of(field.unit)) {
    if (suffix != s.text) continue;
    const double value = std::round(number * s.factor);
    if (value > static_cast<double>(field.max)) return false;
    out = static_cast<uint64_t>(value);
    return true;
  }
  return false;
}

std::string parse_item(std::string_view item, CableSettings& out) {
  const size_t equals = item.find('=');
  if (equals == std::string_view::npos) {
    const auto preset = rail::emulated::cable_preset(item);
    if (!preset) {
      return "no cable is called '" + std::string(item) + "': use ideal, tb5, usb4-40 or key=value";
    }
    out = settings_of(preset.value());
    return {};
  }
  const std::string_view key = item.substr(0, equals);
  for (size_t i = 0; i < kFields.size(); i++) {
    if (key != kFields[i].key) continue;
    uint64_t value = 0;
    if (!parse_value(kFields[i], item.substr(equals + 1), value)) {
      return "'" + std::string(item) + "' is out of range or has no such unit";
    }
    out.values[i] = value;
    return {};
  }
  std::string keys;
  for (const FieldInfo& f : kFields) keys += (keys.empty() ? "" : ", ") + std::string(f.key);
  return "a cable has no '" + std::string(key) + "': its keys are " + keys;
}

}  // namespace

const char* cable_field_name(CableField field) noexcept { return kFields[field].name; }
uint64_t cable_field_max(CableField field) noexcept { return kFields[field].max; }

void apply_settings(const CableSettings& settings, rail::emulated::CableParams& params) noexcept {
  const auto set = [&settings](CableField field, auto& member) {
    using Member = std::remove_reference_t<decltype(member)>;
    if (settings.values[field]) member = static_cast<Member>(*settings.values[field]);
  };
  set(kRateBps, params.rate_bps);
  set(kLatencyNs, params.latency_ns);
  set(kDropPpm, params.drop_ppm);
  set(kCorruptPpm, params.corrupt_ppm);
  set(kDuplicatePpm, params.duplicate_ppm);
  set(kLostInterruptPpm, params.lost_interrupt_ppm);
  set(kStrandedPpm, params.stranded_ppm);
  set(kPlugged, params.plugged);
  set(kOneLane, params.one_lane);
}

CableSettings settings_of(const rail::emulated::CableParams& params) noexcept {
  CableSettings out;
  out.values = {params.rate_bps,      static_cast<uint64_t>(params.latency_ns),
                params.drop_ppm,      params.corrupt_ppm,
                params.duplicate_ppm, params.lost_interrupt_ppm,
                params.stranded_ppm,  params.plugged ? 1u : 0u,
                params.one_lane ? 1u : 0u};
  return out;
}

std::string parse_cable_text(std::string_view text, CableSettings& out) {
  if (text.empty()) return "a cable's description is empty";
  while (true) {
    const size_t comma = text.find(',');
    if (std::string wrong = parse_item(text.substr(0, comma), out); !wrong.empty()) return wrong;
    if (comma == std::string_view::npos) return {};
    text.remove_prefix(comma + 1);
  }
}

}  // namespace tbt::fabric
