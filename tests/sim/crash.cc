// A host dies, and comes back with the same LID and QPNs and another incarnation.
//
//     dies ... is back, empty ... each side hears of the other, in any order ... new pairs
//
// It dies without a farewell. Frames of its old life are still on the cables, and its peers go on
// sending to it until they are told; both arrive where they look right. What died stands in a
// grave, so that the oracle can ask what had come to it.
#include <algorithm>
#include <string>
#include <utility>

#include "tests/sim/world.h"

namespace tbt::sim {

namespace {

// Traffic::connect: eight time-outs of 1.05 ms, and a wait for a receive before.
constexpr Duration kRetriesLast = Duration::from_ms(10);

}  // namespace

void World::draw_crash() {
  const uint32_t host = rng_.below(hosts());
  const Instant at = now_ + Duration::from_us(100 + rng_.below(1000));
  const bool long_unheard = rng_.below(4) == 0;
  const Duration longest = long_unheard         ? Duration::from_ms(12)
                           : rng_.below(2) == 0 ? Duration::from_us(30)
                                                : Duration::from_us(1500);
  const Instant back = at + Duration{rng_.below(static_cast<uint32_t>(longest.ns))};
  if (long_unheard) act_within_ *= 10;
  add_happening(at, "crash", [this, host] { crash(host); });
  add_happening(back, "restart", [this, host, longest] { restart(host, longest); });
  traffic_end_ = std::max(traffic_end_, back + longest + Duration::from_us(800));
}

void World::crash(uint32_t host) {
  auto next = std::make_unique<Node>(host, hosts(), Rng(rng_.next()), saboteur_);
  next->set_up(false);
  grave_ = std::exchange(nodes_[host], std::move(next));
  for (auto& traffic : traffic_) traffic->lose(now_, *grave_);
  // A peer that is on the other end of the cable may see that it went dark.
  for (uint32_t other = 0; other < hosts(); ++other) {
    if (other == host || rng_.below(4) != 0) continue;
    nodes_[other]->meet(now_, host, 0);
    for (auto& traffic : traffic_) {
      if (traffic->joins(*grave_, *nodes_[other])) traffic->tell(now_, *nodes_[other]);
    }
  }
}

void World::restart(uint32_t host, Duration longest) {
  nodes_[host]->set_up(true);
  nodes_[host]->meet(now_, host, nodes_[host]->incarnation());
  const auto within = static_cast<uint32_t>(longest.ns);
  for (uint32_t other = 0; other < hosts(); ++other) {
    if (other == host) continue;
    const Instant here = now_ + Duration{rng_.below(within)};
    const Instant there = now_ + Duration{rng_.below(within)};
    const std::string names = std::to_string(host) + " and " + std::to_string(other);
    add_happening(here, names, [this, host, other] { meet(host, other); });
    add_happening(there, names, [this, host, other] { meet(other, host); });
    add_happening(std::max(here, there), "new pairs", [this, host, other] { renew(host, other); });
  }
}

// `host` hears of the present incarnation of `other`.
void World::meet(uint32_t host, uint32_t other) {
  nodes_[host]->meet(now_, other, nodes_[other]->incarnation());
  for (auto& traffic : traffic_) {
    if (traffic->joins(*grave_, *nodes_[host])) traffic->tell(now_, *nodes_[host]);
  }
}

void World::renew(uint32_t host, uint32_t other) {
  for (size_t i = 0, count = traffic_.size(); i < count; ++i) {
    if (!traffic_[i]->joins(*grave_, *nodes_[other])) continue;
    TrafficOptions options = traffic_[i]->succession(rng_);
    std::array<Node*, 2> ends{nodes_[host].get(), nodes_[other].get()};
    if (!traffic_[i]->died_first()) std::swap(ends[0], ends[1]);
    options.numbers[traffic_[i]->died_first() ? 1 : 0] = next_number_;
    next_number_ += 2;
    traffic_.push_back(std::make_unique<Traffic>(
        ends, options, Rng(rng_.next()), static_cast<uint32_t>(traffic_.size()), saboteur_));
  }
}

void Traffic::lose(Instant now, const Node& dead) {
  for (Side& side : sides_) {
    if (side.node != &dead) continue;
    side.dead = true;
    lost_at_ = now;
    for (const Sent& sent : side.sent) give_up(side, sent);
  }
}

bool Traffic::joins(const Node& a, const Node& b) const noexcept {
  return (sides_[0].node == &a && sides_[1].node == &b) ||
         (sides_[0].node == &b && sides_[1].node == &a);
}

void Traffic::tell(Instant now, const Node& survivor) {
  for (Side& side : sides_) {
    if (side.node != &survivor) continue;
    check_survivor(now, side);
    if (side.qp->state != QpState::kErr || side.target->state != QpState::kErr)
      fail(side, Checker::kFlush, "a pair that outlives its peer's host");
    side.told = side.failed = side.cause = true;
  }
}

// What was sent to a dead host has failed when its retries were over, told or not.
void Traffic::check_survivor(Instant now, const Side& side) {
  verbs::SendQueue& sq = side.qp->sq;
  if (side.told || !reliable() || sq.empty()) return;
  const auto oldest = std::ranges::find(side.sent, sq.at(sq.head).wr_id, &Sent::wr_id);
  if (now - std::max(lost_at_, oldest->posted) > kRetriesLast)
    fail(side, Checker::kLiveness, "no error though the retries must be over");
}

TrafficOptions Traffic::succession(Rng& rng) const {
  TrafficOptions next = options_;
  for (uint32_t i = 0; i < 2; ++i) {
    const engine::RequesterState& req = sides_[i].qp->req;
    next.first_psn[i] = rng.below(2) == 0 ? req.una_psn : req.next_psn;
  }
  next.second_keys = false;
  next.starved_from = next.starved_until = Instant::never();
  return next;
}

}  // namespace tbt::sim
