#include "tbtd/rail_pump.h"

#include <algorithm>
#include <array>

#include "fabric/control_frame.h"

namespace tbt::daemon {
namespace {

constexpr size_t kBurst = 32;
constexpr int kBurstsPerRail = 8;  // then the other rails and the sockets have their turn

}  // namespace

RailPump::RailPump(fabric::Attachment& host, Handler handler)
    : host_(host), handler_(std::move(handler)) {}

bool RailPump::receive() {
  bool any = false;
  std::array<rail::RxPacket, kBurst> packets;
  for (uint32_t r = 0; r < host_.rails.size(); r++) {
    for (int burst = 0; burst < kBurstsPerRail; burst++) {
      const size_t n = host_.rails[r]->rx_burst(packets);
      if (n == 0) break;
      any = true;
      for (size_t i = 0; i < n; i++) take(r, packets[i]);
      host_.rails[r]->rx_release(std::span(packets).first(n));
    }
  }
  return any;
}

void RailPump::take(uint32_t rail_number, const rail::RxPacket& packet) {
  fabric::ControlFrame frame;
  const bool from_a_cable = rail_number + 1 < host_.rails.size();
  if (!from_a_cable || !fabric::decode_control_frame(packet, frame)) {
    strangers_++;
    return;
  }
  handler_(rail_number, frame.tag, frame.message);
}

void RailPump::send(const fabric::ControlOutput& output) {
  rail::Rail& rail = *host_.rails[output.cable];
  std::byte* buffer = nullptr;
  if (rail.tx_begin({&buffer, 1}) == 0) {
    unsent_++;
    return;
  }
  const rail::TxFrame frame = fabric::encode_control_frame(output.message, output.tag, buffer);
  rail.tx_commit({&frame, 1});
}

Instant RailPump::advance(Instant now) {
  Instant next = Instant::never();
  for (const auto& rail : host_.rails) next = std::min(next, Instant{rail->advance(now.ns)});
  return next;
}

bool RailPump::arm() {
  bool quiet = true;
  for (const auto& rail : host_.rails) quiet = rail->arm() && quiet;
  return quiet;
}

bool RailPump::reclaim(rail::SlotId dead) {
  bool done = true;
  for (const auto& rail : host_.rails) done = rail->reclaim(dead) && done;
  return done;
}

}  // namespace tbt::daemon
