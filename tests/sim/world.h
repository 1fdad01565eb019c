// World: two hosts, their endpoints, a cable each way and a virtual clock, all drawn from one seed.
//
//     Traffic (per queue pair pair, both directions)
//        | post, poll
//     Node 0: Endpoint ==Link==> Node 1: Endpoint
//                      <==Link==
//
// The seed draws the mix of faults first, then the traffic. Traffic runs for a while, then the
// cables heal, and everything outstanding must complete. A failure is a text; the seed replays it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/link.h"

namespace tbt::sim {

class Traffic;

struct Failure {
  std::string text;  // empty: none
};

// One host. Its memory is one region; everything that is not handed out by carve() is guard.
class Node final : private engine::Router {
 public:
  Node(uint32_t index, Rng rng);

  [[nodiscard]] uint16_t lid() const noexcept { return static_cast<uint16_t>(64 * (index_ + 1)); }
  // A piece of registered memory with guard bytes on both sides.
  std::byte* carve(size_t bytes);
  [[nodiscard]] bool guards_intact() const;
  void transmit(Instant now, Link& out, uint64_t& hash);
  void receive(Instant now, Link& in);

  engine::Endpoint endpoint;
  verbs::ProtectionDomain pd;
  uint32_t key = 0;
  fabric::FramingStats framing;

 private:
  std::optional<verbs::Path> resolve(uint8_t port, const AddressVector& address,
                                     uint32_t spread) const override;

  uint32_t index_;
  std::vector<std::byte> memory_;
  struct Piece {
    size_t offset, bytes;
  };
  std::vector<Piece> pieces_;
  size_t used_ = 0;
};

class World {
 public:
  explicit World(uint64_t seed);
  ~World();

  // Runs the whole story; the hash covers every packet that was sent, and when.
  Failure run();
  [[nodiscard]] uint64_t trace_hash() const noexcept { return hash_; }
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] uint64_t messages() const noexcept;

  // For the simulator's own test: breaks something that a checker must notice.
  enum class Sabotage {
    kNone,
    kFlipMemory,
    kLoseCompletion,
    kRepeatCompletion,
    kBreakGuard,
    kStall
  };
  Sabotage sabotage = Sabotage::kNone;

 private:
  void draw_faults();
  void heal();
  void advance(Instant end, bool new_work);
  bool quiet() const;
  Failure check_end();

  uint64_t seed_;
  Rng rng_;
  Instant now_{1000};
  std::array<std::unique_ptr<Node>, 2> nodes_;
  std::array<std::unique_ptr<Link>, 2> links_;
  std::vector<std::unique_ptr<Traffic>> traffic_;
  std::string failure_;
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace tbt::sim
