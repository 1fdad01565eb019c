// The golden trace's ThunderboltIP: Linux logs in, out and in again, and in the end we log out.
#include <algorithm>

#include "fabric/thunderbolt_ip_peer.h"
#include "golden_trace.h"

namespace tbt::fabric {
namespace {

constexpr uint16_t kOurHopId = 9;    // by which our frames come to Linux
constexpr uint16_t kLinuxHopId = 8;  // and Linux's to us

struct IpLine {
  Instant at;
  bool by_linux = false;
  XDomainPacket packet;
  IpMessage message;
};

std::vector<IpLine> load_ip() {
  std::vector<IpLine> lines;
  for (const GoldenLine& line : load_trace()) {
    IpMessage message;
    if (!read_ip(line.pdf, line.bytes, message)) continue;
    ControlPacket packet;
    EXPECT_EQ(decode_control_packet(line.pdf, line.bytes, packet), PacketError::kNone);
    lines.push_back({line.at, line.by_linux, std::get<XDomainPacket>(packet), message});
  }
  return lines;
}

// What Linux's driver says of itself.
template <typename T>
T first_by_linux(const std::vector<IpLine>& lines) {
  for (const IpLine& line : lines) {
    if (line.by_linux && std::holds_alternative<T>(line.message.content)) {
      return std::get<T>(line.message.content);
    }
  }
  ADD_FAILURE() << "not in the record";
  return {};
}

template <typename T>
size_t count_by(bool linux, const std::vector<IpLine>& lines) {
  return static_cast<size_t>(std::ranges::count_if(lines, [&](const IpLine& line) {
    return line.by_linux == linux && std::holds_alternative<T>(line.message.content);
  }));
}

TEST(GoldenIp, TheRecordHasEveryMessageBothWays) {
  const std::vector<IpLine> lines = load_ip();
  for (const bool linux : {false, true}) {
    EXPECT_GE(count_by<IpLogin>(linux, lines), 2u) << linux;
    EXPECT_GE(count_by<IpLoginResponse>(linux, lines), 2u) << linux;
    EXPECT_EQ(count_by<IpLogout>(linux, lines), 1u) << linux;
    EXPECT_EQ(count_by<IpStatus>(linux, lines), 1u) << linux;
  }
}

// Linux's messages at the times at which they came; ours must be those of the record, in its order.
// Property: who is told what, and under which numbers, does not change by accident.
TEST(GoldenIp, OurEndSaysToLinuxWhatItSaidThen) {
  const std::vector<IpLine> lines = load_ip();
  ASSERT_FALSE(lines.empty());
  ASSERT_FALSE(lines[0].by_linux) << "we began";
  std::array<uint8_t, 6> our_mac{};
  for (const IpLine& line : lines) {
    const auto* answer = std::get_if<IpLoginResponse>(&line.message.content);
    if (answer != nullptr && !line.by_linux) our_mac = answer->mac;
  }
  ThunderboltIpPeer peer(
      {.self = lines[0].message.initiator, .transmit_path = kOurHopId, .mac = our_mac});
  peer.start(lines[0].at, lines[0].message.target);
  std::deque<XDomainPacket> said;
  const auto speak = [&](Instant now) {
    for (XDomainPacket packet; peer.poll_transmit(now, packet);) said.push_back(packet);
  };
  std::vector<IpPeerState> states;  // after each message of Linux
  for (const IpLine& line : lines) {
    while (peer.poll_timeout() < line.at) {
      const Instant due = peer.poll_timeout();
      peer.handle_timeout(due);
      speak(due);
    }
    if (line.by_linux) {
      peer.handle_packet(line.at, line.packet);
      states.push_back(peer.state());
      speak(line.at);
      continue;
    }
    if (std::holds_alternative<IpLogout>(line.message.content)) peer.log_out(line.at);
    speak(line.at);
    ASSERT_FALSE(said.empty()) << line.at.ns << ": we do not say it any more";
    IpMessage message;
    ASSERT_EQ(decode_thunderbolt_ip(said.front(), message), XDomainError::kNone);
    EXPECT_EQ(message, line.message) << line.at.ns;
    EXPECT_EQ(said.front().sequence, line.packet.sequence) << line.at.ns;
    EXPECT_EQ(said.front().response, line.packet.response) << line.at.ns;
    said.pop_front();
  }
  EXPECT_TRUE(said.empty()) << "we say more";
  using enum IpPeerState;
  EXPECT_EQ(states, (std::vector{kLoggingIn, kConnected, kConnected, kResting, kLoggingIn,
                                 kConnected, kConnected, kDown}));
  EXPECT_EQ(peer.stats().malformed + peer.stats().foreign + peer.stats().unasked, 0u);
}

class GoldenIpPeer : public GoldenPeer {
 protected:
  GoldenIpPeer() : GoldenPeer(/*ip_rings=*/1) {}

