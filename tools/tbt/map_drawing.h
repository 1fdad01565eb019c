// A FabricMap as text, as a graph for Graphviz, and as a picture. Names come from other hosts: each
// format escapes them in its own way.
#pragma once

#include <string>

#include "tbt/fabric_map.h"

namespace tbt::tool {

std::string map_as_text(const FabricMap& map);
// An undirected graph, one edge per cable.
std::string map_as_dot(const FabricMap& map);
// Hosts on a circle, cables as lines between them. Needs nothing but a viewer.
std::string map_as_svg(const FabricMap& map);

// What is to be said of a cable as a whole, from what both ends know.
struct CableWords {
  std::string speed;  // "cable 0: 40 Gb/s x 2"
  std::string state;  // HopIDs, or why no frames pass
  bool carries_frames = false;
};
CableWords words_of(const FabricMap& map, const MapCable& cable);
// "", "silent", "virtual machine", "refused: why"
std::string host_note(const MapHost& host);

}  // namespace tbt::tool
