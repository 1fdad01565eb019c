#include "fabric/framing.h"

#include <cstring>

#include "base/bytes.h"
#include "wire/crc32c.h"

namespace tbt::fabric {

namespace {

using Pieces = std::span<const std::span<const std::byte>>;

// Copies the pieces and the pad that follows them; returns the check's state.
uint32_t copy_payload(uint32_t state, std::byte* to, Pieces pieces, uint32_t pad) noexcept {
  for (const auto& piece : pieces) {
    state = wire::crc32c_copy(state, to, piece);
    to += piece.size();
  }
  if (pad == 0) return state;
  std::memset(to, 0, pad);
  return wire::crc32c_update(state, {to, pad});
}

void write_check(uint32_t state, std::byte* to) noexcept { base::store_be<uint32_t>(to, ~state); }

rail::TxFrame frame_of(size_t bytes, uint8_t sof, uint8_t eof) noexcept {
  return {static_cast<uint32_t>(bytes), sof, eof};
}

}  // namespace

size_t write_packet(const wire::PacketHeaders& headers, Pieces payload, uint32_t payload_bytes,
                    uint32_t tag, std::span<std::byte* const, kFramesPerPacketMax> buffers,
                    std::span<rail::TxFrame, kFramesPerPacketMax> frames,
                    uint64_t payload_iova) noexcept {
  std::byte* head = buffers[0];
  const size_t header_bytes = wire::encode_headers(
      headers, payload_bytes, {head + wire::kFrameHeaderBytes, wire::kMaxHeaderBytes});
  const uint32_t pad = (4 - payload_bytes % 4) % 4;
  const size_t packet_bytes = header_bytes + payload_bytes + pad;
  wire::encode_frame_header(
      {wire::kFrameVersion, wire::kFlagPayloadChecked, static_cast<uint16_t>(packet_bytes), tag},
      head);
  const size_t covered = wire::kFrameHeaderBytes + header_bytes;
  uint32_t state = wire::crc32c_update(wire::kCrc32cInit, {head, covered});
  const size_t whole = wire::kFrameHeaderBytes + packet_bytes + wire::kCheckBytes;
  if (whole <= wire::kFrameBytesMax) {
    state = copy_payload(state, head + covered, payload, pad);
    write_check(state, head + whole - wire::kCheckBytes);
    frames[0] = frame_of(whole, wire::kSofPacket, wire::kEofWhole);
    return 1;
  }
  frames[0] = frame_of(covered + wire::kCheckBytes, wire::kSofPacket, wire::kEofHead);
  frames[1] = frame_of(payload_bytes + pad, wire::kSofPayload, wire::kEofPayload);
  if (payload_iova != 0 && payload_iova % rail::kDirectAlign == 0 && pad == 0) {
    frames[1].direct = {payload[0].data(), payload_iova};
    state = wire::crc32c_update(state, payload[0]);
  } else {
    state = copy_payload(state, buffers[1], payload, pad);
  }
  write_check(state, head + covered);
  return 2;
}

bool read_packet(const rail::RxPacket& received, uint32_t tag, FramingStats& stats,
                 wire::ParsedPacket& packet, std::span<const std::byte>& payload) noexcept {
  const wire::RawFrame head{
      {received.head.data, received.head.length}, received.head.sof, received.head.eof};
  wire::RawFrame rest;
  if (received.payload.data != nullptr) {
    rest = {{received.payload.data, received.payload.length},
            received.payload.sof,
            received.payload.eof};
  }
  wire::FrameView view;
  auto frame_error = wire::check_frame(head, rest, tag, /*accept_any_tag=*/false, view);
  if (frame_error == wire::FrameError::kNone && head.sof != wire::kSofPacket)
    frame_error = wire::FrameError::kBadPdf;
  // A rail without a session, whose frames would look like those of any other without one.
  if (frame_error == wire::FrameError::kNone && tag == 0) frame_error = wire::FrameError::kStaleTag;
  if (frame_error != wire::FrameError::kNone) {
    ++stats.bad_frame[static_cast<size_t>(frame_error)];
    return false;
  }
  const auto parse_error = wire::parse_packet(view.bytes, view.header.length, packet);
  if (parse_error != wire::ParseError::kNone) {
    ++stats.bad_packet[static_cast<size_t>(parse_error)];
    return false;
  }
  // A head frame holds headers only, a whole frame everything; the parser has settled the lengths.
  const bool split = received.payload.data != nullptr;
  if (split && packet.header_bytes != view.bytes.size()) {
    ++stats.bad_packet[static_cast<size_t>(wire::ParseError::kBadLength)];
    return false;
  }
  payload = split ? view.payload.first(packet.payload_bytes)
                  : view.bytes.subspan(packet.header_bytes, packet.payload_bytes);
  return true;
}

}  // namespace tbt::fabric
