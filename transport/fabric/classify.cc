// Finds the slot of a frame from the fixed bytes at its start; nothing is checked here, since a
// frame that was damaged is found out by the process that gets it.
#include "base/bytes.h"
#include "fabric/attach.h"
#include "wire/frame.h"
#include "wire/packet.h"

namespace tbt::fabric {
namespace {

constexpr uint8_t kLnhMask = 3;  // LRH byte 1: what follows the LRH
constexpr uint8_t kLnhBth = 2;
constexpr uint8_t kLnhGrh = 3;
constexpr size_t kDestQpInBth = 4;  // 8 reserved bits, then the 24 of the QPN
constexpr uint32_t kQpnMask = 0xffffff;
constexpr uint32_t kSlotShift = 18;

}  // namespace

rail::SlotId classify(std::span<const std::byte> head, uint8_t sof, uint8_t /*eof*/) noexcept {
  if (sof == wire::kSofControl) return rail::kDaemonSlot;
  if (sof != wire::kSofPacket || head.size() < wire::kFrameHeaderBytes + wire::kLrhBytes) {
    return rail::kNoSlot;
  }
  const auto lnh = static_cast<uint8_t>(head[wire::kFrameHeaderBytes + 1]) & kLnhMask;
  if (lnh != kLnhBth && lnh != kLnhGrh) return rail::kNoSlot;
  const size_t bth =
      wire::kFrameHeaderBytes + wire::kLrhBytes + (lnh == kLnhGrh ? wire::kGrhBytes : 0);
  if (head.size() < bth + wire::kBthBytes) return rail::kNoSlot;
  const uint32_t qpn = base::load_be<uint32_t>(head.data() + bth + kDestQpInBth) & kQpnMask;
  return static_cast<rail::SlotId>(qpn >> kSlotShift);
}

}  // namespace tbt::fabric
