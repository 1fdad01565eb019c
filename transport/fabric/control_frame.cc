#include "fabric/control_frame.h"

#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "wire/control.h"
#include "wire/crc32c.h"
#include "wire/frame.h"

namespace tbt::fabric {

rail::TxFrame encode_control_frame(std::span<const std::byte> message, uint32_t tag,
                                   std::byte* out) noexcept {
  TBT_ASSERT(message.size() <= wire::kControlMessageMax);
  wire::FrameHeader header;
  header.length = static_cast<uint16_t>(message.size());
  header.tag = tag;
  wire::encode_frame_header(header, out);
  std::memcpy(out + wire::kFrameHeaderBytes, message.data(), message.size());
  const size_t covered = wire::kFrameHeaderBytes + message.size();
  base::store_be(out + covered, wire::crc32c({out, covered}));
  return {static_cast<uint32_t>(covered + wire::kCheckBytes), wire::kSofControl, wire::kEofControl};
}

bool decode_control_frame(const rail::RxPacket& packet, ControlFrame& out) noexcept {
  const rail::RxFrame& head = packet.head;
  if (head.sof != wire::kSofControl || packet.payload.data != nullptr) return false;
  wire::FrameView view;
  const wire::RawFrame raw{{head.data, head.length}, head.sof, head.eof};
  if (wire::check_frame(raw, {}, 0, /*accept_any_tag=*/true, view) != wire::FrameError::kNone)
    return false;
  out = {view.header.tag, view.bytes};
  return true;
}

}  // namespace tbt::fabric
