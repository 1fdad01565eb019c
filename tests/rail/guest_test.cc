// A host that is played by a virtual machine: only one process sees its memory, so frames to and
// from it wait on the cable until that process has been woken. Two maps of one fabric stand for the
// two processes.
#include <map>

#include "rail/emulated/silicon.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/mmap.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

constexpr uint64_t kRingAt = 0x10'0000, kBuffersAt = 0x20'0000;
constexpr uint32_t kEntries = 8;

class Guest final : public emulated::GuestPort {
 public:
  std::byte* find(uint64_t iova, uint64_t bytes, emulated::Reach) noexcept override {
    if (!bus_master) return nullptr;
    if (iova > memory.size() || bytes > memory.size() - iova) return nullptr;
    return memory.data() + iova;
  }
  [[nodiscard]] bool is_bus_master() const noexcept override { return bus_master; }
  void fire(uint32_t vector) noexcept override { ++fired[vector]; }

  Descriptor& descriptor(uint64_t base, uint32_t i) {
    return reinterpret_cast<Descriptor*>(memory.data() + base)[i];
  }

  std::vector<std::byte> memory = std::vector<std::byte>(4 << 20);
  std::map<uint32_t, int> fired;
  bool bus_master = true;
};

// Host 0 is ours, host 1 a guest; `world` is our process, `server` the guest's.
class GuestTest : public ::testing::Test {
 protected:
  static WorldConfig config() {
    WorldConfig c;
    c.bring_up = false;
    c.fabric.guests = 1u << 1;
    return c;
  }
  GuestTest() {
    server_->fabric->attach_guest(1, &guest_);
    world_.bring_up(0);
    ours_ = world_.open(0, 1);
  }

  PciDevice& nhi() { return *server_->devices[1]; }
  void program(bool tx, uint64_t base, uint32_t options) {
    const auto ring = tx ? tx_ring_register : rx_ring_register;
    const uint32_t at = tx ? tx_options_register(1) : rx_options_register(1);
    nhi().write32(ring(1, 0), static_cast<uint32_t>(base));
    nhi().write32(ring(1, 4), 0);
    nhi().write32(ring(1, kRingSize), kEntries);
    nhi().write32(at + 4, tx ? 0 : 0xffffffff);
    nhi().write32(at, options | kOptionEnable);
    nhi().write32(at, options | kOptionEnable | kOptionE2e);
  }
  void start_rx(uint32_t posted) {
    program(false, kRingAt, 0);
    nhi().write32(kRegVectorAllocation + (12 + 1) / 8 * 4, 3u << (12 + 1) % 8 * 4);
    nhi().write32(kRegInterruptMask, 1u << (12 + 1));
    for (uint32_t i = 0; i < posted; ++i) {
      guest_.descriptor(kRingAt, i).address.store(kBuffersAt + i * kFrameBytes);
      guest_.descriptor(kRingAt, i).word.store(kPosted | kRequestInterrupt);
    }
    nhi().write32(rx_ring_register(1, kRingIndex), posted);
  }
  uint32_t word(uint32_t i) { return guest_.descriptor(kRingAt, i).word.load(); }
  bool poked() {
    uint64_t count = 0;
    return ::read(server_->interrupts[1].get(), &count, sizeof count) == sizeof count;
  }

  World world_{config()};
  std::unique_ptr<World> server_ = world_.map_again();
  Guest guest_;
  std::unique_ptr<Rail> ours_;
};

TEST_F(GuestTest, AFrameWaitsOnTheCableUntilTheGuestsProcessTakesIt) {
  start_rx(4);
  ASSERT_TRUE(send(*ours_, 7, 0x11223344));
  EXPECT_EQ(word(0) & kCompleted, 0u);
  ASSERT_TRUE(poked());
  nhi().advance(INT64_MAX / 2);
  ASSERT_NE(word(0) & kCompleted, 0u);
  EXPECT_EQ(word_length(word(0)), 64u);
  uint32_t number = 0;
  std::memcpy(&number, guest_.memory.data() + kBuffersAt + 4, sizeof number);
  EXPECT_EQ(number, 0x11223344u);
  EXPECT_EQ(guest_.fired[3], 1);
  EXPECT_EQ(nhi().read32(rx_ring_register(1, kRingIndex)), 1u << 16 | 4);
}

TEST_F(GuestTest, FramesBeyondThePostedBuffersStall) {
  start_rx(1);
  ASSERT_TRUE(send(*ours_, 7, 1));
  ASSERT_TRUE(send(*ours_, 7, 2));
  nhi().advance(INT64_MAX / 2);
  EXPECT_NE(word(0) & kCompleted, 0u);
  guest_.descriptor(kRingAt, 1).address.store(kBuffersAt + kFrameBytes);
  guest_.descriptor(kRingAt, 1).word.store(kPosted);
  nhi().write32(rx_ring_register(1, kRingIndex), 2);
  EXPECT_NE(word(1) & kCompleted, 0u);
  EXPECT_EQ(world_.fabric->counters(1).overruns, 0u);
}

