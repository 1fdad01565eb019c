#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>

namespace tbt::sim {

namespace {

constexpr Duration kTrafficTime = Duration::from_us(1500);
constexpr Duration kHealTime = Duration::from_ms(100);
constexpr Duration kSettleTime = Duration::from_us(200);

}  // namespace

World::World(uint64_t seed, Bug bug) : rng_(seed), saboteur_(bug, Rng(seed ^ 0x5ab07a6eULL << 32)) {
  for (uint32_t i = 0; i < 2; ++i) {
    nodes_[i] = std::make_unique<Node>(i, Rng(rng_.next()), saboteur_);
    links_[i] = std::make_unique<Link>(Rng(rng_.next()));
  }
  draw_faults();
}

// Swarm: each seed has a mix of its own, most of them mild.
void World::draw_faults() {
  const bool hard = rng_.below(8) == 0;
  const bool clean = !hard && rng_.below(4) == 0;
  for (auto& link : links_) {
    LinkFaults& faults = link->faults;
    faults.latency_ns = 200 + rng_.below(20000);
    faults.packet_ns = 100 + rng_.below(1000);
    faults.ring_packets = 1 + rng_.below(64);
    if (clean) continue;
    faults.drop_ppm = rng_.below(hard ? 300000 : 20000);
    faults.corrupt_ppm = rng_.below(3) == 0 ? rng_.below(10000) : 0;
    faults.duplicate_ppm = rng_.below(3) == 0 ? rng_.below(100000) : 0;
    faults.jitter_ns = rng_.below(4) == 0 ? rng_.below(5000) : 0;
  }
  const uint32_t pairs = 1 + rng_.below(3);
  for (uint32_t i = 0; i < pairs; ++i) draw_traffic(hard);
}

void World::draw_traffic(bool hard) {
  TrafficOptions options;
  options.type = rng_.below(3) == 0 ? QpType::kUc : QpType::kRc;
  options.mtu = static_cast<uint8_t>(1 + rng_.below(5));
  // Close to the wrap and to the middle of the sequence space, or anywhere.
  static constexpr uint32_t kStarts[] = {0xfffff0, 0x7ffff0, 0};
  for (uint32_t& psn : options.first_psn)
    psn = rng_.below(2) == 0 ? kStarts[rng_.below(3)] : rng_.below(1 << 24);
  options.may_fail = hard;
  options.lossless =
      std::ranges::all_of(links_, [](const auto& link) { return link->faults.lossless(); });
  options.in_order =
      std::ranges::all_of(links_, [](const auto& link) { return link->faults.in_order(); });
  options.slow_receiver = rng_.below(3) == 0;
  options.by_event = rng_.below(4) == 0;
  options.shared_receive_queue = rng_.below(options.type == QpType::kUc ? 16 : 4) == 0;
  options.rd_atomic = static_cast<uint8_t>(1 + rng_.below(8));
  traffic_.push_back(std::make_unique<Traffic>(std::array{nodes_[0].get(), nodes_[1].get()},
                                               options, Rng(rng_.next()),
                                               static_cast<uint32_t>(traffic_.size()), saboteur_));
}

void World::heal() {
  for (auto& link : links_) link->faults.heal();
}

void World::act(bool new_work) {
  for (auto& node : nodes_) {
    if (!node->take_events()) failure_.note(Checker::kStatus, "a completion queue overflowed");
  }
  for (auto& traffic : traffic_) {
    traffic->act(now_, new_work);
    if (traffic->failure()) failure_.note(traffic->failure().by, traffic->failure().text);
  }
}

void World::advance(Instant end, bool new_work, bool until_quiet) {
  Instant next_act = now_;
  while (now_ < end && !failure_) {
    for (uint32_t i = 0; i < 2; ++i) {
      nodes_[1 - i]->receive(now_, *links_[i]);
      if (!saboteur_.timers_dead()) nodes_[i]->endpoint.handle_timeout(now_);
    }
    if (next_act <= now_) {
      act(new_work);
      next_act = now_ + Duration{500 + rng_.below(20000)};
      if (until_quiet && quiet()) return;
    }
    for (uint32_t i = 0; i < 2; ++i) nodes_[i]->transmit(now_, *links_[i], hash_);
    Instant next = next_act;
    for (uint32_t i = 0; i < 2; ++i) {
      next = std::min(next, links_[i]->next_arrival());
      if (nodes_[i]->endpoint.has_transmit(0)) next = std::min(next, links_[i]->room_at());
      if (!saboteur_.timers_dead()) next = std::min(next, nodes_[i]->endpoint.next_deadline());
    }
    now_ = std::max(next, now_ + Duration{1});
  }
}

bool World::quiet() const {
  return std::ranges::all_of(traffic_, [](const auto& traffic) { return traffic->quiet(); });
}

void World::check_end() {
  if (!quiet()) failure_.note(Checker::kLiveness, "work was left after the cables had healed");
  for (auto& traffic : traffic_) {
    traffic->check_end();
    if (traffic->failure()) failure_.note(traffic->failure().by, traffic->failure().text);
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!nodes_[i]->guards_intact())
      failure_.note(Checker::kGuard,
                    "node " + std::to_string(i) + ": bytes outside the buffers were written");
  }
}

Failure World::run() {
  advance(now_ + kTrafficTime, /*new_work=*/true, /*until_quiet=*/false);
  heal();
  advance(now_ + kHealTime, /*new_work=*/false, /*until_quiet=*/true);
  // Quiet at the senders: let the last acknowledges and datagrams arrive.
  if (!failure_ && quiet()) advance(now_ + kSettleTime, false, false);
  if (!failure_) check_end();
  return failure_;
}

uint64_t World::messages() const noexcept {
  uint64_t total = 0;
  for (const auto& traffic : traffic_) total += traffic->completed();
  return total;
}

std::string World::describe() const {
  char text[400];
  std::snprintf(text, sizeof text, "%zu pairs, now %lld ns", traffic_.size(),
                static_cast<long long>(now_.ns));
  std::string all = text;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const engine::Stats& stats = nodes_[i]->endpoint.stats();
    const LinkFaults& faults = links_[i]->faults;
    std::snprintf(text, sizeof text,
                  "\n  node %zu: latency %u ns, retries %llu timeouts %llu gaps %llu rnr %llu", i,
                  faults.latency_ns, static_cast<unsigned long long>(stats.retries),
                  static_cast<unsigned long long>(stats.timeouts),
                  static_cast<unsigned long long>(stats.rx_out_of_sequence),
                  static_cast<unsigned long long>(stats.rnr_waits));
    all += text;
  }
  for (const auto& traffic : traffic_) all += "\n  " + traffic->describe();
  return all;
}

}  // namespace tbt::sim
