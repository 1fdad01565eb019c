// The login of ThunderboltIP: two ends over a cable that loses packets, is pulled or has an end
// that begins anew, and one end against a peer that says what the test wants.
#include "fabric/thunderbolt_ip_peer.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

Uuid uuid_of(uint32_t end) {
  Uuid uuid;
  uuid.bytes.fill(static_cast<uint8_t>(0x11 * (end + 1)));
  return uuid;
}
IpPeerConfig config_of(uint32_t end) {
  IpPeerConfig config{.self = uuid_of(end), .transmit_path = static_cast<uint16_t>(8 + end)};
  config.mac.fill(static_cast<uint8_t>(2 + end));
  return config;
}

class Pair {
 public:
  explicit Pair(uint64_t seed = 1) : rng_(seed) {
    for (uint32_t end = 0; end < 2; ++end) boot(end);
  }
  void boot(uint32_t end) { peers_[end] = std::make_unique<ThunderboltIpPeer>(config_of(end)); }
  void start(uint32_t end) { peers_[end]->start(now, uuid_of(1 - end)); }
  ThunderboltIpPeer& operator[](uint32_t end) { return *peers_[end]; }
  [[nodiscard]] bool connected() {
    return peers_[0]->path() == IpPath{8, 9} && peers_[1]->path() == IpPath{9, 8};
  }

  void run(Duration time) {
    const Instant end = now + time;
    while (true) {
      exchange();
      const Instant next = std::min(peers_[0]->poll_timeout(), peers_[1]->poll_timeout());
      if (next > end) break;
      ASSERT_GT(next, now) << "time stands still";
      now = next;
      for (auto& peer : peers_) peer->handle_timeout(now);
    }
    now = end;
  }

  Instant now{1000};
  uint32_t lost_ppm = 0;
  uint64_t sent = 0;

 private:
  void exchange() {
    bool any = true;
    while (any) {
      any = false;
      for (uint32_t end = 0; end < 2; ++end) {
        XDomainPacket packet;
        while (peers_[end]->poll_transmit(now, packet)) {
          any = true;
          ASSERT_LT(++sent, 100'000u) << "the ends keep each other going";
          if (rng_.chance_ppm(lost_ppm)) continue;
          peers_[1 - end]->handle_packet(now, packet);
        }
      }
    }
  }

  Rng rng_;
  std::array<std::unique_ptr<ThunderboltIpPeer>, 2> peers_;
};

TEST(ThunderboltIpPair, TwoEndsConnectAtOnceAndAreThenSilent) {
  Pair pair;
  pair.start(0);
  pair.start(1);
  pair.run({});
  EXPECT_TRUE(pair.connected());
  EXPECT_EQ(pair[0].peer_mac(), config_of(1).mac);
  const uint64_t sent = pair.sent;
  EXPECT_LE(sent, 6u);
  pair.run(Duration::from_s(100));
  EXPECT_EQ(pair.sent, sent);
  EXPECT_TRUE(pair[0].poll_timeout().is_never());
}

TEST(ThunderboltIpPair, AnEndThatComesLateIsLoggedInWithoutWaiting) {
  Pair pair;
  pair.start(0);
  pair.run(Duration::from_s(7));
  EXPECT_EQ(pair[0].state(), IpPeerState::kLoggingIn);
  pair.start(1);
  pair.run({});
  EXPECT_TRUE(pair.connected());
}

TEST(ThunderboltIpPair, LossOnlyDelays) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Pair pair(seed);
    pair.lost_ppm = 400'000;
    pair.start(0);
    pair.start(1);
    pair.run(Duration::from_s(120));
    EXPECT_TRUE(pair.connected()) << "seed " << seed << " " << ip_peer_state_name(pair[0].state())
                                  << " " << ip_peer_state_name(pair[1].state());
  }
}

// Killed at any time after the connection, also right after a login of the other end.
TEST(ThunderboltIpPair, AnEndThatBeginsAnewIsConnectedAgain) {
  for (int64_t seconds = 0; seconds < 12; ++seconds) {
    Pair pair;
    pair.start(0);
    pair.start(1);
    pair.run(Duration::from_s(seconds));
    pair.boot(1);
    pair.start(1);
    pair.run(Duration::from_s(10));
    EXPECT_TRUE(pair.connected()) << "after " << seconds << " s";
    EXPECT_LE(pair.sent, 20u);
  }
}

