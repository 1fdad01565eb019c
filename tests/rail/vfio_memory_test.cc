// A process's own memory behind VFIO: where it is mapped, for what, and how it goes again.
#include "rail/nhi/vfio_memory.h"

#include "rail/nhi/vfio_window.h"
#include "vfio_world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kLarge = uint64_t{2} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

std::span<const std::byte> pages_at(uint64_t address, uint64_t bytes) {
  return {reinterpret_cast<const std::byte*>(address), static_cast<size_t>(bytes)};
}

class VfioMemoryTest : public VfioTest {
 protected:
  void SetUp() override {
    device_ = opened();
    ASSERT_TRUE(device_);
    window_ = window(5);
  }
  void TearDown() override {
    window_.reset();
    device_.reset();
  }

  std::unique_ptr<VfioWindow> window(SlotId slot) {
    range_ = device_->process_range(slot);
    auto made = VfioWindow::open(
        sys::UniqueFd(kernel_->grant()), device_->identity(),
        OwnMemory{sys::UniqueFd(kernel_->grant_container()), range_}, *kernel_);
    EXPECT_TRUE(made) << made.error().text();
    return made ? std::move(*made) : nullptr;
  }

  std::unique_ptr<VfioDevice> device_;
  std::unique_ptr<VfioWindow> window_;
  DmaRange range_;
};

// Nothing is there at these addresses: the scripted kernel does not look.
TEST_F(VfioMemoryTest, PagesAreMappedInTheProcessesOwnPartAndForReadingOnly) {
  EXPECT_TRUE(window_->reads_own_memory());
  auto one = window_->map_own(pages_at(0x7f0000000000, 3 * kPage));
  ASSERT_TRUE(one) << one.error().text();
  auto other = window_->map_own(pages_at(0x7f0000001000, 2 * kPage));
  ASSERT_TRUE(other) << "regions may overlap: each has addresses of its own";
  for (const auto& mapping : kernel_->mappings) {
    EXPECT_TRUE(mapping.read_only);
    EXPECT_GE(mapping.iova, range_.first);
    EXPECT_LE(mapping.iova + mapping.bytes, range_.first + range_.bytes);
  }
  EXPECT_EQ(kernel_->mappings[0].vaddr, 0x7f0000000000u);
  EXPECT_TRUE(window_->unmap_own(*one));
  ASSERT_EQ(kernel_->mappings.size(), 1u);
  EXPECT_EQ(kernel_->mappings[0].iova, *other);
  EXPECT_EQ(window_->unmap_own(*one).code(), EINVAL);
  auto again = window_->map_own(pages_at(0x7f0000009000, 3 * kPage));
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, *one) << "the gap is used again";
}

TEST_F(VfioMemoryTest, LargePagesLieInStepWithTheirAddresses) {
  ASSERT_TRUE(window_->map_own(pages_at(0x7f0000003000, kPage)));
  auto large = window_->map_own(pages_at(0x7f0000123000, 3 * kLarge));
  ASSERT_TRUE(large);
  EXPECT_EQ(*large % kLarge, 0x123000u);
}

TEST_F(VfioMemoryTest, WhatCannotBeMappedIsRefusedAndLeavesNothing) {
  EXPECT_EQ(window_->map_own(pages_at(0x1000, 100)).error().code(), EINVAL);
  EXPECT_EQ(window_->map_own(pages_at(0x1010, kPage)).error().code(), EINVAL);
  EXPECT_EQ(window_->map_own({}).error().code(), EINVAL);
  EXPECT_EQ(window_->map_own(pages_at(0x1000, range_.bytes + kPage)).error().code(), ENOSPC);
  kernel_->memlock = 8 * kPage;
  ASSERT_TRUE(window_->map_own(pages_at(0x1000, 8 * kPage)));
  EXPECT_EQ(window_->map_own(pages_at(0x100000, kPage)).error().code(), ENOMEM);
  kernel_->fail[VFIO_IOMMU_MAP_DMA] = EFAULT;
  EXPECT_EQ(window_->map_own(pages_at(0x100000, kPage)).error().code(), EFAULT);
  kernel_->fail.clear();
  EXPECT_EQ(kernel_->mappings.size(), 1u);
  kernel_->memlock = UINT64_MAX;
  EXPECT_TRUE(window_->map_own(pages_at(0x100000, kPage))) << "and its addresses are free";
}

TEST_F(VfioMemoryTest, ThePartHasAnEnd) {
  ASSERT_TRUE(window_->map_own(pages_at(0, range_.bytes - kLarge)));
  ASSERT_TRUE(window_->map_own(pages_at(0, kLarge)));
  EXPECT_EQ(window_->map_own(pages_at(0x1000, kPage)).error().code(), ENOSPC);
}

// The process is dead: its mappings stay until the owner of the controller takes them back.
TEST_F(VfioMemoryTest, TheOwnerTakesBackWhatADeadProcessHasLeft) {
  auto other = window(6);
  const DmaRange others = range_;
  ASSERT_TRUE(other->map_own(pages_at(0x2000, kPage)));
  for (uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(window_->map_own(pages_at(0x10000 * i, 2 * kPage)));
  ASSERT_TRUE(device_->take_back(device_->process_range(5)));
  ASSERT_EQ(kernel_->mappings.size(), 1u);
  EXPECT_EQ(kernel_->mappings[0].iova, others.first);
  EXPECT_TRUE(device_->take_back(device_->process_range(5))) << "nothing is there any more";
  EXPECT_TRUE(window_->map_own(pages_at(0x1000, kPage)));
}

TEST_F(VfioMemoryTest, PartsLieApartWithinWhatTheIommuReaches) {
  const auto parts = [&] {
    std::vector<DmaRange> out;
    for (SlotId slot = 0; slot < kSlotsMax; ++slot) out.push_back(device_->process_range(slot));
    return out;
  };
  const auto narrow = parts();  // 39 bits
  EXPECT_EQ(narrow[0], (DmaRange{kProcessBase, 4 * kGiB}));
  for (SlotId slot = 1; slot < kSlotsMax; ++slot) {
    EXPECT_EQ(narrow[slot].first, narrow[slot - 1].first + narrow[slot - 1].bytes);
  }
  EXPECT_LE(narrow.back().first + narrow.back().bytes - 1, uint64_t{0x7fffffffff});
  kernel_->iova_ranges = {{0, 0xfedfffff}, {0xfef00000, 0xffffffffffff}};  // 48 bits
  EXPECT_EQ(parts()[1], (DmaRange{kProcessBase + kProcessBytesMost, kProcessBytesMost}));
  for (const uint64_t last : {uint64_t{0xfffffffff}, kProcessBase + kGiB, kProcessBase}) {
    kernel_->iova_ranges = {{0, last}};
    EXPECT_EQ(parts()[1], DmaRange{}) << std::hex << last;
  }
  kernel_->iova_ranges.clear();
  EXPECT_EQ(parts()[1], DmaRange{}) << "a kernel that does not say";
}

TEST_F(VfioMemoryTest, WithoutTheContainerNothingIsMapped) {
  auto plain =
      VfioWindow::open(sys::UniqueFd(kernel_->grant()), device_->identity(), {}, *kernel_);
  ASSERT_TRUE(plain);
  EXPECT_FALSE((*plain)->reads_own_memory());
  EXPECT_EQ((*plain)->map_own(pages_at(0x1000, kPage)).error().code(), ENOTSUP);
  EXPECT_EQ(device_->map_own(pages_at(0x1000, kPage)).error().code(), ENOTSUP);
}

}  // namespace
}  // namespace tbt::rail::test