TEST_F(GuestTest, TheGuestsFrameReachesUsFromItsOwnProcess) {
  constexpr uint64_t kTx = 0x18'0000;
  program(true, kTx, 0);
  const uint32_t number = 77;
  guest_.memory[kBuffersAt] = std::byte{1};
  std::memcpy(guest_.memory.data() + kBuffersAt + 4, &number, sizeof number);
  guest_.descriptor(kTx, 0).address.store(kBuffersAt);
  guest_.descriptor(kTx, 0).word.store(pack_frame(64, 1, 1) | kPosted);
  nhi().write32(tx_ring_register(1, kRingIndex), 1 << 16);
  EXPECT_NE(guest_.descriptor(kTx, 0).word.load() & kCompleted, 0u);
  EXPECT_EQ(receive(*ours_), std::vector<uint32_t>{77});
}

// The cable holds a bounded number of frames; the rest stays in our ring until there is room.
TEST_F(GuestTest, MoreFramesThanTheCableHoldsAllArriveInOrder) {
  start_rx(kEntries - 1);
  uint32_t sent = 0, seen = 0, posted = kEntries - 1;
  for (int turn = 0; turn < 4000 && seen < 1000; ++turn) {
    while (sent < 1000 && send(*ours_, 7, sent)) ++sent;
    nhi().advance(INT64_MAX / 2);
    while ((word(seen % kEntries) & kCompleted) != 0) {
      uint32_t number = 0;
      const uint64_t buffer = guest_.descriptor(kRingAt, seen % kEntries).address.load();
      std::memcpy(&number, guest_.memory.data() + buffer + 4, sizeof number);
      ASSERT_EQ(number, seen);
      guest_.descriptor(kRingAt, seen % kEntries).word.store(0);
      ++seen;
      guest_.descriptor(kRingAt, posted % kEntries)
          .address.store(kBuffersAt + posted % kEntries * kFrameBytes);
      guest_.descriptor(kRingAt, posted % kEntries).word.store(kPosted);
      nhi().write32(rx_ring_register(1, kRingIndex), ++posted % kEntries);
    }
  }
  EXPECT_EQ(seen, 1000u);
}

TEST_F(GuestTest, AnAddressThatIsNotMappedIsAFault) {
  start_rx(1);
  guest_.descriptor(kRingAt, 0).address.store(uint64_t{1} << 40);
  ASSERT_TRUE(send(*ours_, 7, 1));
  nhi().advance(INT64_MAX / 2);
  EXPECT_EQ(world_.fabric->counters(1).dma_faults, 1u);
}

TEST_F(GuestTest, ADeviceThatIsNoBusMasterDoesNotTry) {
  start_rx(2);
  guest_.bus_master = false;
  ASSERT_TRUE(send(*ours_, 7, 1));
  nhi().advance(INT64_MAX / 2);
  EXPECT_EQ(word(0) & kCompleted, 0u);
  EXPECT_EQ(world_.fabric->counters(1).dma_faults, 0u);
}

// The guest's process owes it an interrupt of ring 0 and is about to fire it when another process
// has its turn at the control plane: that one cannot fire it, and must leave it. (The guest's
// ring 0 stood still for good: the interrupt was taken off the list and went nowhere.)
TEST_F(GuestTest, AnInterruptThatIsOwedToTheGuestIsNotTakenByAnotherProcess) {
  constexpr uint32_t kRing0Rx = 12;  // the bit after those of 12 transmit rings
  constexpr uint32_t kVector = 5;
  nhi().write32(kRegVectorAllocation + kRing0Rx / 8 * 4, kVector << kRing0Rx % 8 * 4);
  nhi().write32(kRegInterruptMask, 1u << kRing0Rx);
  auto memory = sys::SharedMemory::map(sys::UniqueFd(dup(world_.fabric->fd())));
  ASSERT_TRUE(memory);
  auto& silicon = *reinterpret_cast<emulated::FabricSilicon*>(memory->base());
  silicon.nhis[1].ring0_raise.store(1);
  world_.fabric->set_params(0, world_.fabric->params(0));  // a turn of ours
  EXPECT_EQ(guest_.fired[kVector], 0) << "not from here";
  server_->fabric->set_params(0, world_.fabric->params(0));  // of the guest's process
  EXPECT_EQ(guest_.fired[kVector], 1);
  EXPECT_EQ(silicon.nhis[1].ring0_raise.load(), 0u);
}

// The same for a ring of data: the status was set with the completion, and the interrupt is on its
// way, when another process runs the engine.
TEST_F(GuestTest, AnInterruptOfADataRingIsNotTakenByAnotherProcess) {
  start_rx(4);
  auto memory = sys::SharedMemory::map(sys::UniqueFd(dup(world_.fabric->fd())));
  ASSERT_TRUE(memory);
  auto& silicon = *reinterpret_cast<emulated::FabricSilicon*>(memory->base());
  silicon.nhis[1].status[0].store(1u << (12 + 1));
  silicon.flows[0][1].unfired.store(1);
  ASSERT_TRUE(send(*ours_, 7, 1));
  EXPECT_EQ(silicon.flows[0][1].unfired.load(), 1u);
  EXPECT_EQ(guest_.fired[3], 0) << "not from here";
  nhi().advance(INT64_MAX / 2);
  EXPECT_EQ(silicon.flows[0][1].unfired.load(), 0u);
  EXPECT_EQ(guest_.fired[3], 1);
}

}  // namespace
}  // namespace tbt::rail::test
