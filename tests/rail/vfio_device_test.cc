// The VFIO backend against a scripted kernel: what it does once it is open.
#include "rail/nhi/vfio_device.h"

#include <poll.h>

#include "rail/nhi/vfio_window.h"
#include "sys/event_fd.h"
#include "vfio_world.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

using VfioDeviceTest = VfioTest;
using VfioRail = VfioTest;
using Log = std::vector<std::string>;

TEST_F(VfioDeviceTest, TakesOverAndLetsGoInOrder) {
  {
    auto device = opened();
    ASSERT_TRUE(device);
    EXPECT_EQ(device->identity(), (PciIdentity{0x8086, 0x5781}));
    EXPECT_EQ(device->read32(kRegCapabilities), 12u | 0x40u << 16);
    EXPECT_TRUE(kernel_->is_master());
    EXPECT_TRUE(device->dma_map(0, 8192));
    EXPECT_EQ(kernel_->log, (Log{"vectors on", "request on", "reset v2", "master on"}));
    kernel_->log.clear();
  }
  EXPECT_EQ(kernel_->log, (Log{"master off", "vectors off", "request off", "unmap", "close device",
                               "close container"}));
}

TEST_F(VfioDeviceTest, OnlyLooksWhenToldSo) {
  options_.take_over = false;
  make_integrated();
  {
    auto device = opened();
    ASSERT_TRUE(device);
    EXPECT_EQ(device->read32(kRegCapabilities) & 0x3ff, 12u);
    EXPECT_EQ(device->vectors(), 0u);
    EXPECT_EQ(device->interrupt_fd(0), -1);
    EXPECT_FALSE(kernel_->is_master());
  }
  EXPECT_EQ(kernel_->log,
            (Log{"force power", "no force power", "close device", "close container"}));
}

TEST_F(VfioDeviceTest, RegistersAreReadAndWritten) {
  auto device = opened();
  ASSERT_TRUE(device);
  kernel_->elsewhere = 0;
  device->write32(tx_ring_register(3, kRingIndex), 0x50000);
  EXPECT_EQ(kernel_->bar[tx_ring_register(3, kRingIndex) / 4], 0x50000u);
  kernel_->bar[kRegNotify / 4] = 0x1234;
  EXPECT_EQ(device->read32(kRegNotify), 0x1234u);
  EXPECT_EQ(kernel_->elsewhere, 0) << "by loads and stores";
  // What the kernel leaves out of the mapping is reached all the same.
  device->write32(rx_options_register(2), 77);
  EXPECT_EQ(kernel_->bar[rx_options_register(2) / 4], 77u);
  EXPECT_EQ(device->read32(rx_options_register(2)), 77u);
  EXPECT_EQ(kernel_->elsewhere, 2);
}

TEST_F(VfioDeviceTest, ThePagesOfTheMsixTableAreNeverMapped) {
  using Chain = ScriptedKernel::Chain;
  for (const Chain chain : {Chain::kNone, Chain::kSparse, Chain::kMsixMappable, Chain::kLoop}) {
    kernel_->chain = chain;
    auto device = opened();
    ASSERT_TRUE(device);
    uint64_t sum = 0;
    for (const auto& [offset, bytes] : kernel_->mapped) {
      EXPECT_LE(offset + bytes, kMsixTable);
      sum += bytes;
    }
    EXPECT_EQ(device->bar().mapped_bytes(), sum);
    EXPECT_EQ(sum, chain == Chain::kSparse ? kMsixTable - 0x10000 : kMsixTable);
  }
  kernel_->put32(kMsixAt + 4, 0x10000);  // the table in the middle of the registers
  auto device = opened();
  ASSERT_TRUE(device);
  for (const auto& [offset, bytes] : kernel_->mapped) {
    EXPECT_TRUE(offset + bytes <= 0x10000 || offset >= 0x11000) << offset << " " << bytes;
  }
  EXPECT_EQ(device->bar().mapped_bytes(), kBarBytes - 2 * 4096u);
}

