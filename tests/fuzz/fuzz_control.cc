// Any bytes as a control message. What is accepted is canonical: it encodes to the same bytes.
#include <algorithm>

#include "base/assert.h"
#include "fuzz_target.h"
#include "wire/control.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tbt::wire;
  const auto bytes = std::as_bytes(std::span(data, size));
  ControlMessage message;
  if (decode_control(bytes, message) != ControlError::kNone) return 0;
  const auto again = encode_control(message);
  TBT_ASSERT(std::ranges::equal(again, bytes));
  return 0;
}