  [[nodiscard]] std::optional<IpLinkStatus> ip() const { return manager_.status().ports[0].ip; }
  template <typename T>
  [[nodiscard]] size_t count() const {
    return static_cast<size_t>(std::ranges::count_if(
        events_, [](const ManagerEvent& event) { return std::holds_alternative<T>(event); }));
  }
  [[nodiscard]] bool leads() const {
    const auto in = routers_[0].path(rail::emulated::lane_adapter(0), kLinuxHopId);
    const auto out = routers_[0].path(rail::emulated::nhi_adapter(1), kIpRing);
    return in.enabled && in.egress_adapter == rail::emulated::nhi_adapter(1) &&
           in.next_hop == kIpRing && out.enabled &&
           out.egress_adapter == rail::emulated::lane_adapter(0) && out.next_hop == kOurHopId;
  }
  void connect() {
    manager_.start(now_);
    ASSERT_TRUE(run_until([&] { return ip() && ip()->state == IpLinkState::kLoggingIn; }));
    EXPECT_FALSE(leads());
    say_as_linux<IpLogin>();
    run();
    ASSERT_EQ(count<IpUp>(), 1u);
  }
};

TEST_F(GoldenIpPeer, OurManagerOpensAPathToLinux) {
  connect();
  const auto lines = load_ip();
  ASSERT_EQ(first_by_linux<IpLogin>(lines).transmit_path, kLinuxHopId);
  EXPECT_EQ(ip()->state, IpLinkState::kConnected);
  EXPECT_EQ(ip()->in_hop_id, kLinuxHopId);
  EXPECT_EQ(ip()->out_hop_id, kOurHopId);
  EXPECT_EQ(ip()->peer_mac, first_by_linux<IpLoginResponse>(lines).mac);
  EXPECT_TRUE(leads());
  ASSERT_EQ(ip_answers_.size(), 1u) << "Linux has its answer";
  EXPECT_EQ(std::get<IpLoginResponse>(ip_answers_[0].content).mac, kOurMac);
  EXPECT_EQ(unanswered_, 0u);
}

TEST_F(GoldenIpPeer, OurManagerClosesThePathWhenLinuxLogsOut) {
  connect();
  say_as_linux<IpLogout>();
  run();
  EXPECT_EQ(count<IpDown>(), 1u);
  EXPECT_EQ(ip()->state, IpLinkState::kResting);
  ASSERT_EQ(ip_answers_.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<IpStatus>(ip_answers_[1].content));
  const auto in = routers_[0].path(rail::emulated::lane_adapter(0), kLinuxHopId);
  EXPECT_FALSE(in.enabled);
  say_as_linux<IpLogin>();
  run();
  EXPECT_EQ(count<IpUp>(), 2u);
  EXPECT_TRUE(leads());
}

// Linux's answer ends the farewell: no time-out is waited for.
TEST_F(GoldenIpPeer, OurManagerLogsOutAndIsClosedAtOnce) {
  connect();
  const Instant begun = now_;
  manager_.shutdown(now_);
  run();
  EXPECT_TRUE(manager_.is_closed());
  EXPECT_EQ(now_, begun);
  EXPECT_FALSE(leads());
}

}  // namespace
}  // namespace tbt::fabric