TEST_F(VfioDeviceTest, ARegionThatMayNotBeMappedWorksBySystemCalls) {
  kernel_->mappable = false;
  auto device = opened();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->bar().mapped_bytes(), 0u);
  device->write32(kRegThrottling, 9);
  EXPECT_EQ(device->read32(kRegThrottling), 9u);
}

TEST_F(VfioDeviceTest, VectorsBecomeReadable) {
  auto device = opened();
  ASSERT_TRUE(device);
  ASSERT_EQ(device->vectors(), 16u);
  EXPECT_EQ(device->interrupt_fd(16), -1);
  sys::signal_eventfd(kernel_->event_fds[5]);
  for (uint32_t v = 0; v < 16; ++v) {
    pollfd wait{device->interrupt_fd(v), POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 0), v == 5 ? 1 : 0) << v;
  }
  sys::signal_eventfd(kernel_->request_fd);
  pollfd wait{device->give_back_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 0), 1);
}

TEST_F(VfioDeviceTest, TakesAsManyVectorsAsThereAre) {
  for (const auto& [there, used] : {std::pair{1u, 1u}, {6u, 6u}, {64u, 16u}}) {
    kernel_->msix_vectors = there;
    auto device = opened();
    ASSERT_TRUE(device);
    EXPECT_EQ(device->vectors(), used);
  }
  kernel_->request_vectors = 0;
  EXPECT_EQ(opened()->give_back_fd(), -1);
}

TEST_F(VfioDeviceTest, MapsWholePagesOfTheMemoryAtConstantAddresses) {
  auto device = opened();
  ASSERT_TRUE(device);
  for (const auto& [offset, bytes] : {std::pair<uint64_t, uint64_t>{0, 0},
                                      {0, 100},
                                      {100, 4096},
                                      {kMemoryBytes, 4096},
                                      {0, kMemoryBytes + 4096},
                                      {~uint64_t{4095}, 8192}}) {
    EXPECT_EQ(device->dma_map(offset, bytes).error().code(), EINVAL) << offset << " " << bytes;
  }
  auto iova = device->dma_map(0x3000, 0x5000);
  ASSERT_TRUE(iova);
  EXPECT_EQ(*iova, kDmaBase + 0x3000);
  EXPECT_EQ(kDmaBase % (2 << 20), 0u);
  ASSERT_EQ(kernel_->mappings.size(), 1u);
  EXPECT_EQ(kernel_->mappings[0].vaddr, reinterpret_cast<uintptr_t>(memory_.data()) + 0x3000);
  EXPECT_EQ(device->locked_bytes(), 0x5000u);
  EXPECT_EQ(device->dma_map(0x4000, 4096).error().code(), EEXIST);
  EXPECT_EQ(device->dma_unmap(*iova, 4096).code(), EINVAL);
}

TEST_F(VfioDeviceTest, UnmapsWhatWasMappedAndNoMore) {
  options_.take_over = false;  // mappings may go while there is no bus master only: see map_dma
  auto device = opened();
  ASSERT_TRUE(device);
  auto iova = device->dma_map(0, 8192);
  ASSERT_TRUE(iova);
  EXPECT_TRUE(device->dma_unmap(*iova, 8192));
  EXPECT_EQ(device->dma_unmap(*iova, 8192).code(), EINVAL);
  EXPECT_EQ(device->locked_bytes(), 0u);
  ASSERT_TRUE(device->dma_map(0, 8192));
  kernel_->mappings.clear();  // the kernel had it no more: noticed
  EXPECT_EQ(device->dma_unmap(*iova, 8192).code(), EIO);
}

