// RailPump: the daemon's hands on its host's rails. It takes what arrives for slot 0 (control
// frames), passes other slots' frames to their inboxes on the way (rx_burst does), sends control
// messages, and lends the interrupt when there is nothing to do.
#pragma once

#include <functional>

#include "base/time.h"
#include "fabric/attach.h"
#include "fabric/host_agent.h"

namespace tbt::daemon {

class RailPump {
 public:
  using Handler =
      std::function<void(uint32_t cable, uint32_t tag, std::span<const std::byte> message)>;

  RailPump(fabric::Attachment& host, Handler handler);

  // Takes what is there, within a budget; true if there was anything.
  bool receive();
  // Lost if the rail has no room: whoever sends control messages repeats them.
  void send(const fabric::ControlOutput& output);
  // Moves emulated links on; the time at which more will arrive.
  Instant advance(Instant now);
  // Asks for an interrupt at the next frame; false if there is one already.
  bool arm();
  // False: a stopped process is in the way; call again later.
  bool reclaim(rail::SlotId dead);

  [[nodiscard]] uint64_t strangers() const { return strangers_; }
  [[nodiscard]] uint64_t unsent() const { return unsent_; }

 private:
  void take(uint32_t rail_number, const rail::RxPacket& packet);

  fabric::Attachment& host_;
  Handler handler_;
  uint64_t strangers_ = 0;  // frames for slot 0 that are no sound control frames
  uint64_t unsent_ = 0;
};

}  // namespace tbt::daemon
