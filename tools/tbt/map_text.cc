// The text form, the graph for Graphviz, and the words that all drawings share.
#include <fmt/format.h>

#include "tbt/map_drawing.h"

namespace tbt::tool {
namespace {

void print_port(const FabricMap& map, const MapHost& host, const MapPort& port, std::string& out) {
  std::string head = fmt::format("  port {}", port.port);
  if (port.cable) head += fmt::format("  cable {}", *port.cable);
  for (const MapCable& cable : map.cables) {
    if (port.cable != cable.number) continue;
    head += fmt::format("  to host {}", cable.host_a == host.number ? cable.host_b : cable.host_a);
  }
  out += fmt::format("{}  {:<13}  {}\n", head, speed_words(port), far_words(port));
  if (carries_frames(port) || carries_ip(port)) {
    out += fmt::format("    {}\n", path_words(port));
  }
}

// A host that does not answer still has cables.
void print_cables(const FabricMap& map, const MapHost& host, std::string& out) {
  for (const MapCable& cable : map.cables) {
    const bool from_a = cable.host_a == host.number;
    if (!from_a && cable.host_b != host.number) continue;
    out +=
        fmt::format("  cable {}  to host {}\n", cable.number, from_a ? cable.host_b : cable.host_a);
  }
}

// Inside a quoted string of the DOT language a backslash begins an escape of labels.
std::string dot_quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string hop_ids_of(const MapPath& path) {
  return fmt::format("HopID {} out, {} in", path.out_hop_id, path.in_hop_id);
}

}  // namespace

std::string host_note(const MapHost& host) {
  if (!host.silent.empty()) return "silent";
  if (host.guest) return "virtual machine";
  if (!host.refusal.empty()) return "refused: " + host.refusal;
  return {};
}

CableWords words_of(const FabricMap& map, const MapCable& cable) {
  const MapPort* a = end_of(map, cable, cable.host_a);
  const MapPort* b = end_of(map, cable, cable.host_b);
  const MapPort* known = a != nullptr ? a : b;
  CableWords words;
  words.speed = fmt::format("cable {}", cable.number);
  if (known == nullptr) {
    words.state = "neither host answers";
    return words;
  }
  if (known->speed_gbps != 0) words.speed += ": " + speed_words(*known);
  words.carries_frames = carries_frames(*known) && (b == nullptr || carries_frames(*b));
  // The end that has something to complain of speaks.
  const MapPort& speaker = b != nullptr && carries_frames(*known) ? *b : *known;
  words.state = speaker.path ? hop_ids_of(*known->path) : far_words(speaker);
  return words;
}

std::string map_as_text(const FabricMap& map) {
  std::string out = fmt::format("fabric '{}'  {}  {} hosts, {} cables\n", map.name, map.topology,
                                map.hosts.size(), map.cables.size());
  for (const MapHost& host : map.hosts) {
    out += fmt::format("host {}  {}", host.number, host.name);
    if (!host.uuid.empty()) out += "  " + host.uuid;
    if (host.usb4_version != 0) out += fmt::format("  USB4 v{}", host.usb4_version);
    const std::string note = host.silent.empty() ? host_note(host) : "silent: " + host.silent;
    if (!note.empty()) out += "  " + note;
    out += '\n';
    for (const MapPort& port : host.ports) print_port(map, host, port, out);
    if (host.ports.empty()) print_cables(map, host, out);
  }
  return out;
}

std::string map_as_dot(const FabricMap& map) {
  std::string out =
      fmt::format("graph {} {{\n  layout=circo;\n  node [shape=box];\n", dot_quoted(map.name));
  for (const MapHost& host : map.hosts) {
    const std::string note = host_note(host);
    const std::string label = note.empty() ? host.name : host.name + "\n" + note;
    out += fmt::format("  {} [label={}{}];\n", host.number, dot_quoted(label),
                       host.silent.empty() ? "" : ", style=dashed");
  }
  for (const MapCable& cable : map.cables) {
    const CableWords words = words_of(map, cable);
    out += fmt::format("  {} -- {} [label={}{}];\n", cable.host_a, cable.host_b,
                       dot_quoted(words.speed + "\n" + words.state),
                       words.carries_frames ? "" : ", style=dashed");
  }
  return out + "}\n";
}

}  // namespace tbt::tool
