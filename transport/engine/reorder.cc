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
  spare_.reserve(++allocated_);
  return std::make_unique<StoredPacket>();
}

void PacketStore::give_back(std::unique_ptr<StoredPacket> packet) noexcept {
  spare_.push_back(std::move(packet));
}

ReorderBuffer::~ReorderBuffer() {
  for (auto& place : places_) {
    if (place) store_.give_back(std::move(place));
  }
}

bool ReorderBuffer::keep(const wire::ParsedPacket& packet, std::span<const std::byte> payload) {
  if (has(packet.headers.psn)) return true;
  auto& place = places_[packet.headers.psn % kReorderPackets];
  // A place whose packet was stepped over (only a peer that numbers wrongly does that) is used
  // anew.
  const bool used = place != nullptr;
  auto stored = used ? std::move(place) : store_.take();
  if (!stored) return false;
  if (!used) ++count_;
  stored->packet = packet;
  stored->packet.payload_bytes = static_cast<uint32_t>(payload.size());
  std::ranges::copy(payload, stored->payload.begin());
  place = std::move(stored);
  return true;
}

std::unique_ptr<StoredPacket> ReorderBuffer::take(uint32_t psn) noexcept {
  if (!has(psn)) return nullptr;
  --count_;
  return std::move(places_[psn % kReorderPackets]);
}

}  // namespace tbt::engine
