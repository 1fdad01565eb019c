#include "tbt/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "fabric/directory.h"

namespace tbt::tool {
namespace {

using rail::emulated::CableEnds;

struct Pair {
  uint32_t a = 0, b = 0;
};

std::vector<Pair> regular_pairs(std::string_view kind, uint32_t hosts) {
  std::vector<Pair> pairs;
  for (uint32_t a = 0; a < hosts; a++) {
    for (uint32_t b = a + 1; b < hosts; b++) {
      const bool neighbours = b == a + 1;
      const bool closes_ring = kind == "ring" && a == 0 && b == hosts - 1;
      if (kind == "mesh" || neighbours || closes_ring) pairs.push_back({a, b});
    }
  }
  return pairs;
}

bool parse_number(std::string_view text, uint32_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

std::string parse_pairs(std::string_view list, uint32_t hosts, std::vector<Pair>& out) {
  while (true) {
    const size_t comma = list.find(',');
    const std::string_view item = list.substr(0, comma);
    const size_t dash = item.find('-');
    Pair pair;
    if (dash == std::string_view::npos || !parse_number(item.substr(0, dash), pair.a) ||
        !parse_number(item.substr(dash + 1), pair.b)) {
      return fmt::format("'{}' is no pair of hosts: write 0-1", item);
    }
    if (pair.a >= hosts || pair.b >= hosts || pair.a == pair.b) {
      return fmt::format("no cable can join hosts {}: there are hosts 0 to {}", item, hosts - 1);
    }
    out.push_back(pair);
    if (comma == std::string_view::npos) return {};
    list.remove_prefix(comma + 1);
  }
}

std::string connect(const TopologyWish& wish, const std::vector<Pair>& pairs,
                    std::vector<CableEnds>& out) {
  std::array<uint32_t, rail::emulated::kHostsMax> used{};
  const uint32_t room = std::min(wish.hops - 1, fabric::kCablesMax);
  for (const Pair& p : pairs) {
    for (uint32_t i = 0; i < wish.cables_per_pair; i++) {
      out.push_back({p.a, p.b, used[p.a]++, used[p.b]++});
    }
  }
  for (uint32_t h = 0; h < wish.hosts; h++) {
    if (used[h] == 0) return fmt::format("host {} has no cable", h);
    if (used[h] <= room) continue;
    return fmt::format("host {} would have {} cables, but a controller of {} hops has room for {}",
                       h, used[h], wish.hops, room);
  }
  if (out.size() > rail::emulated::kCablesMax) {
    return fmt::format("{} cables are too many: at most {}", out.size(),
                       rail::emulated::kCablesMax);
  }
  return {};
}

}  // namespace

std::string lay_cables(const TopologyWish& wish, std::vector<CableEnds>& out) {
  constexpr std::string_view kPairs = "pairs:";
  std::vector<Pair> pairs;
  if (wish.kind.starts_with(kPairs)) {
    const std::string wrong = parse_pairs(wish.kind.substr(kPairs.size()), wish.hosts, pairs);
    if (!wrong.empty()) return wrong;
  } else if (wish.kind == "mesh" || wish.kind == "ring" || wish.kind == "chain") {
    pairs = regular_pairs(wish.kind, wish.hosts);
  } else {
    return fmt::format("no topology is called '{}': use mesh, ring, chain or pairs:0-1,1-2",
                       wish.kind);
  }
  return connect(wish, pairs, out);
}

}  // namespace tbt::tool