TEST(ThunderboltIpPair, ALogoutEndsBothAndALoginBeginsAnew) {
  Pair pair;
  pair.start(0);
  pair.start(1);
  pair.run({});
  pair[0].log_out(pair.now);
  EXPECT_EQ(pair[0].path(), std::nullopt);
  pair.run({});
  EXPECT_EQ(pair[0].state(), IpPeerState::kDown);
  EXPECT_EQ(pair[1].state(), IpPeerState::kResting);
  const uint64_t sent = pair.sent;
  pair.run(Duration::from_s(60));
  EXPECT_EQ(pair.sent, sent) << "whoever was logged out waits to be asked";
  pair.start(0);
  pair.run({});
  EXPECT_TRUE(pair.connected());
}

TEST(ThunderboltIpPair, ALogoutIntoNothingEnds) {
  Pair pair;
  pair.start(0);
  pair.start(1);
  pair.run({});
  pair.lost_ppm = 1'000'000;
  pair[0].log_out(pair.now);
  pair.run(kIpLogoutTimeout * kIpLogouts);
  EXPECT_EQ(pair[0].state(), IpPeerState::kDown);
  EXPECT_TRUE(pair[0].poll_timeout().is_never());
}

// As Linux: it would not log in again to somebody that it believes to be connected to.
TEST(ThunderboltIpPair, WhoFollowsAKilledEndLogsOutFirst) {
  Pair pair;
  pair.start(0);
  pair.start(1);
  pair.run(Duration::from_s(1));
  pair.boot(0);
  pair[0].start(pair.now, uuid_of(1), true);
  EXPECT_EQ(pair[0].state(), IpPeerState::kClearing);
  pair.run({});
  EXPECT_EQ(pair[1].state(), IpPeerState::kResting);
  pair.run(kIpSettle);
  EXPECT_TRUE(pair.connected());
}

TEST(ThunderboltIpPair, WhoFollowsAKilledEndMayBeUnheard) {
  Pair pair;
  pair.start(1);
  pair.lost_ppm = 1'000'000;
  pair[0].start(pair.now, uuid_of(1), true);
  pair.run(kIpLogoutTimeout * kIpLogouts);
  EXPECT_EQ(pair[0].state(), IpPeerState::kLoggingIn);
  pair.lost_ppm = 0;
  pair.run(Duration::from_s(10));
  EXPECT_TRUE(pair.connected());
}

// One end against the test.
class ThunderboltIpScript : public testing::Test {
 protected:
  ThunderboltIpScript() : end_(config_of(0)) { end_.start(now_, uuid_of(1)); }

  void receive(decltype(IpMessage::content) content, uint32_t from = 1, uint32_t to = 0) {
    end_.handle_packet(
        now_, encode_thunderbolt_ip({uuid_of(from), uuid_of(to), 77, content}, {{}, false, 3}));
  }
  template <typename T>
  bool expect() {
    XDomainPacket packet;
    IpMessage message;
    if (!end_.poll_transmit(now_, packet)) return false;
    EXPECT_EQ(decode_thunderbolt_ip(packet, message), XDomainError::kNone);
    EXPECT_EQ(message.initiator, uuid_of(0));
    EXPECT_EQ(message.target, uuid_of(1));
    sequence_ = packet.sequence;
    return std::holds_alternative<T>(message.content);
  }
  bool silent() {
    XDomainPacket packet;
    return !end_.poll_transmit(now_, packet);
  }
  void pass(Duration time) {
    now_ = now_ + time;
    end_.handle_timeout(now_);
  }

  Instant now_{1};
  ThunderboltIpPeer end_;
  uint8_t sequence_ = 0;
};

TEST_F(ThunderboltIpScript, LogsInSixtyTimesEveryFiveSecondsAndThenRests) {
  for (uint32_t i = 0; i < kIpLogins; ++i) {
    EXPECT_TRUE(expect<IpLogin>()) << i;
    EXPECT_EQ(end_.poll_timeout(), now_ + kIpLoginTimeout);
    pass(kIpLoginTimeout);
    EXPECT_TRUE(silent());
    if (i + 1 == kIpLogins) break;
    EXPECT_EQ(end_.poll_timeout(), now_ + kIpLoginDelay);
    pass(kIpLoginDelay);
  }
  EXPECT_EQ(end_.state(), IpPeerState::kResting);
  EXPECT_TRUE(end_.poll_timeout().is_never());
  receive(IpLogin{.transmit_path = 30});
  EXPECT_TRUE(expect<IpLoginResponse>());
  EXPECT_EQ(sequence_, 3) << "the answer bears the question's number";
  EXPECT_TRUE(expect<IpLogin>());
  receive(IpLoginResponse{});
  EXPECT_EQ(end_.path(), (IpPath{8, 30}));
}

