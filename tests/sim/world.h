// World: two to four hosts, their endpoints, a cable each way between any two and a virtual clock,
// all drawn from one seed.
//
//     Traffic (per queue pair pair, both directions), Datagrams (UD, all hosts)
//        | post, poll
//     Node 0: Endpoint ==Link==> Node 1: Endpoint   ...
//                      <==Link==
//
// One host may die and come back with another incarnation (crash.cc).
//
// The seed draws the hosts and the mix of faults first, then the traffic, then what happens in
// between (story.cc). Traffic runs for a while, then the cables heal, and everything outstanding
// must complete (world.cc). A failure names the checker that saw it; the seed replays it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/checks.h"
#include "tests/sim/datagrams.h"
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
  // Something that befalls the world at a time.
  struct Happening {
    Instant at;
    std::string name;
    std::function<void()> happen;
  };

  // story.cc
  void draw_cables();
  void draw_outage();
  void draw_traffic();
  void draw_starving(TrafficOptions& options);
  void draw_datagrams();
  // crash.cc
  void draw_crash();
  void crash(uint32_t host);
  void restart(uint32_t host, Duration longest);
  void meet(uint32_t host, uint32_t other);
  void renew(uint32_t host, uint32_t other);
  void add_happening(Instant at, std::string name, std::function<void()> happen);

  // world.cc
  [[nodiscard]] uint32_t hosts() const noexcept { return static_cast<uint32_t>(nodes_.size()); }
  [[nodiscard]] Link& link(uint32_t from, uint32_t to) const noexcept {
    return *links_[from * hosts() + to];
  }
  void heal();
  void act(bool new_work);
  void receive_all();
  void transmit_all();
  [[nodiscard]] Instant next_time(Instant next_act) const;
  // Until `end`, or, once no new work is made, until all is quiet.
  void advance(Instant end, bool new_work, bool until_quiet);
  [[nodiscard]] bool quiet() const;
  void check_end();

  Rng rng_;
  Saboteur saboteur_;
  Instant now_{1000};
  // The story.
  bool hard_ = false;                  // the cables lose up to a third
  Instant traffic_end_;                // new work is made until then
  uint32_t act_within_ = 0;            // most ns between two acts of the applications
  std::vector<bool> broken_;           // per cable direction: an outage beyond the retry budget
  std::vector<bool> cut_;              // any outage
  std::vector<Happening> happenings_;  // latest first
  std::vector<std::unique_ptr<Node>> nodes_;
  std::unique_ptr<Node> grave_;               // the host that died, as it was
  std::vector<std::unique_ptr<Link>> links_;  // from * hosts + to
  std::vector<std::unique_ptr<Traffic>> traffic_;
  uint32_t next_number_ = (1u << 18) + 10;  // QPN
  std::unique_ptr<Datagrams> datagrams_;
  Failure failure_;
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace tbt::sim
