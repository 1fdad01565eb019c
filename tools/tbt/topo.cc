// tbt topo: the hosts of a fabric, the cables between them and what is at their ends, as text, as a
// graph for Graphviz, as a picture, or as JSON.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "fabric/json_text.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/map_drawing.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

struct TopoOptions {
  std::string fabric = "default";
  std::string format = "text";
  std::string output;
  std::string source;
};

std::string whole(std::istream& stream) { return {std::istreambuf_iterator<char>(stream), {}}; }

// What `tbt fabric status --json` printed: a list of fabrics.
json saved_report(const TopoOptions& o) {
  std::string text;
  if (o.source == "-") {
    text = whole(std::cin);
  } else {
    std::ifstream file(o.source, std::ios::binary);
    if (!file) fail(fmt::format("cannot read {}: {}", o.source, strerror(errno)));
    text = whole(file);
  }
  const json all = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!all.is_array()) {
    fail(fmt::format("{} is not what 'tbt fabric status --json' prints", o.source));
  }
  for (const json& report : all) {
    if (fabric::json_string(report, "name") == o.fabric) return report;
  }
  fail(fmt::format("{} says nothing of a fabric '{}'", o.source, o.fabric));
}

std::string drawn(const FabricMap& map, const std::string& format) {
  if (format == "dot") return map_as_dot(map);
  if (format == "svg") return map_as_svg(map);
  if (format == "json") return fabric::json_dump(json_of_map(map)) + "\n";
  return map_as_text(map);
}

void write(const std::string& text, const std::string& path) {
  std::FILE* file = path.empty() ? stdout : std::fopen(path.c_str(), "w");
  bool ok = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  ok = ok && std::fflush(file) == 0;
  const int code = errno;
  if (file != nullptr && file != stdout) std::fclose(file);
  if (!ok) {
    fail(fmt::format("cannot write {}: {}", path.empty() ? "the output" : path, strerror(code)));
  }
}

// Of a real fabric a machine knows its own ends of the cables only.
json own_report() {
  const json status = own_status_or_fail();
  return {{"name", status.value("fabric", "")},
          {"cables", json::array()},
          {"hosts", json::array({status})}};
}

void run(const TopoOptions& o, bool names_one) {
  const json report = !o.source.empty()              ? saved_report(o)
                      : is_about_own_host(names_one) ? own_report()
                                                     : fabric_report(o.fabric);
  write(drawn(map_of_fabric(report), o.format), o.output);
}

}  // namespace

void add_topo(CLI::App& app) {
  auto o = std::make_shared<TopoOptions>();
  CLI::App* command =
      app.add_subcommand("topo", "Show hosts and cables, and what is at the ends of the cables");
  command->add_option("--fabric", o->fabric, "name of the fabric")->capture_default_str();
  command->add_option("--format", o->format, "text, dot (Graphviz), svg or json")
      ->check(CLI::IsMember({"text", "dot", "svg", "json"}))
      ->capture_default_str();
  command->add_option("-o,--output", o->output, "write to this file, not to standard output");
  command->add_option("--from", o->source,
                      "read what 'tbt fabric status --json' printed from this file ('-': standard "
                      "input), and ask no daemon");
  command->callback([o, command] { run(*o, command->count("--fabric") > 0); });
}

}  // namespace tbt::tool