TEST_F(ThunderboltIpScript, IsNotConnectedByEitherLoginAlone) {
  EXPECT_TRUE(expect<IpLogin>());
  receive(IpLoginResponse{});
  EXPECT_EQ(end_.path(), std::nullopt);
  receive(IpLogout{});
  EXPECT_TRUE(expect<IpStatus>());
  receive(IpLogin{.transmit_path = 9});
  EXPECT_TRUE(expect<IpLoginResponse>());
  EXPECT_EQ(end_.path(), std::nullopt) << "the answer before the logout does not count";
}

TEST_F(ThunderboltIpScript, ARefusalIsAskedAgainLater) {
  EXPECT_TRUE(expect<IpLogin>());
  receive(IpLogin{.transmit_path = 9});
  EXPECT_TRUE(expect<IpLoginResponse>());
  receive(IpLoginResponse{.status = 1});
  EXPECT_EQ(end_.path(), std::nullopt);
  EXPECT_TRUE(silent());
  pass(kIpLoginDelay);
  EXPECT_TRUE(expect<IpLogin>());
}

TEST_F(ThunderboltIpScript, FollowsAPeerThatSendsByAnotherHopId) {
  EXPECT_TRUE(expect<IpLogin>());
  receive(IpLoginResponse{});
  receive(IpLogin{.transmit_path = 9});
  EXPECT_EQ(end_.path(), (IpPath{8, 9}));
  receive(IpLogin{.transmit_path = 10});
  EXPECT_EQ(end_.path(), (IpPath{8, 10}));
}

TEST_F(ThunderboltIpScript, HearsNobodyButItsPeerAndOnlyWhatItAskedFor) {
  receive(IpLogin{.transmit_path = 9}, 2, 0);
  receive(IpLogin{.transmit_path = 9}, 1, 2);
  EXPECT_EQ(end_.stats().foreign, 2u);
  receive(IpLoginResponse{});
  receive(IpStatus{});
  EXPECT_EQ(end_.stats().unasked, 2u);
  EXPECT_TRUE(expect<IpLogin>());
  EXPECT_TRUE(silent());
  receive(IpLogin{.version = 2, .transmit_path = 9});
  EXPECT_EQ(end_.stats().malformed, 1u);
  EXPECT_TRUE(silent());
  for (int i = 0; i < 100; ++i) receive(IpLogin{.transmit_path = 9});
  EXPECT_EQ(end_.stats().overflows, 92u);
}

TEST_F(ThunderboltIpScript, WhileClearingNothingIsBelieved) {
  end_.stop();
  end_.start(now_, uuid_of(1), true);
  receive(IpLogin{.transmit_path = 9});  // sent before our logout was heard
  EXPECT_TRUE(expect<IpLogout>());
  EXPECT_TRUE(silent());
  receive(IpStatus{});
  EXPECT_TRUE(silent());
  pass(kIpSettle);
  EXPECT_TRUE(expect<IpLogin>());
  receive(IpLoginResponse{});
  EXPECT_EQ(end_.path(), std::nullopt) << "its login counts for nothing";
  receive(IpLogin{.transmit_path = 12});
  EXPECT_TRUE(expect<IpLoginResponse>());
  EXPECT_EQ(end_.path(), (IpPath{8, 12}));
}

TEST_F(ThunderboltIpScript, AfterTheCableIsPulledNothingIsSaid) {
  EXPECT_TRUE(expect<IpLogin>());
  receive(IpLoginResponse{});
  receive(IpLogin{.transmit_path = 9});
  end_.stop();
  EXPECT_TRUE(silent());
  EXPECT_EQ(end_.path(), std::nullopt);
  EXPECT_TRUE(end_.poll_timeout().is_never());
}

}  // namespace
}  // namespace tbt::fabric
