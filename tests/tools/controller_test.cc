// The daemon's side of two controllers over the NHI model: they find each other, and frames pass
// between the rails, whichever rings those have.
#include "tbtd/controller.h"

#include <poll.h>

#include "rail/nhi/quirks.h"
#include "renamed_device.h"
#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::daemon {
namespace {

using namespace rail::test;
using rail::nhi::kVendorIntel;

constexpr rail::nhi::PciIdentity kFalconRidge{kVendorIntel, 0x156c};
constexpr rail::nhi::PciIdentity kBarlowRidge{kVendorIntel, 0x5781};
constexpr Duration kLimit = Duration::from_s(10);

WorldConfig config_of(uint32_t hop_count) {
  WorldConfig c;
  c.host = {.cables = 1, .ring_entries = 64, .rx_buffers = 192};
  c.fabric.fixed_paths = false;
  c.fabric.hop_count = hop_count;
  c.bring_up = false;
  return c;
}

// Two hosts with a daemon's controller each, whose identities the test chooses.
class ControllerTest : public ::testing::Test {
 protected:
  void start(rail::nhi::PciIdentity first, rail::nhi::PciIdentity second, uint32_t hop_count = 12) {
    world_ = std::make_unique<World>(config_of(hop_count));
    const rail::nhi::PciIdentity identities[2] = {first, second};
    for (uint32_t h = 0; h < 2; ++h) {
      rail::HostMemory& memory = *world_->memories[h];
      devices_[h] = std::make_unique<RenamedDevice>(*world_->devices[h], identities[h]);
      ASSERT_TRUE(rail::bring_up_nhi_rail(memory, 0, *devices_[h]));
      fabric::ManagerConfig config;
      config.host_name = "host" + std::to_string(h);
      config.incarnation = 100 + h;
      config.ring_entries = 64;
      Controller::Hooks hooks;
      hooks.link = [this, h](uint32_t, bool open, uint32_t) { open_[h] = open; };
      hooks.log = [](bool, const std::string&) {};
      controllers_[h] = std::make_unique<Controller>(memory, *devices_[h], config, hooks, h);
    }
    for (auto& controller : controllers_) {
      ASSERT_TRUE(controller->start(sys::monotonic_now(), false));
    }
  }
  bool run_until_open() {
    const Instant end = sys::monotonic_now() + kLimit;
    while (!(open_[0] && open_[1]) && sys::monotonic_now() < end) {
      bool any = false;
      for (auto& controller : controllers_) any |= controller->turn(sys::monotonic_now());
      if (!any) ::poll(nullptr, 0, 1);
    }
    return open_[0] && open_[1];
  }
  std::unique_ptr<rail::Rail> rail(uint32_t host) {
    world_->memories[host]->slot(1).state.store(rail::SlotState::kAttached);
    return rail::open_nhi_rail(*world_->memories[host], 0, *devices_[host], 1, classify);
  }
  void expect_frames() {
    const std::unique_ptr<rail::Rail> rails[2] = {rail(0), rail(1)};
    for (uint32_t to = 0; to < 2; ++to) {
      ASSERT_TRUE(send(*rails[1 - to], 1, 40 + to));
      EXPECT_EQ(receive(*rails[to]), std::vector<uint32_t>{40 + to}) << "to host " << to;
    }
  }
  [[nodiscard]] fabric::PortStatus port(uint32_t host) const {
    return controllers_[host]->status().ports.at(0);
  }

  std::unique_ptr<World> world_;
  std::unique_ptr<RenamedDevice> devices_[2];
  bool open_[2] = {};
  std::unique_ptr<Controller> controllers_[2];
};

TEST_F(ControllerTest, FramesPassBetweenTheFirstRings) {
  start(kBarlowRidge, kBarlowRidge);
  ASSERT_TRUE(run_until_open());
  EXPECT_EQ(port(0).path->rx_ring, 1u);
  EXPECT_EQ(port(0).path->flow_reason, fabric::FlowReason::kTested);
  expect_frames();
}

TEST_F(ControllerTest, OnFalconRidgeThePathLeadsToRing2) {
  start(kFalconRidge, kBarlowRidge);
  ASSERT_TRUE(run_until_open());
  EXPECT_EQ(port(0).path->tx_ring, 2u);
  EXPECT_EQ(port(0).path->rx_ring, 2u);
  EXPECT_EQ(port(1).path->rx_ring, 1u) << "which ring the peer has is its own affair";
  EXPECT_EQ(port(0).ip_ring, 3u) << "behind the rails'";
  expect_frames();
}

// Three rings: the control channel's, the one that is kept, and one for data.
TEST_F(ControllerTest, OnFalconRidgeTheLastRingIsStillUsed) {
  start(kFalconRidge, kFalconRidge, 3);
  ASSERT_TRUE(run_until_open());
  EXPECT_EQ(port(0).path->rx_ring, 2u);
  EXPECT_EQ(port(0).ip_ring, 0u) << "none is left";
  expect_frames();
}

}  // namespace
}  // namespace tbt::daemon
