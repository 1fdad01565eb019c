// What tbt nhi ring0 does, on the NHI model and its router.
#include "tbt/nhi_ring0.h"

#include <gtest/gtest.h>

#include "rail/renamed_device.h"
#include "rail/world.h"
#include "wire/tb/control_packet.h"

namespace tbt::tool {
namespace {

using namespace wire::tb;
using rail::test::RenamedDevice;
using rail::test::World;
using rail::test::WorldConfig;

constexpr uint32_t kBarlowRidge = 0x5781'8087;  // as the router model calls itself
constexpr Duration kShort = Duration::from_ms(20);

WorldConfig without_rails() {
  WorldConfig c;
  c.bring_up = false;
  c.fabric.fixed_paths = false;
  return c;
}

// A controller whose interrupts go astray.
class Silent : public RenamedDevice {
 public:
  explicit Silent(rail::nhi::PciDevice& device) : RenamedDevice(device, device.identity()) {}
  [[nodiscard]] int interrupt_fd(uint32_t) const noexcept override { return nobody_.get(); }

 private:
  sys::UniqueFd nobody_ = std::move(*sys::make_eventfd());
};

class RouterReaderTest : public ::testing::Test {
 protected:
  // The host at the other end of the cable says something.
  void peer_speaks() {
    if (!peer_.has_value()) {
      peer_.emplace(*world_.memories[1], *world_.devices[1]);
      ASSERT_TRUE(peer_->start());
      WriteRequest unlock;
      unlock.address = {.offset = 4, .length = 1, .adapter = 1, .space = ConfigSpace::kAdapter};
      unlock.data.push(0);
      send(unlock);
    }
    XDomainPacket message;
    message.route = route_append({}, 1);
    message.body.push(7);
    send(message);
  }
  void send(const ControlPacket& packet) {
    ControlFrame frame;
    encode_control_packet(packet, frame);
    ASSERT_TRUE(peer_->send(static_cast<uint8_t>(frame.pdf), frame.span()));
  }

  World world_{without_rails()};
  std::optional<rail::nhi::ControlRing> peer_;
};

TEST_F(RouterReaderTest, TheRouterAnswersEitherWay) {
  RouterReader reader(*world_.memories[0], *world_.devices[0]);
  ASSERT_TRUE(reader.start());
  for (int i = 0; i < 40; i++) {
    for (const Wait wait : {Wait::kByPolling, Wait::kForInterrupt}) {
      const auto answer = reader.read_ids(wait);
      ASSERT_TRUE(answer) << answer.error().text();
      EXPECT_EQ(answer->ids, kBarlowRidge);
      EXPECT_FALSE(answer->without_interrupt);
    }
  }
}

TEST_F(RouterReaderTest, AnInterruptThatDoesNotComeIsSaid) {
  Silent device(*world_.devices[0]);
  RouterReader reader(*world_.memories[0], device, kShort);
  ASSERT_TRUE(reader.start());
  EXPECT_FALSE(reader.read_ids(Wait::kByPolling)->without_interrupt);
  const auto answer = reader.read_ids(Wait::kForInterrupt);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->ids, kBarlowRidge);
  EXPECT_TRUE(answer->without_interrupt);
}

TEST_F(RouterReaderTest, WhatAPeerSaysIsNoAnswer) {
  RouterReader reader(*world_.memories[0], *world_.devices[0]);
  ASSERT_TRUE(reader.start());
  for (int i = 0; i < 20; i++) {
    peer_speaks();
    const auto answer = reader.read_ids(i % 2 == 0 ? Wait::kForInterrupt : Wait::kByPolling);
    ASSERT_TRUE(answer) << answer.error().text();
    EXPECT_EQ(answer->ids, kBarlowRidge);
  }
}

TEST_F(RouterReaderTest, AControllerThatIsGoneOrMuteIsSaid) {
  RouterReader reader(*world_.memories[0], *world_.devices[0], kShort);
  ASSERT_TRUE(reader.start());
  world_.devices[0]->write32(rail::nhi::tx_options_register(0), 0);  // it was reset under us
  EXPECT_EQ(reader.read_ids(Wait::kByPolling).error().code(), ETIMEDOUT);
  EXPECT_EQ(reader.read_ids(Wait::kForInterrupt).error().code(), ETIMEDOUT);
  world_.fabric->remove_device(0, true);
  EXPECT_EQ(reader.read_ids(Wait::kByPolling).error().code(), ENODEV);
}

}  // namespace
}  // namespace tbt::tool
