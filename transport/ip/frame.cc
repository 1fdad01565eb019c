#include "ip/frame.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"

namespace tbt::ip {

// The payload may be followed by something (a frame that was filled up), but not be cut off.
std::optional<FrameHeader> decode_frame_header(std::span<const std::byte> frame) noexcept {
  if (frame.size() <= kFrameHeaderBytes || frame.size() > kFrameBytesMax) return std::nullopt;
  const FrameHeader header{.size = base::load_le<uint32_t>(frame.data()),
                           .index = base::load_le<uint16_t>(frame.data() + 4),
                           .id = base::load_le<uint16_t>(frame.data() + 6),
                           .count = base::load_le<uint32_t>(frame.data() + 8)};
  const bool sound = header.size != 0 && header.size <= frame.size() - kFrameHeaderBytes &&
                     header.count != 0 && header.count <= kFrameCountMax &&
                     header.index < header.count;
  if (!sound) return std::nullopt;
  return header;
}

void encode_frame_header(const FrameHeader& header, std::byte* out) noexcept {
  base::store_le(out, header.size);
  base::store_le(out + 4, header.index);
  base::store_le(out + 6, header.id);
  base::store_le(out + 8, header.count);
}

void PacketAssembly::reset() noexcept {
  packet_.clear();
  last_.reset();
}

// Whether the frame is the first one of a packet, or goes on with the one that was begun. If that
// was broken off, a new one may begin with this frame.
bool PacketAssembly::begins(const FrameHeader& header) noexcept {
  const bool next = last_ && header.index == last_->index + 1 && header.id == last_->id &&
                    header.count == last_->count;
  if (next) return true;
  if (last_ || header.index != 0) ++stats_.missed;
  reset();
  return header.index == 0;
}

bool PacketAssembly::add(std::span<const std::byte> frame) {
  if (!last_) packet_.clear();  // the last packet has been fetched
  const auto header = decode_frame_header(frame);
  if (!header) {
    ++stats_.malformed;
    reset();
    return false;
  }
  if (!begins(*header)) return false;
  if (header->size > kPacketBytesMax - packet_.size()) {
    ++stats_.malformed;
    reset();
    return false;
  }
  const auto payload = frame.subspan(kFrameHeaderBytes, header->size);
  packet_.insert(packet_.end(), payload.begin(), payload.end());
  last_ = header;
  if (header->index + 1u < header->count) return false;
  last_.reset();
  ++stats_.packets;
  return true;
}

PacketFrames::PacketFrames(std::span<const std::byte> packet, uint16_t id) noexcept
    : left_(packet) {
  TBT_ASSERT(!packet.empty() && packet.size() <= kPacketBytesMax);
  header_.id = id;
  header_.count = static_cast<uint32_t>((packet.size() + kFramePayloadMax - 1) / kFramePayloadMax);
}

std::span<const std::byte> PacketFrames::next() noexcept {
  if (left_.empty()) return {};
  const auto payload = left_.first(std::min(left_.size(), kFramePayloadMax));
  left_ = left_.subspan(payload.size());
  header_.size = static_cast<uint32_t>(payload.size());
  encode_frame_header(header_, frame_.data());
  std::memcpy(frame_.data() + kFrameHeaderBytes, payload.data(), payload.size());
  ++header_.index;
  return std::span<const std::byte>(frame_).first(kFrameHeaderBytes + payload.size());
}

}  // namespace tbt::ip
