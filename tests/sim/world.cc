#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tests/sim/traffic.h"

namespace tbt::sim {

namespace {

constexpr size_t kMemoryBytes = 1 << 20;
constexpr size_t kGuardBytes = 64;
constexpr std::byte kGuard{0xa5};
constexpr Duration kTrafficTime = Duration::from_us(1500);
constexpr Duration kHealTime = Duration::from_s(2);

uint64_t mix(uint64_t hash, uint64_t value) noexcept { return (hash ^ value) * 0x100000001b3ULL; }

}  // namespace

Node::Node(uint32_t index, Rng rng)
    : endpoint({}, *this, rng), index_(index), memory_(kMemoryBytes, kGuard) {
  verbs::MemoryRegion region;
  region.access = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic;
  region.pd = &pd;
  region.iova = reinterpret_cast<uint64_t>(memory_.data());
  region.length = memory_.size();
  region.base = memory_.data();
  key = endpoint.register_memory(region)->key;
}

std::byte* Node::carve(size_t bytes) {
  used_ = (used_ + kGuardBytes + 7) & ~size_t{7};
  pieces_.push_back({used_, bytes});
  std::byte* piece = memory_.data() + used_;
  used_ += bytes;
  if (used_ + kGuardBytes > memory_.size()) std::abort();
  return piece;
}

bool Node::guards_intact() const {
  size_t at = 0;
  auto clean = [&](size_t end) {
    return std::all_of(memory_.begin() + at, memory_.begin() + end,
                       [](std::byte b) { return b == kGuard; });
  };
  for (const Piece& piece : pieces_) {
    if (!clean(piece.offset)) return false;
    at = piece.offset + piece.bytes;
  }
  return clean(std::min(at + 4096, memory_.size()));
}

std::optional<verbs::Path> Node::resolve(uint8_t, const AddressVector& address, uint32_t) const {
  verbs::Path path;
  path.slid = lid();
  path.dlid = address.dlid;
  return path;
}

void Node::transmit(Instant now, Link& out, uint64_t& hash) {
  engine::TxPacket packet;
  while (endpoint.poll_transmit(now, 0, packet)) {
    const auto& headers = packet.headers;
    hash = mix(hash, static_cast<uint64_t>(now.ns) << 8 ^ headers.opcode);
    hash = mix(hash, uint64_t{headers.psn} << 32 ^ headers.dest_qp ^ packet.payload_bytes);
    out.send(now, packet);
  }
}

void Node::receive(Instant now, Link& in) {
  Flight flight;
  while (in.receive(now, flight)) {
    const rail::RxPacket received = flight.as_received();
    wire::ParsedPacket packet;
    std::span<const std::byte> payload;
    if (fabric::read_packet(received, 0, framing, packet, payload))
      endpoint.handle_packet(now, 0, packet, payload);
  }
}

World::World(uint64_t seed) : seed_(seed), rng_(seed) {
  for (uint32_t i = 0; i < 2; ++i) {
    nodes_[i] = std::make_unique<Node>(i, Rng(rng_.next()));
    links_[i] = std::make_unique<Link>(Rng(rng_.next()));
  }
  draw_faults();
}

World::~World() = default;

// Swarm: each seed has a mix of its own, most of them mild.
void World::draw_faults() {
  const bool hard = rng_.below(8) == 0;
  const bool clean = !hard && rng_.below(4) == 0;
  for (auto& link : links_) {
    LinkFaults& faults = link->faults;
    faults.latency_ns = 200 + rng_.below(20000);
    faults.packet_ns = 100 + rng_.below(1000);
    if (clean) continue;
    faults.drop_ppm = rng_.below(hard ? 300000 : 20000);
    faults.corrupt_ppm = rng_.below(3) == 0 ? rng_.below(10000) : 0;
    faults.duplicate_ppm = rng_.below(3) == 0 ? rng_.below(100000) : 0;
    faults.jitter_ns = rng_.below(4) == 0 ? rng_.below(5000) : 0;
  }
  const uint32_t pairs = 1 + rng_.below(3);
  for (uint32_t i = 0; i < pairs; ++i) {
    TrafficOptions options;
    options.type = rng_.below(3) == 0 ? QpType::kUc : QpType::kRc;
    options.mtu = static_cast<uint8_t>(1 + rng_.below(5));
    // Close to the wrap and to the middle of the sequence space, or anywhere.
    static constexpr uint32_t kStarts[] = {0xfffff0, 0x7ffff0, 0};
    for (uint32_t& psn : options.first_psn)
      psn = rng_.below(2) == 0 ? kStarts[rng_.below(3)] : rng_.below(1 << 24);
    options.may_fail = hard;
    options.slow_receiver = rng_.below(3) == 0;
    options.shared_receive_queue = rng_.below(4) == 0;
    options.rd_atomic = static_cast<uint8_t>(1 + rng_.below(8));
    traffic_.push_back(std::make_unique<Traffic>(std::array{nodes_[0].get(), nodes_[1].get()},
                                                 options, Rng(rng_.next()), i));
  }
}

void World::heal() {
  for (auto& link : links_) {
    link->faults.drop_ppm = link->faults.corrupt_ppm = link->faults.duplicate_ppm =
        link->faults.jitter_ns = 0;
  }
}

void World::advance(Instant end, bool new_work) {
  Instant next_act = now_;
  while (now_ < end && failure_.empty()) {
    for (uint32_t i = 0; i < 2; ++i) {
      nodes_[1 - i]->receive(now_, *links_[i]);
      nodes_[i]->endpoint.handle_timeout(now_);
    }
    if (next_act <= now_) {
      for (auto& traffic : traffic_) {
        traffic->act(now_, new_work);
        if (!traffic->failure().empty()) failure_ = traffic->failure();
      }
      next_act = now_ + Duration{500 + rng_.below(20000)};
      if (!new_work && quiet()) return;
    }
    if (sabotage != Sabotage::kStall) {
      for (uint32_t i = 0; i < 2; ++i) nodes_[i]->transmit(now_, *links_[i], hash_);
    }
    Instant next = next_act;
    for (uint32_t i = 0; i < 2; ++i) {
      next = std::min({next, links_[i]->next_arrival(), nodes_[i]->endpoint.next_deadline()});
    }
    now_ = std::max(next, now_ + Duration{1});
  }
}

bool World::quiet() const {
  return std::ranges::all_of(traffic_, [](const auto& traffic) { return traffic->quiet(); });
}

Failure World::check_end() {
  if (!failure_.empty()) return {failure_};
  if (!quiet()) return {"work was left after the cables had healed"};
  for (auto& traffic : traffic_) {
    traffic->check_end();
    if (!traffic->failure().empty()) return {traffic->failure()};
  }
  for (uint32_t i = 0; i < 2; ++i) {
    if (!nodes_[i]->guards_intact())
      return {"node " + std::to_string(i) + ": bytes outside the buffers were written"};
  }
  return {};
}

Failure World::run() {
  if (sabotage != Sabotage::kNone) traffic_[0]->sabotage(sabotage);
  advance(now_ + kTrafficTime, /*new_work=*/true);
  heal();
  advance(now_ + kHealTime, /*new_work=*/false);
  // Quiet at the senders: let the last acknowledges and receives arrive.
  if (failure_.empty() && quiet()) advance(now_ + Duration::from_ms(1), false);
  if (sabotage == Sabotage::kBreakGuard) nodes_[0]->carve(8)[-1] ^= std::byte{1};
  return check_end();
}

uint64_t World::messages() const noexcept {
  uint64_t total = 0;
  for (const auto& traffic : traffic_) total += traffic->completed();
  return total;
}

std::string World::describe() const {
  char text[400];
  const LinkFaults& a = links_[0]->faults;
  std::snprintf(text, sizeof text,
                "%zu pairs, now %lld ns, latency %u ns, stats0 retries %llu timeouts %llu gaps "
                "%llu, stats1 retries %llu timeouts %llu gaps %llu",
                traffic_.size(), static_cast<long long>(now_.ns), a.latency_ns,
                static_cast<unsigned long long>(nodes_[0]->endpoint.stats().retries),
                static_cast<unsigned long long>(nodes_[0]->endpoint.stats().timeouts),
                static_cast<unsigned long long>(nodes_[0]->endpoint.stats().rx_out_of_sequence),
                static_cast<unsigned long long>(nodes_[1]->endpoint.stats().retries),
                static_cast<unsigned long long>(nodes_[1]->endpoint.stats().timeouts),
                static_cast<unsigned long long>(nodes_[1]->endpoint.stats().rx_out_of_sequence));
  std::string all = text;
  for (const auto& traffic : traffic_) all += "\n  " + traffic->describe();
  return all;
}

}  // namespace tbt::sim
