// Any bytes as a fabric.json. What is accepted is within the limits and survives another trip.
#include "base/assert.h"
#include "fabric/fabric_file.h"
#include "fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tbt::fabric;
  FabricFile file;
  if (!parse_fabric_file({reinterpret_cast<const char*>(data), size}, file).empty()) return 0;
  TBT_ASSERT(file.hosts >= 2 && file.hosts <= tbt::rail::emulated::kHostsMax);
  for (const auto& cable : file.cables) {
    TBT_ASSERT(cable.host_a < file.hosts && cable.host_b < file.hosts);
  }
  FabricFile again;
  TBT_ASSERT(parse_fabric_file(encode_fabric_file(file), again).empty());
  TBT_ASSERT(again.name == file.name && again.cables.size() == file.cables.size());
  return 0;
}
