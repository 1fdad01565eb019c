// Any bytes as a property block. A tree that is let in and fits a block again comes back from it
// unchanged; what hosts and services say in it is read too.
#include <memory>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "fuzz_target.h"
#include "wire/tb/property_block.h"
#include "wire/tb/service.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tbt::wire::tb;
  const auto bytes = std::as_bytes(std::span(data, size));
  const size_t count = size / 4;
  const auto words = std::make_unique<uint32_t[]>(count);
  for (size_t i = 0; i < count; ++i) {
    words[i] = tbt::base::load_be<uint32_t>(bytes.data() + 4 * i);
  }
  PropertyDirectory root;
  if (parse_property_block({words.get(), count}, root) != PropertyError::kNone) return 0;

  HostProperties host;
  if (read_host(root, host)) TBT_ASSERT(host.max_hop_id <= 0x7ff && host.device_name.size() <= 63);
  TbtService service;
  if (read_tbt_service(root, service) == ServiceError::kNone) {
    TBT_ASSERT(service.max_frame >= kTbtFrameMin && service.max_frame <= kTbtFrameMax);
  }
  TBT_ASSERT(list_services(root).size() <= count / 4);

  std::vector<uint32_t> block;
  const PropertyError error = build_property_block(root, block);
  if (error == PropertyError::kTooLong) return 0;  // leaves that several entries shared
  TBT_ASSERT(error == PropertyError::kNone);
  PropertyDirectory again;
  TBT_ASSERT(parse_property_block(block, again) == PropertyError::kNone);
  TBT_ASSERT(again == root);
  return 0;
}
