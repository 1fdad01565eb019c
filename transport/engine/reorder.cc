#include "engine/reorder.h"

#include <algorithm>
#include <utility>

namespace tbt::engine {

std::unique_ptr<StoredPacket> PacketStore::take() {
  if (!spare_.empty()) {
    auto packet = std::move(spare_.back());
    spare_.pop_back();
    return packet;
  }
  if (left_ == 0) return nullptr;
  --left_;
  return std::make_unique<StoredPacket>();
}

void PacketStore::give_back(std::unique_ptr<StoredPacket> packet) {
  spare_.push_back(std::move(packet));
}

ReorderBuffer::~ReorderBuffer() {
  for (auto& place : places_) {
    if (place) store_.give_back(std::move(place));
  }
}

bool ReorderBuffer::keep(const wire::ParsedPacket& packet, std::span<const std::byte> payload) {
  auto& place = places_[packet.headers.psn % kReorderPackets];
  if (place) return true;
  auto stored = store_.take();
  if (!stored) return false;
  stored->packet = packet;
  stored->packet.payload_bytes = static_cast<uint32_t>(payload.size());
  std::ranges::copy(payload, stored->payload.begin());
  place = std::move(stored);
  ++count_;
  return true;
}

std::unique_ptr<StoredPacket> ReorderBuffer::take(uint32_t psn) noexcept {
  auto& place = places_[psn % kReorderPackets];
  if (place) --count_;
  return std::move(place);
}

}  // namespace tbt::engine
