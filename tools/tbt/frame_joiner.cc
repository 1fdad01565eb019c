#include "tbt/frame_joiner.h"

#include <algorithm>

#include "base/bytes.h"

namespace tbt::tool {
namespace {

bool is_head(const rail::CapturedFrame& frame) {
  return frame.sof == wire::kSofPacket && frame.eof == wire::kEofHead;
}

}  // namespace

bool JoinedFrame::has_packet() const noexcept {
  return head.sof == wire::kSofPacket &&
         head.bytes.size() > wire::kFrameHeaderBytes + wire::kCheckBytes;
}

std::vector<std::byte> JoinedFrame::packet() const {
  const size_t carried = head.bytes.size() - wire::kFrameHeaderBytes - wire::kCheckBytes;
  const auto first = head.bytes.subspan(wire::kFrameHeaderBytes, carried);
  std::vector<std::byte> bytes(first.begin(), first.end());
  bytes.insert(bytes.end(), payload.bytes.begin(), payload.bytes.end());
  return bytes;
}

uint32_t JoinedFrame::check() const noexcept {
  return base::load_be<uint32_t>(head.bytes.data() + head.bytes.size() - wire::kCheckBytes);
}

wire::RawFrame FrameJoiner::raw_of(const Stored& stored) noexcept {
  return {std::span(stored.data).first(stored.frame.length), stored.frame.sof, stored.frame.eof};
}

std::optional<JoinedFrame> FrameJoiner::add(const rail::CapturedFrame& frame,
                                            std::span<const std::byte> bytes) {
  Stored& head = heads_[frame.sent ? 1 : 0];
  const bool is_payload = frame.sof == wire::kSofPayload;
  if (is_payload != head.waits) ++orphans_;
  if (is_payload && !head.waits) return std::nullopt;
  Stored& target = is_payload ? payload_ : head;
  target.frame = frame;
  target.frame.length = static_cast<uint32_t>(std::min(bytes.size(), target.data.size()));
  std::copy_n(bytes.begin(), target.frame.length, target.data.begin());
  head.waits = !is_payload && is_head(frame);
  if (head.waits) return std::nullopt;
  JoinedFrame joined{head.frame.time_ns, frame.sent, raw_of(head), {}};
  if (is_payload) joined.payload = raw_of(payload_);
  return joined;
}

}  // namespace tbt::tool