TEST_F(VfioDeviceTest, TheLimitOfLockedMemoryIsNamed) {
  kernel_->memlock = 16384;
  auto device = opened();
  ASSERT_TRUE(device);
  EXPECT_TRUE(device->dma_map(0, 12288));
  const Status status = device->dma_map(0x10000, 8192).error();
  EXPECT_EQ(status.code(), ENOMEM);
  EXPECT_NE(status.text().find("ulimit -l"), std::string_view::npos);
  EXPECT_EQ(device->locked_bytes(), 12288u);
  kernel_->fail[VFIO_IOMMU_MAP_DMA] = ENOSPC;
  EXPECT_NE(device->dma_map(0x10000, 4096).error().text().find("dma_entry_limit"),
            std::string_view::npos);
}

TEST_F(VfioDeviceTest, AllOnesEverywhereIsARemovedController) {
  auto device = opened();
  ASSERT_TRUE(device);
  kernel_->bar[kRegThrottling / 4] = kDeviceGone;  // one register that happens to be so
  EXPECT_EQ(device->read32(kRegThrottling), kDeviceGone);
  EXPECT_FALSE(device->is_gone());
  const auto before = kernel_->bar;
  std::fill(kernel_->bar.begin(), kernel_->bar.end(), kDeviceGone);
  EXPECT_EQ(device->read32(kRegNotify), kDeviceGone);
  EXPECT_TRUE(device->is_gone());
  // Whatever answers at that address later is another device.
  kernel_->bar = before;
  EXPECT_EQ(device->read32(kRegCapabilities), kDeviceGone);
  device->write32(kRegThrottling, 3);
  EXPECT_EQ(kernel_->bar[kRegThrottling / 4], kDeviceGone);
  EXPECT_EQ(device->dma_map(0, 4096).error().code(), ENODEV);
}

// As a daemon's keeper and its daemons do it: one opens the controller and holds it, another drives
// it, and a third follows when that one is killed.
TEST_F(VfioDeviceTest, WhoInheritsTheHandlesDrivesOn) {
  make_integrated();
  VfioOptions holder_options = options_;
  holder_options.take_over = false;
  auto holder = VfioDevice::open(holder_options, *kernel_);
  ASSERT_TRUE(holder) << holder.error().text();
  kernel_->log.clear();

  options_.inherited = kernel_->copies((*holder)->handles());
  auto driver = opened();
  ASSERT_TRUE(driver);
  EXPECT_EQ(kernel_->log, (Log{"vectors on", "request on", "reset v2", "master on"}));
  ASSERT_TRUE(driver->dma_map(0, 8192));
  kernel_->kill(std::move(driver));
  kernel_->log.clear();

  options_.inherited = kernel_->copies((*holder)->handles());
  options_.goes_on = true;
  {
    auto follower = opened();
    ASSERT_TRUE(follower);
    EXPECT_EQ(kernel_->log, (Log{"vectors on", "request on"})) << "no reset";
    EXPECT_EQ(kernel_->event_fds[0], follower->interrupt_fd(0));
    auto again = follower->dma_map(0, 8192);
    ASSERT_TRUE(again) << "what is mapped stays mapped";
    EXPECT_EQ(*again, kDmaBase);
    EXPECT_EQ(kernel_->mappings.size(), 1u);
    kernel_->log.clear();
  }
  EXPECT_EQ(kernel_->log, (Log{"master off", "vectors off", "request off", "unmap"}))
      << "the power is the holder's";
  kernel_->log.clear();
  holder->reset();
  EXPECT_EQ(kernel_->log, (Log{"no force power", "close device", "close container"}));
}

TEST_F(VfioDeviceTest, WhoInheritsNothingSoundSaysSo) {
  auto holder = opened();
  ASSERT_TRUE(holder);
  options_.inherited = kernel_->copies(holder->handles());
  kernel_->fail[VFIO_DEVICE_GET_REGION_INFO] = ENOTTY;
  EXPECT_FALSE(open()) << "and its descriptors are closed, which the fixture checks";
  kernel_->fail.clear();
}

