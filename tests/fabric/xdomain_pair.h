// Two ends of a cable, each with its XDomainPeer, in virtual time. Packets go through the codec of
// the control channel and arrive in order, with the route rewritten and the checksum made anew as
// the last router does, unless the cable loses or doubles them.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "fabric/xdomain_peer.h"
#include "wire/tb/service.h"

namespace tbt::fabric {

class XDomainPair {
 public:
  explicit XDomainPair(uint64_t seed = 1) : rng_(seed) {
    for (uint32_t end = 0; end < 2; ++end) boot(end, "host" + std::to_string(end));
  }

  static wire::tb::Uuid uuid_of(uint32_t end) {
    wire::tb::Uuid uuid;
    uuid.bytes.fill(static_cast<uint8_t>(0x11 * (end + 1)));
    return uuid;
  }
  static wire::tb::Route route_of(uint32_t end) { return {end == 0 ? 1u : 0x0503u}; }

  // A block of three fragments.
  static std::vector<uint32_t> block_of(const std::string& name) {
    wire::tb::HostProperties host;
    host.device_name = name;
    wire::tb::PropertyDirectory root = host_directory(host);
    add_tbt_service({}, root);
    root.entries.push_back({wire::tb::PropertyKey("padding"), wire::tb::PropertyData(50, 1)});
    std::vector<uint32_t> block;
    EXPECT_EQ(build_property_block(root, block), wire::tb::PropertyError::kNone);
    return block;
  }

  // The host's daemon begins, as if it had never been there before; its link is down.
  void boot(uint32_t end, const std::string& name) {
    peers_[end] = std::make_unique<XDomainPeer>(uuid_of(end), route_of(end));
    rename(end, name);
  }
  void rename(uint32_t end, const std::string& name) {
    names_[end] = name;
    peers_[end]->set_properties(now, block_of(name));
  }
  void plug() {
    for (auto& peer : peers_) peer->link_up(now);
  }
  void unplug() {
    for (auto& peer : peers_) peer->link_down();
    in_flight_.clear();
  }

  XDomainPeer& operator[](uint32_t end) { return *peers_[end]; }

  // Until nothing is in flight and nothing is waited for, or `limit` has passed.
  void run(Duration limit) {
    const Instant end = now + limit;
    while (step(end)) {
    }
    now = std::max(now, end);
  }
  // Until `count` packets have been sent, or nothing goes on.
  void run_packets(uint64_t count) {
    while (sent < count && step(now + Duration::from_s(60))) {
    }
  }

  // Whether `end` knows what the other says of itself now.
  [[nodiscard]] bool knows(uint32_t end) const {
    const XDomainRequester& discovery = peers_[end]->discovery();
    if (discovery.state() != DiscoveryState::kKnown) return false;
    const auto* name = discovery.properties()->find_text("deviceid");
    return discovery.peer() == uuid_of(1 - end) && name != nullptr && *name == names_[1 - end];
  }

  Instant now{1'000'000'000};
  uint32_t lost_ppm = 0;
  uint32_t doubled_ppm = 0;
  Duration latency = Duration::from_us(20);
  uint64_t sent = 0;
  std::array<std::vector<DiscoveryEvent>, 2> events;

 private:
  struct InFlight {
    Instant at;
    uint32_t to = 0;
    wire::tb::ControlFrame frame;
  };

  // One arrival or one timeout not later than `end`.
  bool step(Instant end) {
    drain();
    Instant next = in_flight_.empty() ? Instant::never() : in_flight_.front().at;
    for (const auto& peer : peers_) next = std::min(next, peer->poll_timeout());
    if (next > end) return false;
    now = std::max(now, next);
    if (!in_flight_.empty() && in_flight_.front().at <= now) {
      const InFlight arrival = in_flight_.front();
      in_flight_.pop_front();
      deliver(arrival);
    }
    for (auto& peer : peers_) peer->handle_timeout(now);
    drain();
    return true;
  }

  void drain() {
    for (uint32_t end = 0; end < 2; ++end) {
      wire::tb::XDomainPacket packet;
      while (peers_[end]->poll_transmit(now, packet)) send(end, packet);
      while (const auto event = peers_[end]->poll_event()) events[end].push_back(*event);
    }
  }

  void send(uint32_t from, const wire::tb::XDomainPacket& packet) {
    ++sent;
    ASSERT_EQ(packet.route, route_of(from));
    ASSERT_FALSE(packet.from_router);
    if (rng_.chance_ppm(lost_ppm)) return;
    wire::tb::XDomainPacket crossing = packet;
    crossing.route = route_of(1 - from);
    crossing.from_router = true;
    InFlight arrival{now + latency, 1 - from, {}};
    encode_control_packet(crossing, arrival.frame);
    in_flight_.push_back(arrival);
    if (rng_.chance_ppm(doubled_ppm)) in_flight_.push_back(arrival);
  }

  void deliver(const InFlight& arrival) {
    wire::tb::ControlPacket packet;
    ASSERT_EQ(decode_control_packet(static_cast<uint8_t>(arrival.frame.pdf), arrival.frame.span(),
                                    packet),
              wire::tb::PacketError::kNone);
    peers_[arrival.to]->handle_packet(now, std::get<wire::tb::XDomainPacket>(packet));
  }

  Rng rng_;
  std::array<std::unique_ptr<XDomainPeer>, 2> peers_;
  std::array<std::string, 2> names_;
  std::deque<InFlight> in_flight_;
};

}  // namespace tbt::fabric
