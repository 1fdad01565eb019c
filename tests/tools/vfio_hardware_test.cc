// What the daemon takes back of a dead process: the memory that it had mapped for the controller,
// once the rings have passed what was in them, and not before.
//
// Host 0 is behind VFIO: the scripted kernel has the IOMMU, and the NHI model the registers. Host 1
// takes nothing until it is told to, so frames of host 0 stand in their ring.
#include "tbtd/vfio_hardware.h"

#include <unistd.h>

#include "fabric/open_host.h"
#include "rail/nhi/vfio_window.h"
#include "sys/event_fd.h"
#include "vfio_world.h"
#include "world.h"

namespace tbt::daemon {
namespace {

using namespace rail::test;
using namespace rail::nhi;

constexpr rail::SlotId kDead = 5, kAlive = 6;
constexpr uint64_t kPage = 4096;

WorldConfig down() {
  WorldConfig c;
  c.bring_up = false;
  return c;
}

class VfioHardwareTest : public VfioTest {
 protected:
  void SetUp() override {
    kernel_->model = world_.devices[0].get();
    kernel_->model_memory = world_.memories[0]->base();
    options_.take_over = false;
    options_.memory = {world_.memories[0]->base(), world_.memories[0]->bytes()};
    keeper_ = opened();
    ASSERT_TRUE(keeper_);
    world_.bring_up(1);
    peer_ = world_.open(1, 1);
  }
  void TearDown() override {
    processes_.clear();
    for (const rail::SlotId slot : {kDead, kAlive}) {
      EXPECT_TRUE(keeper_->take_back(keeper_->process_range(slot)));
    }
    hardware_.reset();
    keeper_.reset();
  }

  void start(bool direct = true) {
    const VfioHandles copies = kernel_->copies(keeper_->handles());
    std::vector<sys::UniqueFd> fds;
    fds.emplace_back(::dup(world_.memories[0]->fd()));
    fds.push_back(std::move(*sys::make_eventfd()));
    for (const int fd : {copies.container, copies.group, copies.device}) fds.emplace_back(fd);
    auto made = VfioHardware::open({.address = kAddress, .direct = direct, .root = root_.string()},
                                   std::move(fds), *kernel_);
    ASSERT_TRUE(made) << made.error().text();
    hardware_ = std::move(*made);
    kernel_->model_memory = memory().base();
    ASSERT_TRUE(rail::bring_up_nhi_rail(memory(), 0, *hardware_->host().device));
    ASSERT_TRUE(fabric::open_rails(hardware_->host()));
  }
  // A process attaches and maps a page.
  void attach(rail::SlotId slot) {
    const DmaRange part = keeper_->process_range(slot);
    auto window =
        VfioWindow::open(sys::UniqueFd(kernel_->grant()), keeper_->identity(),
                         OwnMemory{sys::UniqueFd(kernel_->grant_container()), part}, *kernel_);
    ASSERT_TRUE(window);
    const auto* const page = reinterpret_cast<const std::byte*>(0x7f0000000000);
    ASSERT_TRUE((*window)->map_own({page, kPage}));
    processes_.push_back(std::move(*window));
  }
  [[nodiscard]] uint64_t mapped(rail::SlotId slot) const {
    const DmaRange part = keeper_->process_range(slot);
    uint64_t bytes = 0;
    for (const auto& m : kernel_->mappings) {
      if (m.iova >= part.first && m.iova < part.first + part.bytes) bytes += m.bytes;
    }
    return bytes;
  }
  rail::HostMemory& memory() { return *hardware_->host().memory; }
  rail::Rail& rail() { return *hardware_->host().rails[0]; }
  void fill_ring() {
    for (uint32_t n = 0; send(rail(), 1, n);) ++n;
    ASSERT_FALSE(rail().tx_read(rail().tx_posted()));
  }
  void drain_ring() {
    while (!rail().tx_read(rail().tx_posted())) receive(*peer_);
  }

  World world_{down()};
  std::unique_ptr<VfioDevice> keeper_;
  std::unique_ptr<rail::Rail> peer_;
  std::unique_ptr<Hardware> hardware_;
  std::vector<std::unique_ptr<VfioWindow>> processes_;
};

TEST_F(VfioHardwareTest, WhatADeadProcessHadMappedIsTakenBackAtOnce) {
  start();
  attach(kDead);
  attach(kAlive);
  EXPECT_TRUE(hardware_->reclaim(kDead));
  EXPECT_EQ(mapped(kDead), 0u);
  EXPECT_EQ(mapped(kAlive), kPage);
}

TEST_F(VfioHardwareTest, WhileARingStandsStillItStaysMapped) {
  start();
  attach(kDead);
  fill_ring();
  EXPECT_FALSE(hardware_->reclaim(kDead)) << "one of the frames may be the dead process's";
  EXPECT_FALSE(hardware_->reclaim(kDead));
  EXPECT_EQ(mapped(kDead), kPage);
  drain_ring();
  EXPECT_TRUE(hardware_->reclaim(kDead));
  EXPECT_EQ(mapped(kDead), 0u);
}

// What others send after its death is not its own; otherwise a busy host would never come to it.
TEST_F(VfioHardwareTest, LaterFramesOfOthersDoNotMatter) {
  start();
  attach(kDead);
  fill_ring();
  EXPECT_FALSE(hardware_->reclaim(kDead));
  drain_ring();
  fill_ring();
  EXPECT_TRUE(hardware_->reclaim(kDead));
  EXPECT_EQ(mapped(kDead), 0u);
}

// The slot's next process is another one: how far the rings had come for the first is forgotten.
TEST_F(VfioHardwareTest, TheNextProcessOfTheSlotIsWaitedForAnew) {
  start();
  attach(kDead);
  EXPECT_TRUE(hardware_->reclaim(kDead));
  attach(kDead);
  fill_ring();
  EXPECT_FALSE(hardware_->reclaim(kDead));
  EXPECT_EQ(mapped(kDead), kPage);
  drain_ring();
  EXPECT_TRUE(hardware_->reclaim(kDead));
}

TEST_F(VfioHardwareTest, WhereProcessesMapNothingThereIsNothingToWaitFor) {
  start(/*direct=*/false);
  fill_ring();
  EXPECT_TRUE(hardware_->reclaim(kDead));
  EXPECT_EQ(hardware_->grant(kDead).fds.size(), 3u) << "no container for them";
}

TEST_F(VfioHardwareTest, TheDaemonsOwnSlotIsNotWaitedFor) {
  start();
  fill_ring();
  EXPECT_TRUE(hardware_->reclaim(rail::kDaemonSlot)) << "the daemon maps no memory of its own";
}

}  // namespace
}  // namespace tbt::daemon
