#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>

namespace tbt::sim {

namespace {

constexpr Duration kHealTime = Duration::from_ms(100);
constexpr Duration kSettleTime = Duration::from_us(200);

}  // namespace

void World::heal() {
  for (auto& link : links_) link->faults.heal();
}

void World::act(bool new_work) {
  for (auto& node : nodes_) {
    if (!node->take_events()) failure_.note(Checker::kStatus, "a completion queue overflowed");
    if (node->failure) failure_.note(node->failure.by, node->failure.text);
  }
  for (auto& traffic : traffic_) {
    traffic->act(now_, new_work);
    if (traffic->failure()) failure_.note(traffic->failure().by, traffic->failure().text);
  }
  if (!datagrams_) return;
  datagrams_->act(now_, new_work);
  if (datagrams_->failure()) failure_.note(datagrams_->failure().by, datagrams_->failure().text);
}

void World::receive_all() {
  for (uint32_t to = 0; to < hosts(); ++to) {
    for (uint32_t from = 0; from < hosts(); ++from) {
      nodes_[to]->receive(now_, from, link(from, to));
    }
    if (!saboteur_.timers_dead()) nodes_[to]->endpoint.handle_timeout(now_);
  }
}

void World::transmit_all() {
  for (uint32_t from = 0; from < hosts(); ++from) {
    for (uint32_t to = 0; to < hosts(); ++to) {
      nodes_[from]->transmit(now_, to, link(from, to), hash_);
    }
  }
}

Instant World::next_time(Instant next_act) const {
  Instant next = next_act;
  if (!happenings_.empty()) next = std::min(next, happenings_.back().at);
  for (uint32_t from = 0; from < hosts(); ++from) {
    engine::Endpoint& endpoint = nodes_[from]->endpoint;
    if (!saboteur_.timers_dead()) next = std::min(next, endpoint.next_deadline());
    for (uint32_t to = 0; to < hosts(); ++to) {
      next = std::min(next, link(from, to).next_arrival());
      if (endpoint.has_transmit(to)) next = std::min(next, link(from, to).room_at());
    }
  }
  return next;
}

void World::advance(Instant end, bool new_work, bool until_quiet) {
  Instant next_act = now_;
  while (now_ < end && !failure_) {
    while (!happenings_.empty() && happenings_.back().at <= now_) {
      const Happening due = std::move(happenings_.back());
      happenings_.pop_back();
      due.happen();
    }
    receive_all();
    if (next_act <= now_) {
      act(new_work);
      next_act = now_ + Duration{500 + rng_.below(act_within_)};
      if (until_quiet && quiet()) return;
    }
    transmit_all();
    now_ = std::max(next_time(next_act), now_ + Duration{1});
  }
}

bool World::quiet() const {
  return happenings_.empty() && (!datagrams_ || datagrams_->quiet()) &&
         std::ranges::all_of(traffic_, [](const auto& traffic) { return traffic->quiet(); });
}

void World::check_end() {
  if (!quiet()) failure_.note(Checker::kLiveness, "work was left after the cables had healed");
  for (auto& traffic : traffic_) {
    traffic->check_end();
    if (traffic->failure()) failure_.note(traffic->failure().by, traffic->failure().text);
  }
  if (datagrams_) datagrams_->check_end();
  if (datagrams_ && datagrams_->failure())
    failure_.note(datagrams_->failure().by, datagrams_->failure().text);
  if (grave_ && !grave_->guards_intact())
    failure_.note(Checker::kGuard, "the dead host: bytes outside the buffers were written");
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!nodes_[i]->guards_intact())
      failure_.note(Checker::kGuard,
                    "node " + std::to_string(i) + ": bytes outside the buffers were written");
  }
}

Failure World::run() {
  advance(traffic_end_, /*new_work=*/true, /*until_quiet=*/false);
  heal();
  act_within_ = std::min(act_within_, 20000u);
  advance(now_ + kHealTime, /*new_work=*/false, /*until_quiet=*/true);
  // Quiet at the senders: let the last acknowledges and datagrams arrive.
  if (!failure_ && quiet()) advance(now_ + kSettleTime, false, false);
  if (!failure_) check_end();
  return failure_;
}

uint64_t World::messages() const noexcept {
  uint64_t total = datagrams_ ? datagrams_->delivered() : 0;
  for (const auto& traffic : traffic_) total += traffic->completed();
  return total;
}

std::string World::describe() const {
  char text[400];
  std::snprintf(text, sizeof text, "%zu hosts, %zu pairs%s%s, now %lld ns", nodes_.size(),
                traffic_.size(), datagrams_ ? ", datagrams" : "", hard_ ? ", hard" : "",
                static_cast<long long>(now_.ns));
  std::string all = text;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const engine::Stats& stats = nodes_[i]->endpoint.stats();
    std::snprintf(text, sizeof text, "\n  node %zu: retries %llu timeouts %llu gaps %llu rnr %llu",
                  i, static_cast<unsigned long long>(stats.retries),
                  static_cast<unsigned long long>(stats.timeouts),
                  static_cast<unsigned long long>(stats.rx_out_of_sequence),
                  static_cast<unsigned long long>(stats.rnr_waits));
    all += text;
  }
  for (const auto& traffic : traffic_) all += "\n  " + traffic->describe();
  if (datagrams_) all += "\n  " + datagrams_->describe();
  return all;
}

}  // namespace tbt::sim
