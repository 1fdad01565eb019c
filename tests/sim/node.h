// Node: one host: its endpoint, its memory and the way of a packet in and out.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/endpoint.h"
#include "fabric/framing.h"
#include "tests/sim/checks.h"
#include "tests/sim/link.h"

namespace tbt::sim {

class Saboteur;

// Who is told of events: `user` of completion queues and queue pairs points to one.
struct Sleeper {
  bool notified = false;      // a completion
  bool access_error = false;  // the queue pair refused a request for its key
  bool other_error = false;
};

// Its memory is one region; everything that is not handed out by carve() is guard.
class Node final : private engine::Router {
 public:
  Node(uint32_t index, uint32_t hosts, Rng rng, Saboteur& saboteur);

  [[nodiscard]] uint32_t index() const noexcept { return index_; }
  [[nodiscard]] uint16_t lid() const noexcept { return static_cast<uint16_t>(64 * (index_ + 1)); }
  // A piece of registered memory, zeroed, with guard bytes on both sides.
  std::byte* carve(size_t bytes);
  // One more key for all of the memory.
  uint32_t register_all();
  [[nodiscard]] bool guards_intact() const;
  // One past the last byte of the piece that `at` lies in; nullptr if it lies in none.
  [[nodiscard]] std::byte* piece_end(const std::byte* at) const noexcept;

  // A host's rail to another one has that one's index.
  [[nodiscard]] verbs::Path path_to(uint16_t dlid) const noexcept;
  // The daemon's news. A host is known by its incarnation, and nothing passes before both ends know
  // each other's; `incarnation` 0: there is no way to it now.
  void meet(Instant now, uint32_t host, uint64_t incarnation);
  [[nodiscard]] bool knows(uint32_t host) const noexcept { return known_[host] != 0; }
  [[nodiscard]] uint64_t incarnation() const noexcept { return incarnation_; }
  void set_up(bool up) noexcept { up_ = up; }

  void transmit(Instant now, uint32_t rail, Link& out, uint64_t& hash);
  void receive(Instant now, uint32_t rail, Link& in);
  // Wakes who waits for a completion. False if an event says that a completion queue overflowed.
  bool take_events();

  // Queue pairs that traffic has made here.
  void adopt(engine::QueuePair& qp) { pairs_.push_back(&qp); }
  [[nodiscard]] engine::QueuePair* find_pair(uint32_t number) const noexcept;

  engine::Endpoint endpoint;
  verbs::ProtectionDomain pd;
  uint32_t key = 0;
  fabric::FramingStats framing;
  Failure failure;

 private:
  std::optional<verbs::Path> resolve(uint8_t port, const AddressVector& address,
                                     uint32_t spread) const override;

  struct Piece {
    size_t offset, bytes;
  };

  [[nodiscard]] Session session_with(uint32_t host) const noexcept;

  uint32_t index_;
  uint64_t incarnation_;
  std::vector<uint64_t> known_;  // incarnations, by host
  bool up_ = true;
  Saboteur& saboteur_;
  std::unique_ptr<std::byte[]> memory_;
  std::vector<Piece> pieces_;
  std::vector<engine::QueuePair*> pairs_;
  size_t used_ = 0;
};

}  // namespace tbt::sim
