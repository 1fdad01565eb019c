// The picture: SVG, written as text.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tbt/map_drawing.h"

namespace tbt::tool {
namespace {

constexpr double kMargin = 130;  // around the circle, for the hosts' boxes
constexpr double kBoxHalfWidth = 75;
constexpr double kBoxHalfHeight = 26;
constexpr double kParallel = 44;  // between cables of the same two hosts
constexpr size_t kWordsMax = 44;  // characters beside a line; a hint shows all of them

struct Point {
  double x = 0, y = 0;
};

// Text of an element or an attribute. What XML cannot say at all becomes '?'.
std::string xml(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    // U+FFFE and U+FFFF.
    if (text.compare(i, 2, "\xef\xbf") == 0 && i + 2 < text.size() &&
        static_cast<unsigned char>(text[i + 2]) >= 0xbe) {
      out += '?';
      i += 2;
      continue;
    }
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return out;
}

// At most `max` characters, none of them halved.
std::string shortened(const std::string& text, size_t max) {
  const auto begins = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); i++) {
    if (begins(text[i]) && ++characters > max) return text.substr(0, i) + "...";
  }
  return text;
}

// The larger the circle, the more hosts keep clear of each other.
double radius_of(const FabricMap& map) {
  return map.hosts.size() < 2 ? 0 : 120 + 45 * static_cast<double>(map.hosts.size());
}

Point place_of(const FabricMap& map, uint32_t number) {
  const auto at =
      std::ranges::find_if(map.hosts, [&](const MapHost& host) { return host.number == number; });
  const auto index = static_cast<double>(at - map.hosts.begin());
  const double radius = radius_of(map);
  // Two hosts lie side by side, more begin at the top.
  const double start = map.hosts.size() == 2 ? -1 : -0.5;
  const double angle =
      std::numbers::pi * (start + 2 * index / static_cast<double>(map.hosts.size()));
  return {kMargin + radius * (1 + std::cos(angle)), kMargin + radius * (1 + std::sin(angle))};
}

bool same_hosts(const MapCable& a, const MapCable& b) {
  return std::minmax(a.host_a, a.host_b) == std::minmax(b.host_a, b.host_b);
}

void draw_cable(const FabricMap& map, const MapCable& cable, std::string& out) {
  // Seen from the lower host, so that cables of the same two hosts are moved to different sides.
  const auto [low, high] = std::minmax(cable.host_a, cable.host_b);
  Point from = place_of(map, low), to = place_of(map, high);
  const double length = std::max(std::hypot(to.x - from.x, to.y - from.y), 1.0);
  long before = 0, all = 0;
  for (const MapCable& other : map.cables) {
    if (!same_hosts(other, cable)) continue;
    ++all;
    if (&other < &cable) ++before;
  }
  const double side = kParallel * (static_cast<double>(before) - static_cast<double>(all - 1) / 2);
  const Point normal{-(to.y - from.y) / length * side, (to.x - from.x) / length * side};
  from = {from.x + normal.x, from.y + normal.y};
  to = {to.x + normal.x, to.y + normal.y};
  // Lines that cross the circle meet near its middle: their words stand before it.
  const bool neighbours = high - low == 1 || high - low + 1 == map.hosts.size();
  const double part = neighbours ? 0.5 : 0.3;
  const Point words_at{from.x + part * (to.x - from.x), from.y + part * (to.y - from.y)};
  double turn = std::atan2(to.y - from.y, to.x - from.x) * 180 / std::numbers::pi;
  if (turn > 90) turn -= 180;
  if (turn <= -90) turn += 180;
  const CableWords words = words_of(map, cable);
  out += fmt::format(
      "<g class=\"cable {}\"><title>{}</title>\n"
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
      words.carries_frames ? "open" : "shut", xml(words.speed + ", " + words.state), from.x, from.y,
      to.x, to.y);
  out += fmt::format(
      "<g transform=\"translate({:.1f} {:.1f}) rotate({:.1f})\">"
      "<text y=\"-5\">{}</text><text y=\"14\">{}</text></g></g>\n",
      words_at.x, words_at.y, turn, xml(words.speed), xml(shortened(words.state, kWordsMax)));
}

void draw_host(const FabricMap& map, const MapHost& host, std::string& out) {
  const Point at = place_of(map, host.number);
  const std::string note = host_note(host);
  const std::string hint = host.silent.empty() ? host.uuid : host.silent;
  out +=
      fmt::format("<g class=\"host{}\" transform=\"translate({:.1f} {:.1f})\"><title>{}</title>\n",
                  host.silent.empty() ? "" : " silent", at.x, at.y, xml(hint));
  out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
                     -kBoxHalfWidth, -kBoxHalfHeight, 2 * kBoxHalfWidth, 2 * kBoxHalfHeight);
  out += fmt::format("<text class=\"name\" y=\"{}\">{}</text>", note.empty() ? 5 : -3,
                     xml(shortened(host.name, 16)));
  if (!note.empty()) out += fmt::format("<text y=\"14\">{}</text>", xml(shortened(note, 22)));
  out += "</g>\n";
}

constexpr const char* kStyle =
    "<style>\n"
    "text { font: 12px sans-serif; text-anchor: middle; }\n"
    "text.name { font-weight: bold; font-size: 14px; }\n"
    ".cable text { stroke: white; stroke-width: 3px; paint-order: stroke; }\n"
    ".cable line { stroke: #2a7d46; stroke-width: 3; }\n"
    ".cable.shut line { stroke: #b03a2e; stroke-dasharray: 6 5; }\n"
    ".host rect { fill: #eef3fa; stroke: #33527a; stroke-width: 1.5; }\n"
    ".host.silent rect { fill: #f3f3f3; stroke: #888; stroke-dasharray: 4 4; }\n"
    "</style>\n";

}  // namespace

std::string map_as_svg(const FabricMap& map) {
  const double size = 2 * (kMargin + radius_of(map));
  std::string out = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {0:.0f}\" width=\"{0:.0f}\" "
      "height=\"{0:.0f}\">\n"
      "<title>fabric {1}</title>\n{2}<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      size, xml(map.name), kStyle);
  for (const MapCable& cable : map.cables) draw_cable(map, cable, out);
  for (const MapHost& host : map.hosts) draw_host(map, host, out);
  return out + "</svg>\n";
}

}  // namespace tbt::tool
