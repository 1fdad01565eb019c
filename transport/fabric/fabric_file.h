// fabric.json: the shape of an emulated fabric that is up, as `tbt fabric up` wrote it and the
// other commands read it. Whoever reads it trusts nothing: it may have been edited or cut short.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rail/emulated/emulated_fabric.h"

namespace tbt::fabric {

struct FabricFile {
  std::string name;
  uint32_t hosts = 0;
  std::string topology;  // as it was asked for
  uint32_t hops = 0;
  uint64_t seed = 0;
  std::vector<rail::emulated::CableEnds> cables;
};

// What a fabric may be called: 1..32 letters, digits, '-', '_' and '.', the first a letter or
// digit.
bool fabric_name_is_legal(std::string_view name) noexcept;

std::string encode_fabric_file(const FabricFile& file);
// Returns an empty string, or what is wrong with the text.
std::string parse_fabric_file(std::string_view text, FabricFile& out);

}  // namespace tbt::fabric
