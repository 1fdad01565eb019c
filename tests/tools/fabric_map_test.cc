// What tbt makes of the daemons' statuses: the words for each port, and the drawings.
#include "tbt/fabric_map.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tbt/map_drawing.h"

namespace tbt::tool {
namespace {

using nlohmann::json;

MapPort port_that(const char* state) {
  MapPort port;
  port.state = state;
  return port;
}

MapPort up_port(uint32_t cable, const char* peer) {
  MapPort port = port_that("up");
  port.cable = cable;
  port.speed_gbps = 40;
  port.lanes = 2;
  port.peer = MapPeer{.name = peer,
                      .uuid = "u",
                      .runs_tbt = true,
                      .thunderbolt_net = false,
                      .services = {"tbtrdma"}};
  port.path = MapPath{.tx_ring = 1,
                      .rx_ring = 2,
                      .out_hop_id = 8,
                      .in_hop_id = 9,
                      .peer_rail = 0,
                      .flow_control = "",
                      .flow_reason = ""};
  return port;
}

FabricMap two_hosts() {
  FabricMap map{.name = "f", .topology = "mesh", .hosts = {}, .cables = {{0, 0, 1}}};
  for (uint32_t h = 0; h < 2; h++) {
    map.hosts.push_back({});
    map.hosts[h].number = h;
    map.hosts[h].name = "host" + std::to_string(h);
    map.hosts[h].ports.push_back(up_port(0, h == 0 ? "host1" : "host0"));
  }
  return map;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(FabricMap, SaysWhatIsAtTheFarEnd) {
  EXPECT_EQ(far_words(up_port(0, "host1")), "host1");
  EXPECT_EQ(far_words(port_that("unplugged")), "unplugged");
  EXPECT_EQ(far_words(port_that("not a host")), "not a host");
  MapPort port = port_that("up");
  port.trouble = "discovery: no answer";
  EXPECT_EQ(far_words(port), "no host answers: discovery: no answer");
  port = up_port(0, "debian");
  port.path.reset();
  EXPECT_EQ(far_words(port), "debian, path not agreed yet");
  port.trouble = "no HopID";
  EXPECT_EQ(far_words(port), "debian, refused: no HopID");
  port.peer->runs_tbt = false;
  EXPECT_EQ(far_words(port), "debian does not run this software");
  port.peer->thunderbolt_net = true;
  port.trouble.clear();
  EXPECT_EQ(far_words(port), "debian runs thunderbolt-net only");
  port.ip = MapIp{.state = "logging in", .address = "", .ring = 2, .out_hop_id = 0, .in_hop_id = 0};
  EXPECT_EQ(far_words(port), "debian runs thunderbolt-net only, logging in");
  EXPECT_FALSE(carries_ip(port));
  EXPECT_EQ(path_words(port), "-");
  port.ip = MapIp{
      .state = "connected", .address = "169.254.84.1", .ring = 2, .out_hop_id = 9, .in_hop_id = 8};
  EXPECT_EQ(far_words(port), "debian runs thunderbolt-net only, connected as 169.254.84.1");
  EXPECT_EQ(path_words(port), "ring 2 by HopID 9, back by HopID 8 to ring 2, for thunderbolt-net");
  port.ip->state = "failed";
  port.ip->address.clear();
  port.trouble = "why";
  EXPECT_EQ(far_words(port), "debian runs thunderbolt-net only, failed: why");
}

TEST(FabricMap, SaysTheWayOfFramesAndTheirSpeed) {
  const std::string words = "ring 1 by HopID 8, back by HopID 9 to ring 2";
  MapPort port = up_port(0, "x");
  EXPECT_EQ(path_words(port), words);
  for (const auto& [kind, said] :
       {std::pair("e2e", "end-to-end credits"), std::pair("credits", "credits in software"),
        std::pair("none", "no flow control")}) {
    port.path->flow_control = kind;
    port.path->flow_reason = "why";
    EXPECT_EQ(path_words(port), words + "; " + said + ": why");
  }
  EXPECT_EQ(speed_words(up_port(0, "x")), "40 Gb/s x 2");
  EXPECT_EQ(path_words(port_that("up")), "-");
  EXPECT_EQ(speed_words(port_that("unplugged")), "-");
}

TEST(FabricMap, ReadsAStatus) {
  const MapHost host = map_of_host(json::parse(R"({
    "host": 3, "name": "three", "links": [{"cable": 7}],
    "router": {"uuid": "abc", "usb4_version": 2, "ports": [
      {"port": 0, "adapter": 1, "state": "up", "speed_gbps": 20, "lanes": 1,
       "peer": {"uuid": "def", "name": "mac", "runs_tbt": false, "thunderbolt_net": true,
                "services": [{"key": "network"}]},
       "thunderbolt_ip": {"state": "connected", "address": "169.254.84.4", "ring": 3,
                          "out_hop_id": 9, "in_hop_id": 8}},
      {"port": 1, "adapter": 3, "state": "unplugged"}]}})"));
  EXPECT_EQ(host.number, 3u);
  EXPECT_EQ(host.name, "three");
  EXPECT_EQ(host.uuid, "abc");
  EXPECT_EQ(host.usb4_version, 2u);
  ASSERT_EQ(host.ports.size(), 2u);
  EXPECT_EQ(host.ports[0].cable, 7u);
  EXPECT_EQ(host.ports[1].cable, std::nullopt);
  EXPECT_EQ(far_words(host.ports[0]), "mac runs thunderbolt-net only, connected as 169.254.84.4");
  EXPECT_TRUE(carries_ip(host.ports[0]));
  EXPECT_EQ(host.ports[0].ip->ring, 3u);
  EXPECT_EQ(host.ports[0].peer->services, std::vector<std::string>{"network"});
  EXPECT_EQ(speed_words(host.ports[0]), "20 Gb/s x 1");
}

// Every member of the wrong kind in turn: nothing is thrown, the rest is read.
TEST(FabricMap, TakesNonsenseForUnknown) {
  for (const char* text : {"null", "[]", "3", R"({"hosts": 3, "cables": {}})",
                           R"({"hosts": [3, [], null, {"router": []}], "cables": [1]})",
                           R"({"hosts": [{"host": -1, "name": 4, "router": {"ports": [5]}}]})",
                           R"({"hosts": [{"links": [1], "router": {"ports": [{"peer": 1,
                              "path": [], "port": 1e99, "state": {}}]}}]})"}) {
    const FabricMap map = map_of_fabric(json::parse(text));
    for (const MapHost& host : map.hosts) EXPECT_FALSE(host.name.empty()) << text;
    EXPECT_FALSE(map_as_text(map).empty());
    EXPECT_FALSE(map_as_svg(map).empty());
    EXPECT_TRUE(json_of_map(map).is_object());
  }
}

