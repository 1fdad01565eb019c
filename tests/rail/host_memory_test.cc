// The memory that the processes of a host share: making, mapping, refusing, sleeping and waking.
#include "rail/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <fstream>
#include <thread>

#include "rail/shared_state.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

std::unique_ptr<HostMemory> make(uint32_t cables = 1) {
  auto memory = HostMemory::create({.cables = cables, .ring_entries = 16, .rx_buffers = 48});
  EXPECT_TRUE(memory);
  return std::move(*memory);
}

TEST(HostMemory, TwoMappingsSeeOneMemory) {
  auto memory = make();
  auto again = HostMemory::map(sys::UniqueFd(dup(memory->fd())));
  ASSERT_TRUE(again);
  EXPECT_NE((*again)->base(), memory->base());
  EXPECT_EQ((*again)->cables(), 1u);
  EXPECT_EQ((*again)->bytes(), memory->bytes());
  memory->slot(5).qpn_next = 1234;
  EXPECT_EQ((*again)->slot(5).qpn_next, 1234u);
  memory->directory()[kDirectoryBytes - 1] = std::byte{9};
  EXPECT_EQ((*again)->directory()[kDirectoryBytes - 1], std::byte{9});
}

TEST(HostMemory, TheDirectoryIsPageAlignedAndZero) {
  auto memory = make(3);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->directory()) % 4096, 0u);
  for (size_t i = 0; i < kDirectoryBytes; ++i) ASSERT_EQ(memory->directory()[i], std::byte{0});
}

TEST(HostMemory, ImpossibleCountsAreRefused) {
  for (const HostConfig& config :
       {HostConfig{9, 16, 48}, HostConfig{1, 15, 48}, HostConfig{1, 2, 48}, HostConfig{1, 16, 16},
        HostConfig{1, 8192, 9000}, HostConfig{1, 16, 40000}}) {
    auto memory = HostMemory::create(config);
    ASSERT_FALSE(memory);
    EXPECT_EQ(memory.error().code(), EINVAL);
  }
}

TEST(HostMemory, ThreeCablesStayBelow64MiB) {
  auto memory = HostMemory::create({.cables = 3});
  ASSERT_TRUE(memory);
  EXPECT_LT((*memory)->bytes(), size_t{64} << 20);
}

// Of this process, in shared memory.
long resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "RssShmem:") continue;
    long kib = 0;
    status >> kib;
    return kib;
  }
  return -1;
}

TEST(HostMemory, WhatWasPopulatedIsAllThereBeforeItIsTouched) {
  auto memory = HostMemory::create({.cables = 1});
  ASSERT_TRUE(memory);
  auto again = HostMemory::map(sys::UniqueFd(dup((*memory)->fd())));
  ASSERT_TRUE(again);
  const auto touch = [&](uint64_t offset, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += 4096) (*again)->base()[offset + at] = std::byte{1};
  };
  const uint64_t bytes = RailMemory::dma_bytes(**again);
  const long before = resident_kib();
  (*again)->populate_for_peer(0);
  EXPECT_GE(resident_kib() - before, static_cast<long>(bytes / 1024));
  const long one_rail = resident_kib();
  touch(RailMemory::dma_offset(**again, 0), bytes);
  EXPECT_EQ(resident_kib(), one_rail);
  (*again)->populate();
  const long all = resident_kib();
  EXPECT_GE(all - one_rail, static_cast<long>(bytes / 1024));  // the other rail's
  touch(RailMemory::dma_offset(**again, 1), bytes);
  EXPECT_EQ(resident_kib(), all);
}

// With large pages set aside it is made of them, and otherwise it is made all the same.
TEST(HostMemory, LargePagesAreTakenWhereThereAreSome) {
  auto memory = HostMemory::create({.cables = 2}, sys::Pages::kLarge);
  ASSERT_TRUE(memory);
  const size_t page = (*memory)->page_bytes();
  EXPECT_TRUE(page == 4096 || page == sys::kLargePageBytes) << page;
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*memory)->base()) % page, 0u);
  EXPECT_EQ((*memory)->bytes() % sys::kLargePageBytes, 0u);
  auto again = HostMemory::map(sys::UniqueFd(dup((*memory)->fd())));
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ((*again)->page_bytes(), page);
  EXPECT_EQ(make()->page_bytes(), 4096u) << "nobody has asked for large ones";
}

