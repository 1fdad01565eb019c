#include "tests/sim/node.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/sim/sabotage.h"
#include "wire/control.h"

namespace tbt::sim {

namespace {

constexpr size_t kMemoryBytes = 1 << 20;
constexpr size_t kGuardBytes = 64;
constexpr std::byte kGuard{0xa5};

// Some hosts can keep next to nothing after a gap: the only memory that the engine may be refused
// while it works.
engine::Options options_of(Saboteur& saboteur, Rng& rng) {
  engine::Options options = saboteur.options();
  if (rng.below(6) == 0) options.early_packets = rng.below(4);
  return options;
}

uint64_t mix(uint64_t hash, uint64_t value) noexcept { return (hash ^ value) * 0x100000001b3ULL; }

}  // namespace

Node::Node(uint32_t index, uint32_t hosts, Rng rng, Saboteur& saboteur)
    : endpoint(options_of(saboteur, rng), *this, rng),
      index_(index),
      incarnation_(rng.next() | 1),
      known_(hosts),
      saboteur_(saboteur),
      memory_(std::make_unique_for_overwrite<std::byte[]>(kMemoryBytes)) {
  key = register_all();
}

uint32_t Node::register_all() {
  verbs::MemoryRegion region;
  region.access = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic |
                  kAccessMwBind | kAccessFlushGlobal;
  region.pd = &pd;
  region.iova = reinterpret_cast<uint64_t>(memory_.get());
  region.length = kMemoryBytes;
  region.base = memory_.get();
  return endpoint.register_memory(region)->key;
}

// The guard behind a piece ends where the guard before the next one begins, so that no byte between
// two pieces is unwatched.
std::byte* Node::carve(size_t bytes) {
  const size_t offset = (used_ + kGuardBytes + 7) & ~size_t{7};
  if (offset + bytes + kGuardBytes > kMemoryBytes) std::abort();
  std::memset(memory_.get() + used_, static_cast<int>(kGuard), offset - used_);
  std::memset(memory_.get() + offset, 0, bytes);
  used_ = offset + bytes;
  std::memset(memory_.get() + used_, static_cast<int>(kGuard), kGuardBytes);
  pieces_.push_back({offset, bytes});
  return memory_.get() + offset;
}

bool Node::guards_intact() const {
  size_t at = 0;
  auto clean = [&](size_t end) {
    return std::all_of(memory_.get() + at, memory_.get() + end,
                       [](std::byte b) { return b == kGuard; });
  };
  for (const Piece& piece : pieces_) {
    if (!clean(piece.offset)) return false;
    at = piece.offset + piece.bytes;
  }
  return pieces_.empty() || clean(at + kGuardBytes);
}

std::byte* Node::piece_end(const std::byte* at) const noexcept {
  for (const Piece& piece : pieces_) {
    std::byte* begin = memory_.get() + piece.offset;
    if (at >= begin && at < begin + piece.bytes) return begin + piece.bytes;
  }
  return nullptr;
}

engine::QueuePair* Node::find_pair(uint32_t number) const noexcept {
  const auto found = std::ranges::find(pairs_, number, &engine::QueuePair::number);
  return found == pairs_.end() ? nullptr : *found;
}

verbs::Path Node::path_to(uint16_t dlid) const noexcept {
  verbs::Path path;
  path.rail = static_cast<uint8_t>(dlid / 64 - 1);
  path.slid = lid();
  path.dlid = dlid;
  return path;
}

std::optional<verbs::Path> Node::resolve(uint8_t, const AddressVector& address, uint32_t) const {
  const verbs::Path path = path_to(address.dlid);
  if (!knows(path.rail)) return std::nullopt;
  return path;
}

// As device/process.cc: routes first, then what has departed though its LIDs are there again.
void Node::meet(Instant now, uint32_t host, uint64_t incarnation) {
  const uint64_t before = std::exchange(known_[host], incarnation);
  endpoint.handle_routes_changed(now);
  const auto lid = static_cast<uint16_t>(64 * (host + 1));
  if (before != 0 && before != incarnation && !saboteur_.host_end_unheard())
    endpoint.handle_host_gone(now, {&lid, 1});
}

Session Node::session_with(uint32_t host) const noexcept {
  if (!knows(host)) return {incarnation_, 0, 0};
  return {incarnation_, known_[host], wire::session_tag(incarnation_, known_[host])};
}

void Node::transmit(Instant now, uint32_t rail, Link& out, uint64_t& hash) {
  engine::TxPacket packet;
  const Session session = session_with(rail);
  while (out.room_at() <= now && endpoint.poll_transmit(now, rail, packet)) {
    const auto& headers = packet.headers;
    hash = mix(hash, static_cast<uint64_t>(now.ns) << 8 ^ headers.opcode);
    hash = mix(hash, uint64_t{headers.psn} << 32 ^ headers.dest_qp ^ packet.payload_bytes);
    if (saboteur_.on_transmit(packet)) out.send(now, packet, session);
  }
}

void Node::receive(Instant now, uint32_t rail, Link& in) {
  Flight flight;
  const Session session = session_with(rail);
  while (in.receive(now, flight)) {
    if (!up_) continue;
    const rail::RxPacket received = flight.as_received();
    wire::ParsedPacket packet;
    std::span<const std::byte> payload;
    const bool other = flight.session.from != session.to || flight.session.to != session.from;
    const uint32_t tag = other && saboteur_.session_ignored() ? flight.session.tag : session.tag;
    if (!fabric::read_packet(received, tag, framing, packet, payload)) continue;
    if (other) failure.note(Checker::kSession, "a packet of an earlier incarnation was taken");
    if (!saboteur_.before_packet(*this, packet)) continue;
    endpoint.handle_packet(now, rail, packet, payload);
    saboteur_.after_packet(*this, now, rail, packet, payload);
  }
}

bool Node::take_events() {
  engine::Event event;
  bool sound = true;
  while (endpoint.poll_event(event)) {
    auto* sleeper = static_cast<Sleeper*>(event.object);
    if (event.kind == engine::Event::Kind::kAsync) {
      sound = sound && event.type != AsyncEventType::kCqErr;
      if (event.type == AsyncEventType::kQpAccessErr) sleeper->access_error = true;
      if (event.type == AsyncEventType::kQpReqErr || event.type == AsyncEventType::kQpFatal)
        sleeper->other_error = true;
    } else if (saboteur_.on_event()) {
      sleeper->notified = true;
    }
  }
  return sound;
}

}  // namespace tbt::sim