TEST(FabricMap, DropsCablesOfHostsThatItDoesNotKnow) {
  const FabricMap map = map_of_fabric(json::parse(
      R"({"cables": [{"cable": 0, "a": 0, "b": 1}, {"cable": 1, "a": 0, "b": 5}],
          "hosts": [{"host": 0, "error": "dead"}, {"host": 1}]})"));
  ASSERT_EQ(map.cables.size(), 1u);
  EXPECT_EQ(map.hosts[0].silent, "dead");
}

TEST(MapDrawing, TheTextNamesHostsCablesAndPaths) {
  FabricMap map = two_hosts();
  map.hosts[1].ports.clear();
  map.hosts[1].silent = "its daemon is dead";
  const std::string text = map_as_text(map);
  EXPECT_TRUE(has(text, "port 0  cable 0  to host 1  40 Gb/s x 2    host1\n")) << text;
  EXPECT_TRUE(has(text, "ring 1 by HopID 8, back by HopID 9 to ring 2")) << text;
  EXPECT_TRUE(has(text, "host 1  host1  silent: its daemon is dead\n  cable 0  to host 0\n"))
      << text;
}

TEST(MapDrawing, ACableIsOpenIfBothEndsSaySo) {
  FabricMap map = two_hosts();
  EXPECT_TRUE(words_of(map, map.cables[0]).carries_frames);
  EXPECT_EQ(words_of(map, map.cables[0]).state, "HopID 8 out, 9 in");
  map.hosts[1].ports[0].path.reset();
  map.hosts[1].ports[0].trouble = "why";
  EXPECT_FALSE(words_of(map, map.cables[0]).carries_frames);
  EXPECT_EQ(words_of(map, map.cables[0]).state, "host0, refused: why");
  map.hosts[1].ports.clear();
  EXPECT_TRUE(words_of(map, map.cables[0]).carries_frames) << "the other end is silent";
  map.hosts[0].ports.clear();
  EXPECT_FALSE(words_of(map, map.cables[0]).carries_frames);
  EXPECT_EQ(words_of(map, map.cables[0]).state, "neither host answers");
}

TEST(MapDrawing, DotQuotesNames) {
  FabricMap map = two_hosts();
  map.hosts[0].name = "a\"b\\c\nd";
  map.hosts[1].silent = "x";
  const std::string dot = map_as_dot(map);
  EXPECT_TRUE(has(dot, R"(0 [label="a\"b\\c\nd"];)")) << dot;
  EXPECT_TRUE(has(dot, R"(1 [label="host1\nsilent", style=dashed];)")) << dot;
  EXPECT_TRUE(has(dot, "0 -- 1 [label=\"cable 0: 40 Gb/s x 2\\nHopID 8 out, 9 in\"];")) << dot;
}

TEST(MapDrawing, SvgEscapesNamesAndDrawsEachCable) {
  FabricMap map = two_hosts();
  map.cables.push_back({1, 1, 0});
  map.hosts[0].name = "<&\">\x01";
  const std::string svg = map_as_svg(map);
  EXPECT_TRUE(has(svg, ">&lt;&amp;&quot;&gt;?</text>")) << svg;
  EXPECT_TRUE(has(svg, "class=\"cable open\"")) << svg;
  EXPECT_TRUE(has(svg, "class=\"cable shut\"")) << svg;
}

}  // namespace
}  // namespace tbt::tool