TEST_F(VfioDeviceTest, AWindowHasRegistersAndNothingElse) {
  auto device = opened();
  ASSERT_TRUE(device);
  auto window = VfioWindow::open(sys::UniqueFd(kernel_->grant()), device->identity(), {}, *kernel_);
  ASSERT_TRUE(window) << window.error().text();
  EXPECT_EQ((*window)->identity(), device->identity());
  (*window)->write32(kRegThrottling, 11);
  EXPECT_EQ(device->read32(kRegThrottling), 11u);
  EXPECT_EQ((*window)->dma_map(0, 4096).error().code(), EPERM);
  EXPECT_EQ((*window)->dma_unmap(kDmaBase, 4096).code(), EPERM);
  EXPECT_EQ((*window)->interrupt_fd(0), -1);
  for (const auto& [offset, bytes] : kernel_->mapped) EXPECT_LE(offset + bytes, kMsixTable);
  std::fill(kernel_->bar.begin(), kernel_->bar.end(), kDeviceGone);
  EXPECT_EQ((*window)->read32(kRegNotify), kDeviceGone);
  (*window)->write32(kRegThrottling, 12);
  EXPECT_EQ(kernel_->bar[kRegThrottling / 4], kDeviceGone);
  window->reset();
  EXPECT_EQ(VfioWindow::open(sys::UniqueFd(kernel_->grant()), {}, {}, *kernel_).error().code(),
            ENODEV);
}

TEST_F(VfioDeviceTest, AWindowOnSomethingElseIsRefused) {
  kernel_->fail[VFIO_DEVICE_GET_REGION_INFO] = ENOTTY;  // of a descriptor that is no VFIO device
  EXPECT_EQ(VfioWindow::open(sys::UniqueFd(kernel_->grant()), {}, {}, *kernel_).error().code(),
            EPROTO);
}

// Everything above the seam, over VFIO at one end of a cable: registers by system calls that end in
// the NHI model, DMA mappings by the scripted IOMMU.
TEST_F(VfioRail, CarriesFramesBothWays) {
  WorldConfig config;
  config.bring_up = false;
  World world(config);
  HostMemory& memory = *world.memories[0];
  options_.memory = {memory.base(), memory.bytes()};
  kernel_->model = world.devices[0].get();
  kernel_->model_memory = memory.base();
  {
    auto device = opened();
    ASSERT_TRUE(device);
    ASSERT_TRUE(bring_up_nhi_rail(memory, 0, *device));
    EXPECT_EQ(device->locked_bytes(), RailMemory::dma_bytes(memory));
    world.bring_up(1);
    auto peer = world.open(1, 1);
    memory.slot(1).state.store(SlotState::kAttached);
    // As another process of the host does it: registers only.
    auto window =
        VfioWindow::open(sys::UniqueFd(kernel_->grant()), device->identity(), {}, *kernel_);
    ASSERT_TRUE(window);
    auto rail = open_nhi_rail(memory, 0, **window, 1, classify);
    for (uint32_t i = 0; i < 100; ++i) {
      ASSERT_TRUE(send(*rail, 1, i, 4096));
      EXPECT_EQ(receive(*peer), std::vector<uint32_t>{i});
      ASSERT_TRUE(send(*peer, 1, 1000 + i));
      EXPECT_EQ(receive(*rail), std::vector<uint32_t>{1000 + i});
    }
    const uint64_t interrupts = rail->stats().interrupts;
    ASSERT_TRUE(rail->arm());
    ASSERT_TRUE(send(*peer, 1, 5));
    EXPECT_EQ(receive(*rail), std::vector<uint32_t>{5});
    EXPECT_EQ(rail->stats().interrupts, interrupts + 1);
  }
  EXPECT_EQ(world.fabric->counters(0).misuse, 0u) << world.fabric->counters(0).last_misuse;
  EXPECT_EQ(world.fabric->counters(0).dma_faults, 0u);
  EXPECT_FALSE(world.devices[0]->dma_unmap(kDmaBase, 4096)) << "nothing is mapped any more";
}

}  // namespace
}  // namespace tbt::rail::test
