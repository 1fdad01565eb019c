// Deregistering memory that the controller reads by itself: at once where no frame is under way,
// late where the ring has to drain, and not at all where it stands still.
//
//   region -- mapped by --> SeesUs (registers of the NHI model)    ring of host 0 ==== host 1
#include "device/direct_regions.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "device/objects.h"
#include "renamed_device.h"
#include "world.h"

namespace tbt::device {
namespace {

using namespace rail::test;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr rail::SlotId kSlot = 1;

// A controller that is told of this process's memory, as one behind VFIO.
class SeesUs final : public RenamedDevice {
 public:
  explicit SeesUs(rail::nhi::PciDevice& model) : RenamedDevice(model, model.identity()) {}

  [[nodiscard]] bool reads_own_memory() const noexcept override { return true; }
  Result<uint64_t> map_own(std::span<const std::byte> pages) override {
    if (full) return Status(ENOMEM, "over the limit");
    next_ += uint64_t{1} << 32;
    mapped[next_] = pages;
    return next_;
  }
  Status unmap_own(uint64_t iova) override {
    EXPECT_EQ(mapped.erase(iova), 1u);
    return {};
  }

  std::map<uint64_t, std::span<const std::byte>> mapped;
  bool full = false;

 private:
  uint64_t next_ = 0;
};

class DirectRegionsTest : public ::testing::Test {
 protected:
  DirectRegionsTest() {
    world_.memories[0]->slot(kSlot).state.store(rail::SlotState::kAttached);
    auto host = std::make_unique<fabric::Attachment>();
    host->slot = kSlot;
    host->memory = world_.memories[0].get();
    host->device = std::make_unique<SeesUs>(*world_.devices[0]);
    device_ = static_cast<SeesUs*>(host->device.get());
    host->rails.push_back(
        rail::open_nhi_rail(*host->memory, 0, *host->device, kSlot, fabric::classify));
    rail_ = host->rails[0].get();
    process_ = std::make_unique<Process>(std::move(host), 0);
    context_ = std::make_unique<ContextImpl>(*process_, 0, nullptr);
    pd_ = *context_->create_pd();
  }

  Mr* region(size_t offset = 64, size_t length = 3 * 4096) {
    auto mr = pd_->reg_mr(memory_.data() + offset, length, 0, kAccessLocalWrite);
    EXPECT_TRUE(mr) << mr.error().text();
    return *mr;
  }
  // As if a message had been sent from the region: end-to-end flow control holds the last frames in
  // the ring, because the receiver takes nothing.
  void fill_ring() {
    for (uint32_t n = 0; send(*rail_, 2, n);) ++n;
    ASSERT_FALSE(rail_->tx_read(rail_->tx_posted()));
  }
  void send_from_regions() {
    fill_ring();
    const auto hold = process_->guard();
    process_->direct().committed(0, rail_->tx_posted());
  }
  void drain_ring() {
    while (!rail_->tx_read(rail_->tx_posted())) receive(*peer_);
  }
  // How long that took.
  milliseconds destroy(Mr* mr, int code) {
    const auto start = Clock::now();
    const Status s = mr->destroy();
    EXPECT_EQ(s.code(), code) << s.text();
    return std::chrono::duration_cast<milliseconds>(Clock::now() - start);
  }
  [[nodiscard]] uint64_t direct_bytes() const {
    return world_.memories[0]->slot(kSlot).direct_bytes.load();
  }
  // Where the engine believes that the controller finds the region.
  uint64_t dma_of(const Mr& mr) {
    const auto hold = process_->guard();
    return process_->endpoint().regions().find(mr.lkey())->dma;
  }

  World world_;
  std::unique_ptr<rail::Rail> peer_ = world_.open(1, 2);
  alignas(4096) std::array<std::byte, 8 * 4096> memory_{};
  SeesUs* device_ = nullptr;
  rail::Rail* rail_ = nullptr;
  std::unique_ptr<Process> process_;
  std::unique_ptr<ContextImpl> context_;
  Pd* pd_ = nullptr;
};

TEST_F(DirectRegionsTest, TheWholePagesOfARegionAreMappedWhileItIsRegistered) {
  Mr* const mr = region();
  ASSERT_EQ(device_->mapped.size(), 1u);
  const auto& [iova, pages] = *device_->mapped.begin();
  EXPECT_EQ(pages.data(), memory_.data());
  EXPECT_EQ(pages.size(), 4u * 4096) << "it begins and ends within a page";
  EXPECT_EQ(dma_of(*mr), iova + 64);
  EXPECT_EQ(direct_bytes(), 4u * 4096);
  EXPECT_LT(destroy(mr, 0), milliseconds(500));
  EXPECT_TRUE(device_->mapped.empty());
  EXPECT_EQ(direct_bytes(), 0u);
}

TEST_F(DirectRegionsTest, WhatCannotBeMappedIsCounted) {
  Mr* const small = region(0, 4095);
  EXPECT_EQ(world_.memories[0]->slot(kSlot).copied_regions.load(), 0u) << "fills no frame";
  device_->full = true;
  Mr* const mr = region();
  EXPECT_EQ(dma_of(*mr), 0u);
  EXPECT_EQ(world_.memories[0]->slot(kSlot).copied_regions.load(), 1u);
  EXPECT_TRUE(device_->mapped.empty());
  destroy(mr, 0);
  destroy(small, 0);
}

TEST_F(DirectRegionsTest, WhereTheRingStandsStillTheRegionStaysAfterASecond) {
  Mr* const mr = region();
  send_from_regions();
  const milliseconds took = destroy(mr, EBUSY);
  EXPECT_GE(took, milliseconds(1000));
  EXPECT_EQ(device_->mapped.size(), 1u) << "the controller may still read it";
  EXPECT_EQ(direct_bytes(), 4u * 4096);
  EXPECT_EQ(dma_of(*mr), 0u) << "from now on it is copied";
  drain_ring();
  EXPECT_LT(destroy(mr, 0), milliseconds(500)) << "it may be tried again";
  EXPECT_TRUE(device_->mapped.empty());
}

TEST_F(DirectRegionsTest, DeregisteringWaitsForTheRingToDrain) {
  Mr* const mr = region();
  send_from_regions();
  std::atomic<bool> drains{false}, done{false};
  std::thread receiver([&] {
    std::this_thread::sleep_for(milliseconds(200));
    drains = true;
    while (!done) receive(*peer_);
  });
  EXPECT_GE(destroy(mr, 0), milliseconds(150));
  EXPECT_TRUE(drains);
  EXPECT_TRUE(device_->mapped.empty());
  done = true;
  receiver.join();
}

TEST_F(DirectRegionsTest, AFullRingWithoutFramesOfRegionsIsNotWaitedFor) {
  Mr* const mr = region();
  fill_ring();
  EXPECT_LT(destroy(mr, 0), milliseconds(500));
  EXPECT_TRUE(device_->mapped.empty());
}

// What is sent after the region was taken off the rings cannot be of it.
TEST_F(DirectRegionsTest, LaterFramesAreNotWaitedFor) {
  send_from_regions();
  const DirectRegions::Marks marks = process_->direct().marks();
  EXPECT_FALSE(process_->direct().passed(marks));
  drain_ring();
  send_from_regions();
  EXPECT_TRUE(process_->direct().passed(marks));
  EXPECT_FALSE(process_->direct().passed(process_->direct().marks())) << "these are still there";
}

}  // namespace
}  // namespace tbt::device
