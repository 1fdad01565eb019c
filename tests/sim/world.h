// World: two hosts, their endpoints, a cable each way and a virtual clock, all drawn from one seed.
//
//     Traffic (per queue pair pair, both directions)
//        | post, poll
//     Node 0: Endpoint ==Link==> Node 1: Endpoint
//                      <==Link==
//
// The seed draws the mix of faults first, then the traffic. Traffic runs for a while, then the
// cables heal, and everything outstanding must complete. A failure names the checker that saw it;
// the seed replays it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/checks.h"
#include "tests/sim/link.h"
#include "tests/sim/node.h"
#include "tests/sim/sabotage.h"
#include "tests/sim/traffic.h"

namespace tbt::sim {

class World {
 public:
  explicit World(uint64_t seed, Bug bug = Bug::kNone);

  // Runs the whole story; the hash covers every packet that was sent, and when.
  Failure run();
  [[nodiscard]] uint64_t trace_hash() const noexcept { return hash_; }
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] uint64_t messages() const noexcept;
  // How often the bug of the constructor has shown.
  [[nodiscard]] uint32_t strikes() const noexcept { return saboteur_.strikes(); }

 private:
  void draw_faults();
  void draw_traffic(bool hard);
  void heal();
  void act(bool new_work);
  // Until `end`, or, once no new work is made, until all is quiet.
  void advance(Instant end, bool new_work, bool until_quiet);
  [[nodiscard]] bool quiet() const;
  void check_end();

  Rng rng_;
  Saboteur saboteur_;
  Instant now_{1000};
  std::array<std::unique_ptr<Node>, 2> nodes_;
  std::array<std::unique_ptr<Link>, 2> links_;
  std::vector<std::unique_ptr<Traffic>> traffic_;
  Failure failure_;
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace tbt::sim
