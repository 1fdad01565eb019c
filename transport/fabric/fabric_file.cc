#include "fabric/fabric_file.h"

#include <algorithm>

#include "fabric/directory.h"
#include "fabric/json_text.h"

namespace tbt::fabric {
namespace {

using nlohmann::json;
using rail::emulated::CableEnds;

constexpr uint32_t kFileVersion = 1;
constexpr size_t kNameMax = 32;
constexpr uint64_t kHopsMax = 64;

bool is_letter_or_digit(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool parse_cable(const json& item, uint32_t hosts, CableEnds& out) {
  const auto a = json_uint(item, "a", hosts - 1);
  const auto b = json_uint(item, "b", hosts - 1);
  const auto ordinal_a = json_uint(item, "ordinal_a", kCablesMax - 1);
  const auto ordinal_b = json_uint(item, "ordinal_b", kCablesMax - 1);
  if (!a || !b || !ordinal_a || !ordinal_b || *a == *b) return false;
  out = {static_cast<uint32_t>(*a), static_cast<uint32_t>(*b), static_cast<uint32_t>(*ordinal_a),
         static_cast<uint32_t>(*ordinal_b)};
  return true;
}

std::string parse_cables(const json& text, FabricFile& out) {
  const auto list = text.find("cables");
  if (list == text.end() || !list->is_array()) return "it lists no cables";
  if (list->size() > rail::emulated::kCablesMax) return "it lists too many cables";
  for (const json& item : *list) {
    CableEnds ends;
    if (!parse_cable(item, out.hosts, ends)) return "one of its cables makes no sense";
    out.cables.push_back(ends);
  }
  return {};
}

}  // namespace

bool fabric_name_is_legal(std::string_view name) noexcept {
  if (name.empty() || name.size() > kNameMax || !is_letter_or_digit(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return is_letter_or_digit(c) || c == '-' || c == '_' || c == '.';
  });
}

std::string encode_fabric_file(const FabricFile& file) {
  json cables = json::array();
  for (const CableEnds& c : file.cables) {
    cables.push_back(
        {{"a", c.host_a}, {"b", c.host_b}, {"ordinal_a", c.ordinal_a}, {"ordinal_b", c.ordinal_b}});
  }
  return json_dump({{"version", kFileVersion},
                    {"name", file.name},
                    {"hosts", file.hosts},
                    {"topology", file.topology},
                    {"hops", file.hops},
                    {"seed", file.seed},
                    {"cables", cables}}) +
         "\n";
}

std::string parse_fabric_file(std::string_view text, FabricFile& out) {
  const json file = parse_json_object(text);
  if (file.is_null()) return "it is not JSON";
  if (json_uint(file, "version", UINT32_MAX) != kFileVersion) return "it is of another version";
  const auto name = json_string(file, "name");
  const auto hosts = json_uint(file, "hosts", rail::emulated::kHostsMax);
  const auto hops = json_uint(file, "hops", kHopsMax);
  const auto seed = json_uint(file, "seed", UINT64_MAX);
  if (!name || !fabric_name_is_legal(*name)) return "its name is missing or not allowed";
  if (!hosts || *hosts < 2) return "its number of hosts is missing or not allowed";
  if (!hops || !seed) return "its hops or seed are missing or not allowed";
  out = {.name = *name,
         .hosts = static_cast<uint32_t>(*hosts),
         .topology = json_string(file, "topology").value_or(""),
         .hops = static_cast<uint32_t>(*hops),
         .seed = *seed,
         .cables = {}};
  return parse_cables(file, out);
}

}  // namespace tbt::fabric
