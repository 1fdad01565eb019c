#include "engine/reorder.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "wire/psn.h"

namespace tbt::engine {

std::unique_ptr<StoredPacket> PacketStore::take(uint32_t held) {
  if (!may_take(held, left_ + static_cast<uint32_t>(spare_.size()))) return nullptr;
  if (!spare_.empty()) {
    auto packet = std::move(spare_.back());
    spare_.pop_back();
    return packet;
  }
  spare_.reserve(allocated_ + 1);
  auto packet = std::make_unique<StoredPacket>();
  --left_;
  ++allocated_;
  return packet;
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
  auto stored = used ? std::move(place) : store_.take(count_);
  if (!stored) return false;
  if (!used) ++count_;
  stored->packet = packet;
  stored->packet.payload_bytes = static_cast<uint32_t>(payload.size());
  std::ranges::copy(payload, stored->payload.begin());
  place = std::move(stored);
  numbers_[packet.headers.psn % kReorderPackets] = packet.headers.psn;
  used_[packet.headers.psn % kReorderPackets / 64] |= uint64_t{1} << (packet.headers.psn % 64);
  return true;
}

std::unique_ptr<StoredPacket> ReorderBuffer::take(uint32_t psn) noexcept {
  if (!has(psn)) return nullptr;
  --count_;
  used_[psn % kReorderPackets / 64] &= ~(uint64_t{1} << (psn % 64));
  return std::move(places_[psn % kReorderPackets]);
}

uint32_t ReorderBuffer::kept_from(uint32_t first) const noexcept {
  const uint32_t word = first % kReorderPackets / 64;
  const uint32_t shift = first % 64;
  uint64_t used = used_[word] >> shift;
  if (shift > 32) used |= used_[(word + 1) % used_.size()] << (64 - shift);
  uint32_t kept = 0;
  for (auto bits = static_cast<uint32_t>(used); bits != 0; bits &= bits - 1) {
    const auto bit = static_cast<uint32_t>(std::countr_zero(bits));
    if (has(wire::psn_add(first, bit))) kept |= 1u << bit;
  }
  return kept;
}

}  // namespace tbt::engine
