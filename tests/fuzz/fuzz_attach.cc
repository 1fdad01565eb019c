// Any bytes as a request to the daemon, as its reply, and as a cable's description. What is
// accepted means the same after another trip through the encoder.
#include "base/assert.h"
#include "fabric/attach_protocol.h"
#include "fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tbt::fabric;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Request request;
  if (decode_request(text, request)) {
    Request again;
    TBT_ASSERT(decode_request(encode_request(request), again));
    TBT_ASSERT(again.operation == request.operation && again.cable == request.cable);
    TBT_ASSERT(again.settings.values == request.settings.values);
  }
  Reply reply;
  if (decode_reply(text, Expected::kAttachGrant, reply) && reply.code == 0) {
    const AttachGrant& grant = reply.grant;
    TBT_ASSERT(grant.slot != 0);
    TBT_ASSERT(grant.vfio ? grant.hosts == 0 : grant.host < grant.hosts);
  }
  CableSettings settings;
  if (parse_cable_text(text, settings).empty()) {
    for (size_t i = 0; i < kCableFields; i++) {
      TBT_ASSERT(!settings.values[i] || *settings.values[i] <= cable_field_max(CableField{i}));
    }
  }
  return 0;
}
