// Link: one direction of a simulated cable. It carries real frames (framing and its checks are part
// of what is tested) and loses, damages, repeats and delays them as the seed says.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/rng.h"
#include "base/time.h"
#include "engine/endpoint.h"
#include "fabric/framing.h"

namespace tbt::sim {

struct LinkFaults {
  uint32_t drop_ppm = 0;
  uint32_t corrupt_ppm = 0;
  uint32_t duplicate_ppm = 0;
  uint32_t jitter_ns = 0;  // more than the spacing of packets: reordering
  uint32_t latency_ns = 1000;
  uint32_t packet_ns = 300;    // serialisation
  uint32_t ring_packets = 64;  // that may wait for the cable

  // Nothing comes twice or after what was sent later.
  [[nodiscard]] bool in_order() const noexcept { return duplicate_ppm == 0 && jitter_ns == 0; }
  [[nodiscard]] bool lossless() const noexcept {
    return in_order() && drop_ppm == 0 && corrupt_ppm == 0;
  }
  void heal() noexcept { drop_ppm = corrupt_ppm = duplicate_ppm = jitter_ns = 0; }
};

// What a frame was sent under: the tag says it, and the two numbers are the truth.
struct Session {
  uint64_t from = 0;  // incarnations
  uint64_t to = 0;
  uint32_t tag = 0;
};

struct Flight {
  Instant arrival;
  Session session;
  uint64_t order = 0;  // of sending: breaks ties
  std::array<std::vector<std::byte>, fabric::kFramesPerPacketMax> frames;
  std::array<rail::TxFrame, fabric::kFramesPerPacketMax> shapes{};
  size_t frame_count = 0;

  // The frames as a rail hands them out; valid while this lives.
  [[nodiscard]] rail::RxPacket as_received() const noexcept;
};

class Link {
 public:
  explicit Link(Rng rng) : rng_(rng) {}

  LinkFaults faults;

  void send(Instant now, const engine::TxPacket& packet, const Session& session = {});
  [[nodiscard]] Instant next_arrival() const noexcept;
  // When the last packet that was sent has left.
  [[nodiscard]] Instant busy_until() const noexcept { return busy_until_; }
  // While it is down nothing passes; what was on its way when it went down is lost.
  void set_down(bool down) noexcept {
    down_ = down;
    if (down) heap_.clear();
  }
  // When the ring takes the next packet.
  [[nodiscard]] Instant room_at() const noexcept {
    return Instant{busy_until_.ns - int64_t{faults.packet_ns} * faults.ring_packets};
  }
  // The oldest arrival that is due; false if none is.
  bool receive(Instant now, Flight& flight);

 private:
  void enqueue(Instant arrival, Flight flight);

  Rng rng_;
  std::vector<Flight> heap_;
  Instant busy_until_{};
  uint64_t sent_ = 0;
  bool down_ = false;
};

}  // namespace tbt::sim
