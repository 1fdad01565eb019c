// Payload between packets and registered memory. Keys are looked up for every packet.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "engine/core.h"

namespace tbt::engine {

namespace {

// Walks the part [offset, offset + length) of a list of SGEs: visit(sge, first byte in it, bytes).
// False if the list ends before, or a visit says so.
template <typename F>
bool walk(std::span<const Sge> sges, uint64_t offset, uint64_t length, F&& visit) {
  for (const Sge& sge : sges) {
    if (length == 0) return true;
    if (offset >= sge.length) {
      offset -= sge.length;
      continue;
    }
    const uint64_t part = std::min<uint64_t>(length, sge.length - offset);
    if (!visit(sge, sge.addr + offset, part)) return false;
    offset = 0;
    length -= part;
  }
  return length == 0;
}

template <typename Word>
void store_last(std::byte* to, const std::byte* from) noexcept {
  Word value;
  std::memcpy(&value, from, sizeof value);
  std::atomic_ref<Word>(*reinterpret_cast<Word*>(to)).store(value, std::memory_order_release);
}

}  // namespace

bool gather(Core& core, QueuePair& qp, uint32_t wqe_index, uint32_t offset, uint32_t length,
            TxPacket& packet, bool direct) {
  packet.pieces = 0;
  packet.payload_bytes = length;
  if (length == 0) return true;
  const verbs::SendWqe& wqe = qp.sq.at(wqe_index);
  if (wqe.is_inline) {
    packet.payload[packet.pieces++] = qp.sq.inline_data(wqe_index).subspan(offset, length);
    return true;
  }
  return walk(qp.sq.sges(wqe_index).first(wqe.num_sge), offset, length,
              [&](const Sge& sge, uint64_t va, uint64_t part) {
                verbs::KeyError why{};
                const std::byte* from = core.regions.translate(sge.lkey, {qp.pd}, va, part,
                                                               verbs::kAccessLocalRead, why);
                if (from == nullptr) return false;
                const bool only = packet.pieces == 0 && direct;
                packet.dma = only ? core.regions.dma_of(sge.lkey, from) : 0;
                packet.payload[packet.pieces++] = {from, static_cast<size_t>(part)};
                return true;
              });
}

bool check_sges(Core& core, QueuePair& qp, uint32_t wqe_index, uint32_t access) {
  const verbs::SendWqe& wqe = qp.sq.at(wqe_index);
  if (wqe.is_inline) return true;
  for (const Sge& sge : qp.sq.sges(wqe_index).first(wqe.num_sge)) {
    verbs::KeyError why{};
    if (sge.length != 0 &&
        core.regions.translate(sge.lkey, {qp.pd}, sge.addr, sge.length, access, why) == nullptr) {
      return false;
    }
  }
  return true;
}

bool scatter(Core& core, const verbs::ProtectionDomain* pd, std::span<const Sge> sges,
             uint64_t offset, std::span<const std::byte> bytes) {
  const std::byte* from = bytes.data();
  return walk(sges, offset, bytes.size(), [&](const Sge& sge, uint64_t va, uint64_t part) {
    verbs::KeyError why{};
    std::byte* to = core.regions.translate(sge.lkey, {pd}, va, part, kAccessLocalWrite, why);
    if (to == nullptr) return false;
    copy_in_order(to, from, static_cast<size_t>(part));
    from += part;
    return true;
  });
}

void copy_in_order(std::byte* to, const std::byte* from, size_t bytes) noexcept {
  if (bytes == 0) return;
  const auto end = reinterpret_cast<uintptr_t>(to) + bytes;
  size_t word = 8;
  while (word > bytes || end % word != 0) word /= 2;
  const size_t body = bytes - word;
  std::memcpy(to, from, body);
  switch (word) {
    case 8:
      return store_last<uint64_t>(to + body, from + body);
    case 4:
      return store_last<uint32_t>(to + body, from + body);
    case 2:
      return store_last<uint16_t>(to + body, from + body);
    default:
      return store_last<uint8_t>(to + body, from + body);
  }
}

}  // namespace tbt::engine
