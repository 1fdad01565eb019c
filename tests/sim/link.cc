#include "tests/sim/link.h"

#include <algorithm>
#include <utility>

namespace tbt::sim {

namespace {

bool later(const Flight& a, const Flight& b) noexcept {
  return a.arrival != b.arrival ? a.arrival > b.arrival : a.order > b.order;
}

Flight frame(const engine::TxPacket& packet, const Session& session) {
  alignas(64) static thread_local std::array<std::array<std::byte, 4096>, 2> buffers;
  std::byte* const raw[2] = {buffers[0].data(), buffers[1].data()};
  Flight flight;
  flight.session = session;
  flight.frame_count = fabric::write_packet(packet.headers, {packet.payload.data(), packet.pieces},
                                            packet.payload_bytes, session.tag, raw, flight.shapes);
  for (size_t i = 0; i < flight.frame_count; ++i) {
    // Exactly as long as the frame, so that a sanitizer sees a read past its end.
    flight.frames[i].assign(buffers[i].begin(), buffers[i].begin() + flight.shapes[i].length);
  }
  return flight;
}

}  // namespace

rail::RxPacket Flight::as_received() const noexcept {
  auto frame = [this](size_t i) {
    return rail::RxFrame{frames[i].data(), shapes[i].length, 0, shapes[i].sof, shapes[i].eof};
  };
  rail::RxPacket packet;
  packet.head = frame(0);
  if (frame_count == 2) packet.payload = frame(1);
  return packet;
}

void Link::enqueue(Instant arrival, Flight flight) {
  flight.arrival = arrival;
  flight.order = ++sent_;
  heap_.push_back(std::move(flight));
  std::push_heap(heap_.begin(), heap_.end(), later);
}

void Link::send(Instant now, const engine::TxPacket& packet, const Session& session) {
  busy_until_ = std::max(busy_until_, now) + Duration{faults.packet_ns};
  if (down_ || rng_.chance_ppm(faults.drop_ppm)) return;
  Flight flight = frame(packet, session);
  if (rng_.chance_ppm(faults.corrupt_ppm)) {
    auto& bytes = flight.frames[rng_.below(static_cast<uint32_t>(flight.frame_count))];
    bytes[rng_.below(static_cast<uint32_t>(bytes.size()))] ^= std::byte(1u << rng_.below(8));
  }
  const Instant base = busy_until_ + Duration{faults.latency_ns};
  auto jitter = [&] { return Duration{faults.jitter_ns == 0 ? 0 : rng_.below(faults.jitter_ns)}; };
  if (rng_.chance_ppm(faults.duplicate_ppm)) enqueue(base + jitter(), flight);
  enqueue(base + jitter(), std::move(flight));
}

Instant Link::next_arrival() const noexcept {
  return heap_.empty() ? Instant::never() : heap_.front().arrival;
}

bool Link::receive(Instant now, Flight& flight) {
  if (heap_.empty() || heap_.front().arrival > now) return false;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  flight = std::move(heap_.back());
  heap_.pop_back();
  return true;
}

}  // namespace tbt::sim
