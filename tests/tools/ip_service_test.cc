// The daemon's end of thunderbolt-net over the NHI model: host 0 has the service, host 1 is a peer
// that sends frames as Linux does. The paths are written by the test.
#include "tbtd/ip_service.h"

#include "ip/packet_layout.h"
#include "packets.h"
#include "path_entries.h"
#include "rail/nhi/ip_ring.h"
#include "world.h"

namespace tbt::daemon {
namespace {

using namespace rail::test;
using namespace rail::nhi;
using ip::test::Packet;
using ip::test::put;
using ip::test::put16;

constexpr uint16_t kHopId = 9;

WorldConfig config_of(uint32_t hop_count) {
  WorldConfig c;
  c.fabric.fixed_paths = false;
  c.fabric.hop_count = hop_count;
  return c;
}

class IpServiceTest : public ::testing::Test {
 protected:
  IpServiceTest() {
    for (uint32_t h = 0; h < 2; ++h) {
      control_[h] = std::make_unique<ControlRing>(*world_.memories[h], *world_.devices[h]);
      EXPECT_TRUE(control_[h]->start());
      for (const uint32_t way : {0u, 1u}) {
        way == 0 ? write_entry(*control_[h], kLaneAdapter, kHopId, to_nhi(2))
                 : write_entry(*control_[h], kNhiAdapter, 2, to_lane(kHopId));
      }
    }
    service_ = make();
    peer_ = std::make_unique<OwnedRing>(*world_.memories[1], *world_.devices[1],
                                        ip_ring_shape(*world_.memories[1], 2, 0));
    EXPECT_TRUE(peer_->start());
  }
  std::unique_ptr<IpService> make() {
    return std::make_unique<IpService>(*world_.memories[0], *world_.devices[0], 6);
  }
  void begin() {
    ASSERT_TRUE(service_->start(0, router_));
    service_->up(0);
  }

  Packet echo(size_t data) {
    const ip::Identity& me = service_->identity(0);
    Packet p = ip::test::ethernet(me.mac, 0x0800);
    put(p, {0x45, 0});
    put16(p, 28 + data);
    put(p, {0, 1, 0, 0, 64, 1, 0, 0});
    put(p, ip::test::peer_identity().ipv4);
    put(p, me.ipv4);
    ip::test::set16(p, 24, 0xffff - ip::test::sum_of(p, 14, 34));
    put(p, {8, 0, 0, 0, 0, 1, 0, 1});
    for (size_t i = 0; i < data; ++i) put(p, {static_cast<unsigned>(i & 0xff)});
    ip::test::set16(p, 36, 0xffff - ip::test::sum_of(p, 34, p.size()));
    return p;
  }
  void send(const Packet& packet) {
    ip::PacketFrames frames(packet, id_++);
    for (auto frame = frames.next(); !frame.empty(); frame = frames.next()) {
      ASSERT_TRUE(peer_->send(kIpFrameSof, kIpFrameEof, frame));
    }
  }
  // Bytes of the next packet at the peer; 0: none.
  size_t answer() {
    OwnedFrame frame;
    while (peer_->peek(frame)) {
      const bool whole = assembly_.add(frame.bytes);
      peer_->consume();
      if (whole) return assembly_.packet().size();
    }
    return 0;
  }

  World world_{config_of(12)};
  std::unique_ptr<ControlRing> control_[2];
  std::unique_ptr<IpService> service_;
  std::unique_ptr<OwnedRing> peer_;
  ip::PacketAssembly assembly_;
  wire::tb::Uuid router_ = wire::tb::uuid("00112233-4455-6677-8899-aabbccddeeff");
  uint16_t id_ = 1;
  Instant now_{1'000'000};
};

TEST_F(IpServiceTest, AnswersPacketsOfEverySize) {
  begin();
  EXPECT_EQ(ip::ipv4_text(service_->identity(0).ipv4), "169.254.84.7");
  for (const size_t data : {size_t{56}, size_t{1400}, size_t{20000}, size_t{65000}}) {
    for (int i = 0; i < 20; ++i) {  // the rings go round
      send(echo(data));
      while (service_->turn(now_)) {
      }
      ASSERT_EQ(answer(), 42 + data);
      ASSERT_EQ(answer(), 0u);
    }
  }
  for (uint32_t h = 0; h < 2; ++h) EXPECT_EQ(world_.fabric->counters(h).misuse, 0u);
}

TEST_F(IpServiceTest, AnswersWhileItIsUpOnly) {
  ASSERT_TRUE(service_->start(0, router_));
  send(echo(56));
  EXPECT_TRUE(service_->turn(now_)) << "it is taken off the ring";
  EXPECT_EQ(answer(), 0u);
  service_->up(0);
  send(echo(56));
  service_->turn(now_);
  EXPECT_GT(answer(), 0u);
  service_->down(0);
  send(echo(56));
  service_->turn(now_);
  EXPECT_EQ(answer(), 0u);
}

// A packet whose end never came does not spoil the first one of the next connection.
TEST_F(IpServiceTest, BeginsAnewWithEachConnection) {
  begin();
  const Packet packet = echo(20000);
  ip::PacketFrames frames(packet, 1);
  ASSERT_TRUE(peer_->send(kIpFrameSof, kIpFrameEof, frames.next()));
  service_->turn(now_);
  service_->down(0);
  service_->up(0);
  for (auto frame = frames.next(); !frame.empty(); frame = frames.next()) {
    ASSERT_TRUE(peer_->send(kIpFrameSof, kIpFrameEof, frame));
  }
  service_->turn(now_);
  EXPECT_EQ(answer(), 0u);
}

TEST_F(IpServiceTest, LooksNowAndThenWithoutAnInterrupt) {
  ASSERT_TRUE(service_->start(0, router_));
  service_->turn(now_);
  EXPECT_TRUE(service_->poll_timeout().is_never());
  service_->up(0);
  service_->turn(now_);
  EXPECT_EQ(service_->poll_timeout(), now_ + Duration::from_ms(250));
}

TEST_F(IpServiceTest, AnArmedServiceWakesTheDaemon) {
  begin();
  ASSERT_TRUE(service_->arm());
  sys::drain_eventfd(world_.interrupts[0].get());
  send(echo(56));
  EXPECT_GT(sys::drain_eventfd(world_.interrupts[0].get()), 0u);
  EXPECT_FALSE(service_->arm());
  service_->turn(now_);
  EXPECT_TRUE(service_->arm());
}

// A killed daemon runs no destructors; what it has left is taken over, and stopped in the end.
TEST_F(IpServiceTest, GoesOnForAKilledDaemon) {
  begin();
  IpService* const dead = service_.release();
  service_ = make();
  service_->adopt();
  begin();
  send(echo(56));
  service_->turn(now_);
  EXPECT_GT(answer(), 0u);
  service_->stop();
  auto next = make();
  EXPECT_TRUE(next->start(0, router_)) << "the ring is free";
  delete dead;
}

TEST(IpService, OffersAsManyRingsAsThereAre) {
  World few(config_of(3));
  const IpService service(*few.memories[0], *few.devices[0], 0);
  EXPECT_EQ(service.first_ring(), 2u);
  EXPECT_EQ(service.rings(), 1u);
  WorldConfig two = config_of(3);
  two.host.cables = 2;
  two.bring_up = false;
  World none(two);
  IpService nothing(*none.memories[0], *none.devices[0], 0);
  EXPECT_EQ(nothing.rings(), 0u);
  EXPECT_EQ(nothing.start(0, {}).code(), ENODEV);
}

}  // namespace
}  // namespace tbt::daemon
