// World: what a seed draws. Swarm: each seed has a mix of its own, most of them mild.
#include <algorithm>
#include <string>
#include <utility>

#include "tests/sim/world.h"

namespace tbt::sim {

namespace {

constexpr Duration kTrafficTime = Duration::from_us(1500);
constexpr uint32_t kActWithin = 20000;
// The retry budget of an RC queue pair is eight timeouts of 1.05 ms (Traffic::connect).
constexpr Duration kOutageShort = Duration::from_us(2500);  // at most
constexpr Duration kOutageLong = Duration::from_ms(11);     // at least

}  // namespace

World::World(uint64_t seed, Bug bug)
    : rng_(seed),
      saboteur_(bug, Rng(seed ^ 0x5ab07a6eULL << 32)),
      traffic_end_(now_ + kTrafficTime),
      act_within_(kActWithin) {
  const uint32_t hosts = rng_.below(3) == 0 ? 3 + rng_.below(2) : 2;
  for (uint32_t i = 0; i < hosts; ++i)
    nodes_.push_back(std::make_unique<Node>(i, hosts, Rng(rng_.next()), saboteur_));
  for (auto& node : nodes_) {
    for (auto& other : nodes_) node->meet(now_, other->index(), other->incarnation());
  }
  draw_cables();
  if (rng_.below(6) == 0) draw_outage();
  const uint32_t pairs = 1 + rng_.below(3);
  for (uint32_t i = 0; i < pairs; ++i) draw_traffic();
  if (rng_.below(8) == 0) {
    draw_crash();
  } else if (rng_.below(3) == 0) {
    draw_datagrams();
  }
}

void World::draw_cables() {
  hard_ = rng_.below(8) == 0;
  const bool clean = !hard_ && rng_.below(4) == 0;
  for (uint32_t i = 0; i < hosts() * hosts(); ++i) {
    links_.push_back(std::make_unique<Link>(Rng(rng_.next())));
    LinkFaults& faults = links_.back()->faults;
    faults.latency_ns = 200 + rng_.below(20000);
    faults.packet_ns = 100 + rng_.below(1000);
    faults.ring_packets = 1 + rng_.below(64);
    if (clean) continue;
    faults.drop_ppm = rng_.below(hard_ ? 300000 : 20000);
    faults.corrupt_ppm = rng_.below(3) == 0 ? rng_.below(10000) : 0;
    faults.duplicate_ppm = rng_.below(3) == 0 ? rng_.below(100000) : 0;
    faults.jitter_ns = rng_.below(4) == 0 ? rng_.below(5000) : 0;
  }
  broken_.assign(links_.size(), false);
  cut_.assign(links_.size(), false);
}

void World::add_happening(Instant at, std::string name, std::function<void()> happen) {
  const auto place = std::ranges::find_if(happenings_, [at](auto& h) { return h.at <= at; });
  happenings_.insert(place, {at, std::move(name), std::move(happen)});
}

// One cable, one way or both, is out for a time that the retries outlast, or do not.
void World::draw_outage() {
  const uint32_t a = rng_.below(hosts());
  const uint32_t b = (a + 1 + rng_.below(hosts() - 1)) % hosts();
  const bool both = rng_.below(2) == 0;
  const bool within = rng_.below(3) != 0;
  const Instant begin = now_ + Duration::from_us(100 + rng_.below(1000));
  const Duration length = within
                              ? Duration{1000 + rng_.below(static_cast<uint32_t>(kOutageShort.ns))}
                              : kOutageLong + Duration::from_us(rng_.below(3000));
  auto set = [this, a, b, both](bool down) {
    link(a, b).set_down(down);
    if (both) link(b, a).set_down(down);
  };
  const std::string name = std::to_string(a) + (both ? "-" : ">") + std::to_string(b);
  add_happening(begin, name + " down", [set] { set(true); });
  add_happening(begin + length, name + " up", [set] { set(false); });
  for (const uint32_t i : {a * hosts() + b, both ? b * hosts() + a : a * hosts() + b}) {
    cut_[i] = true;
    broken_[i] = !within;
  }
  if (!within) act_within_ = 10 * kActWithin;
  traffic_end_ = std::max(traffic_end_, begin + length + Duration::from_us(400));
}

void World::draw_traffic() {
  const uint32_t a = rng_.below(hosts());
  const uint32_t b = (a + 1 + rng_.below(hosts() - 1)) % hosts();
  TrafficOptions options;
  options.type = rng_.below(3) == 0   ? QpType::kUc
                 : rng_.below(6) == 0 ? QpType::kXrcSend
                                      : QpType::kRc;
  options.mtu = static_cast<uint8_t>(1 + rng_.below(5));
  // Close to the wrap and to the middle of the sequence space, or anywhere.
  static constexpr uint32_t kStarts[] = {0xfffff0, 0x7ffff0, 0};
  for (uint32_t& psn : options.first_psn)
    psn = rng_.below(2) == 0 ? kStarts[rng_.below(3)] : rng_.below(1 << 24);
  for (uint32_t& number : options.numbers) {
    number = next_number_;
    next_number_ += 2;
  }
  const uint32_t ways[] = {a * hosts() + b, b * hosts() + a};
  auto all = [&](auto&& holds) { return holds(ways[0]) && holds(ways[1]); };
  options.may_fail = hard_ || !all([&](uint32_t way) { return !broken_[way]; });
  options.in_order = all([&](uint32_t way) { return links_[way]->faults.in_order(); });
  options.lossless =
      all([&](uint32_t way) { return links_[way]->faults.lossless() && !cut_[way]; });
  options.slow_receiver = rng_.below(3) == 0;
  options.slow_poller = rng_.below(8) == 0;
  options.rnr_retry = static_cast<uint8_t>(rng_.below(8) == 0 ? rng_.below(7) : 7);
  options.second_keys = rng_.below(6) == 0;
  options.by_event = rng_.below(4) == 0;
  options.shared_receive_queue = rng_.below(options.type == QpType::kUc ? 16 : 4) == 0;
  options.windows = options.type == QpType::kRc && rng_.below(4) == 0;
  options.rd_atomic = static_cast<uint8_t>(1 + rng_.below(8));
  if (rng_.below(5) == 0) draw_starving(options);
  traffic_.push_back(std::make_unique<Traffic>(std::array{nodes_[a].get(), nodes_[b].get()},
                                               options, Rng(rng_.next()),
                                               static_cast<uint32_t>(traffic_.size()), saboteur_));
  if (!options.second_keys || rng_.below(3) == 0) return;
  const uint32_t side = rng_.below(2);
  add_happening(now_ + Duration::from_us(rng_.below(1500)), "key gone",
                [traffic = traffic_.back().get(), side] { traffic->deregister(side); });
}

// Often for longer than a lost packet's retries would last: a NAK that says why is no silence.
void World::draw_starving(TrafficOptions& options) {
  const bool longer = rng_.below(2) == 0;
  options.starved_from = now_ + Duration::from_us(rng_.below(500));
  options.starved_until =
      options.starved_from + (longer ? kOutageLong : Duration::from_us(100 + rng_.below(1000)));
  if (longer) act_within_ = 10 * kActWithin;
  traffic_end_ = std::max(traffic_end_, options.starved_until + Duration::from_us(400));
}

void World::draw_datagrams() {
  DatagramOptions options;
  options.lossless = options.once = options.in_order = true;
  for (uint32_t i = 0; i < links_.size(); ++i) {
    const LinkFaults& faults = links_[i]->faults;
    options.lossless = options.lossless && faults.lossless() && !cut_[i];
    options.once = options.once && faults.duplicate_ppm == 0;
    options.in_order = options.in_order && faults.in_order();
  }
  datagrams_ = std::make_unique<Datagrams>(nodes_, options, Rng(rng_.next()), saboteur_);
}

}  // namespace tbt::sim