TEST(HostMemory, WhatTheControllerReachesBeginsOnALargePage) {
  auto memory = make(3);
  uint64_t sum = kControlBytes;
  for (uint32_t k = 0; k < 3; ++k) {
    EXPECT_EQ(RailMemory::dma_offset(*memory, k) % sys::kLargePageBytes, 0u);
    EXPECT_LE(RailMemory::dma_offset(*memory, k) + RailMemory::dma_bytes(*memory),
              RailMemory::ip_ring_offset(*memory, 0));
    sum += RailMemory::dma_bytes(*memory) + kIpRingBytes;
  }
  EXPECT_EQ(HostMemory::dma_bytes_of(memory->config()), sum);
}

TEST(HostMemory, ForeignMemoryIsRefused) {
  EXPECT_FALSE(HostMemory::map(sys::UniqueFd(open("/dev/null", O_RDWR))));
  sys::UniqueFd unsealed(memfd_create("x", MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 1 << 20), 0);
  EXPECT_FALSE(HostMemory::map(sys::UniqueFd(dup(unsealed.get()))));
  ASSERT_EQ(fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
  auto wrong_magic = HostMemory::map(sys::UniqueFd(dup(unsealed.get())));
  ASSERT_FALSE(wrong_magic);
  EXPECT_EQ(wrong_magic.error().code(), EPROTO);
}

TEST(HostMemory, AnotherVersionOrSizeIsRefused) {
  auto memory = make();
  HostHeader& header = RailMemory::header(*memory);
  ++header.version;
  EXPECT_FALSE(HostMemory::map(sys::UniqueFd(dup(memory->fd()))));
  --header.version;
  header.config.cables = 2;
  EXPECT_FALSE(HostMemory::map(sys::UniqueFd(dup(memory->fd()))));
  header.config.cables = 1;
  EXPECT_TRUE(HostMemory::map(sys::UniqueFd(dup(memory->fd()))));
}

TEST(HostMemory, TheMemoryCannotBeShrunkUnderUs) {
  auto memory = make();
  EXPECT_NE(ftruncate(memory->fd(), 4096), 0);
}

TEST(HostMemory, AWakeBetweenPrepareAndSleepIsNotLost) {
  auto memory = make();
  const uint32_t seen = memory->prepare_sleep(3);
  memory->wake(3);
  memory->sleep(3, seen,
                int64_t{60} * 1000 * 1000 * 1000);  // returns at once, or the test times out
  EXPECT_EQ(memory->slot(3).sleeping, 0u);
}

TEST(HostMemory, WakingAnAwakeSlotLeavesNoTrace) {
  auto memory = make();
  const uint32_t before = memory->slot(3).wake;
  memory->wake(3);
  EXPECT_EQ(memory->slot(3).wake, before);
}

TEST(HostMemory, SleepEndsByItself) {
  auto memory = make();
  const uint32_t seen = memory->prepare_sleep(3);
  memory->sleep(3, seen, 1000 * 1000);
  EXPECT_EQ(memory->slot(3).sleeping, 0u);
}

TEST(HostMemory, TheDaemonIsWokenThroughItsDescriptor) {
  auto memory = make();
  auto fd = sys::make_eventfd();
  memory->set_daemon_wake_fd(fd->get());
  memory->wake(kDaemonSlot);
  EXPECT_EQ(sys::drain_eventfd(fd->get()), 0u) << "it did not sleep";
  memory->prepare_sleep(kDaemonSlot);
  memory->wake(kDaemonSlot);
  memory->wake(kDaemonSlot);
  EXPECT_EQ(sys::drain_eventfd(fd->get()), 1u) << "woken once";
}

TEST(HostMemory, AnInterruptSparesTheDaemonIfSomebodyElseSleeps) {
  auto memory = make();
  auto fd = sys::make_eventfd();
  memory->set_daemon_wake_fd(fd->get());
  memory->prepare_sleep(kDaemonSlot);
  memory->prepare_sleep(4);
  memory->prepare_sleep(5);
  memory->wake_for_interrupt();
  EXPECT_EQ(memory->slot(4).sleeping + memory->slot(5).sleeping, 0u);
  EXPECT_EQ(sys::drain_eventfd(fd->get()), 0u);
  memory->wake_for_interrupt();
  EXPECT_EQ(sys::drain_eventfd(fd->get()), 1u);
}

}  // namespace
}  // namespace tbt::rail::test
