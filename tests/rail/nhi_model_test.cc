// Registers of the NHI model: who may write what, both interrupt flavours, and every rule a driver
// can break.
#include "rail/emulated/silicon.h"
#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/quirks.h"
#include "sys/mmap.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

WorldConfig bare(uint32_t hops = 12, bool intel = true, bool v2 = true) {
  WorldConfig c;
  c.bring_up = false;
  c.fabric.hop_count = hops;
  c.fabric.amd = intel ? 0 : ~0u;
  c.fabric.usb4_v2 = v2;
  return c;
}

class NhiModelTest : public ::testing::Test {
 protected:
  void programmed(uint32_t hop) {
    dev().write32(tx_ring_register(hop, 0), 0x1000);
    dev().write32(tx_ring_register(hop, kRingSize), 16);
  }
  PciDevice& dev() { return *world_.devices[0]; }
  uint64_t misuse() { return world_.fabric->counters(0).misuse; }
  std::string last() { return world_.fabric->counters(0).last_misuse; }

  World world_{bare()};
};

TEST_F(NhiModelTest, CapabilitiesTellHopsAndVersion) {
  for (const uint32_t hops : {3u, 12u, 32u}) {
    World v1(bare(hops, true, false)), v2(bare(hops, true, true));
    EXPECT_EQ(v1.devices[0]->read32(kRegCapabilities) & 0x7ff, hops);
    EXPECT_LT(v1.devices[0]->read32(kRegCapabilities) >> 16 & 0xff, kCapabilityUsb4V2);
    EXPECT_GE(v2.devices[0]->read32(kRegCapabilities) >> 16 & 0xff, kCapabilityUsb4V2);
  }
}

TEST_F(NhiModelTest, RingRegistersReadBack) {
  programmed(3);
  dev().write32(tx_ring_register(3, 4), 0x55);
  EXPECT_EQ(dev().read32(tx_ring_register(3, 0)), 0x1000u);
  EXPECT_EQ(dev().read32(tx_ring_register(3, 4)), 0x55u);
  EXPECT_EQ(dev().read32(tx_ring_register(3, kRingSize)), 16u);
  EXPECT_EQ(dev().read32(rx_ring_register(3, kRingSize)), 0u);
  EXPECT_EQ(misuse(), 0u);
}

TEST_F(NhiModelTest, EndToEndFlowControlIsAddedToAnEnabledRing) {
  programmed(1);
  dev().write32(tx_options_register(1), kOptionEnable);
  dev().write32(tx_options_register(1), kOptionEnable | kOptionE2e);
  EXPECT_EQ(misuse(), 0u);
  EXPECT_EQ(dev().read32(tx_options_register(1)), kOptionEnable | kOptionE2e);
}

TEST_F(NhiModelTest, EndToEndFlowControlBeforeEnablingIsMisuse) {
  programmed(1);
  dev().write32(tx_options_register(1), kOptionEnable | kOptionE2e);
  EXPECT_EQ(misuse(), 1u);
  EXPECT_EQ(last(), "end-to-end flow control before the ring is enabled");
  EXPECT_EQ(dev().read32(tx_options_register(1)), 0u);
}

TEST_F(NhiModelTest, EnablingTwiceIsMisuse) {
  programmed(1);
  dev().write32(tx_options_register(1), kOptionEnable);
  dev().write32(tx_options_register(1), kOptionEnable);
  EXPECT_EQ(last(), "ring enabled twice");
}

TEST_F(NhiModelTest, EnablingAnUnprogrammedRingIsMisuse) {
  dev().write32(rx_options_register(1), kOptionEnable);
  EXPECT_EQ(last(), "ring enabled without base or size");
  EXPECT_EQ(dev().read32(rx_options_register(1)), 0u);
}

TEST_F(NhiModelTest, ChangingAnEnabledRingIsMisuse) {
  programmed(1);
  dev().write32(tx_options_register(1), kOptionEnable);
  dev().write32(tx_ring_register(1, kRingSize), 32);
  EXPECT_EQ(last(), "base or size changed while the ring is enabled");
}

TEST_F(NhiModelTest, DoorbellsOutsideTheRingAreMisuse) {
  programmed(1);
  dev().write32(tx_ring_register(1, kRingIndex), 1 << 16);
  EXPECT_EQ(last(), "doorbell on a ring that is not enabled");
  dev().write32(tx_options_register(1), kOptionEnable);
  dev().write32(tx_ring_register(1, kRingIndex), 16 << 16);
  EXPECT_EQ(last(), "index beyond the ring");
  dev().write32(tx_ring_register(1, kRingIndex), 7);
  EXPECT_EQ(last(), "write to the hardware's half of an index register");
  EXPECT_EQ(dev().read32(tx_ring_register(1, kRingIndex)), 0u);
}

TEST_F(NhiModelTest, MaskIsSetWholeAndClearedByBits) {
  dev().write32(kRegInterruptMask, 0xf0);
  dev().write32(kRegInterruptMaskClear, 0x30);
  EXPECT_EQ(dev().read32(kRegInterruptMask), 0xc0u);
}

TEST_F(NhiModelTest, VectorsAndThrottlingAreStored) {
  dev().write32(kRegVectorAllocation + 4, 0x1234);
  dev().write32(kRegThrottling + 4 * 5, 500);
  EXPECT_EQ(dev().read32(kRegVectorAllocation + 4), 0x1234u);
  EXPECT_EQ(dev().read32(kRegThrottling + 4 * 5), 500u);
  EXPECT_EQ(dev().interrupt_fd(0), world_.interrupts[0].get());
  EXPECT_EQ(dev().interrupt_fd(16), -1);
}

TEST_F(NhiModelTest, TheFirmwareMailboxAnswersWithAnError) {
  dev().write32(kRegInboxCommand, kInboxRequest | 3);
  EXPECT_EQ(dev().read32(kRegInboxCommand), kInboxError | 3);
}

TEST_F(NhiModelTest, RouterResetStopsEveryRing) {
  programmed(1);
  dev().write32(tx_options_register(1), kOptionEnable);
  dev().write32(kRegResetV1, 1);
  EXPECT_NE(dev().read32(tx_options_register(1)), 0u) << "not the register of a v2 router";
  dev().write32(kRegResetV2, 1);
  EXPECT_EQ(dev().read32(tx_options_register(1)), 0u);
  EXPECT_EQ(dev().read32(kRegResetV2) & 1, 0u);
}

TEST_F(NhiModelTest, ARemovedControllerReadsAllOnesAndIgnoresWrites) {
  programmed(1);
  world_.fabric->remove_device(0, true);
  EXPECT_EQ(dev().read32(kRegCapabilities), kDeviceGone);
  EXPECT_EQ(dev().read32(tx_ring_register(1, kRingSize)), kDeviceGone);
  dev().write32(tx_ring_register(1, kRingSize), 99);
  const Status s = bring_up_nhi_rail(*world_.memories[0], 0, dev());
  EXPECT_EQ(s.code(), ENODEV);
  auto rail = world_.open(0, 1);
  EXPECT_TRUE(receive(*rail).empty());
  EXPECT_TRUE(rail->arm());
  world_.fabric->remove_device(0, false);
  EXPECT_EQ(dev().read32(tx_ring_register(1, kRingSize)), 16u);
}

TEST_F(NhiModelTest, MappingsOutsideTheMemoryAreRefused) {
  const uint64_t all = world_.memories[0]->bytes();
  EXPECT_FALSE(dev().dma_map(0, 100));
  EXPECT_FALSE(dev().dma_map(all, 4096));
  EXPECT_FALSE(dev().dma_map(0, all + 4096));
  EXPECT_FALSE(dev().dma_map(~uint64_t{0} - 4095, 8192));
  auto iova = dev().dma_map(4096, 8192);
  ASSERT_TRUE(iova);
  EXPECT_FALSE(dev().dma_unmap(*iova, 4096));
  EXPECT_TRUE(dev().dma_unmap(*iova, 8192));
  EXPECT_FALSE(dev().dma_unmap(*iova, 8192));
}

// The receiver's status bit for ring 1 after one frame, in either flavour.
class InterruptFlavour : public ::testing::TestWithParam<std::tuple<bool, uint32_t>> {};

TEST_P(InterruptFlavour, StatusIsClearedAsTheFlavourSays) {
  const auto [intel, hops] = GetParam();
  WorldConfig c = bare(hops, intel);
  c.bring_up = true;
  World world(c);
  auto a = world.open(0, 1);
  ASSERT_TRUE(send(*a, 1, 0));
  PciDevice& dev = *world.devices[1];
  const uint32_t bit = hops + 1;
  const uint32_t offset = kRegNotify + bit / 32 * 4;
  const uint32_t mask = 1u << bit % 32;
  if (intel) {
    EXPECT_EQ(dev.read32(offset) & mask, mask);
    EXPECT_EQ(dev.read32(offset) & mask, 0u) << "clears on read";
  } else {
    EXPECT_EQ(dev.read32(offset) & mask, mask);
    EXPECT_EQ(dev.read32(offset) & mask, mask) << "stays";
    dev.write32(kRegInterruptClear + bit / 32 * 4, mask);
    EXPECT_EQ(dev.read32(offset) & mask, 0u);
  }
  EXPECT_EQ(world.fabric->counters(1).interrupts, 0u) << "masked";
}

TEST_P(InterruptFlavour, ArmedFiresOnceUntilArmedAgain) {
  const auto [intel, hops] = GetParam();
  WorldConfig c = bare(hops, intel);
  c.bring_up = true;
  World world(c);
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  for (uint32_t round = 1; round <= 3; ++round) {
    ASSERT_TRUE(b->arm());
    for (uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(send(*a, 1, i));
    EXPECT_EQ(world.fabric->counters(1).interrupts, round);
    b->disarm();
    EXPECT_FALSE(b->arm()) << "frames are there";
    EXPECT_EQ(receive(*b).size(), 4u);
    ASSERT_TRUE(send(*a, 1, 9));
    EXPECT_EQ(world.fabric->counters(1).interrupts, round) << "disarmed";
    EXPECT_EQ(receive(*b).size(), 1u);
  }
  EXPECT_EQ(b->stats().interrupts, 3u);
  EXPECT_EQ(b->stats().stranded, 0u);
}

// As Linux drives Intel's: it masks a ring to poll it, unmasks it after its last look, and never
// reads or clears the status.
TEST(AutoClear, WhatCameWhileMaskedFiresWhenUnmasked) {
  WorldConfig c = bare(12, /*intel=*/true);
  c.bring_up = true;
  World world(c);
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  PciDevice& nhi = *world.devices[1];
  const uint32_t rx = 1u << (12 + 1);
  nhi.write32(kRegDmaMisc, kDmaMiscAutoClear);
  nhi.write32(kRegInterruptMask, rx);
  const auto fired = [&, before = world.fabric->counters(1).interrupts]() {
    return world.fabric->counters(1).interrupts - before;
  };
  ASSERT_TRUE(send(*a, 1, 1));
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(fired(), 2u) << "firing clears";
  nhi.write32(kRegInterruptMaskClear, rx);
  ASSERT_TRUE(send(*a, 1, 3));
  EXPECT_EQ(fired(), 2u) << "masked";
  nhi.write32(kRegInterruptMask, rx);
  EXPECT_EQ(fired(), 3u);
  nhi.write32(kRegInterruptMask, rx);
  EXPECT_EQ(fired(), 3u) << "once only";
  ASSERT_TRUE(send(*a, 1, 4));
  EXPECT_EQ(fired(), 4u);
}

// As Linux drives AMD's: its handler clears the status and masks the ring; then it polls, and
// unmasks after its last look without clearing again.
TEST(WriteClear, WhatCameWhileMaskedFiresWhenUnmasked) {
  WorldConfig c = bare(12, /*intel=*/false);
  c.bring_up = true;
  World world(c);
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  PciDevice& nhi = *world.devices[1];
  const uint32_t rx = 1u << (12 + 1);
  nhi.write32(kRegInterruptMask, rx);
  const auto fired = [&, before = world.fabric->counters(1).interrupts]() {
    return world.fabric->counters(1).interrupts - before;
  };
  const auto handler = [&] {
    nhi.write32(kRegInterruptClear, rx);
    nhi.write32(kRegInterruptMaskClear, rx);
  };
  ASSERT_TRUE(send(*a, 1, 1));
  ASSERT_TRUE(send(*a, 1, 2));
  EXPECT_EQ(fired(), 1u) << "not cleared yet";
  handler();
  ASSERT_TRUE(send(*a, 1, 3));
  EXPECT_EQ(fired(), 1u) << "masked";
  nhi.write32(kRegInterruptMask, rx);
  EXPECT_EQ(fired(), 2u);
  nhi.write32(kRegInterruptMask, rx);
  EXPECT_EQ(fired(), 2u) << "once only";
  handler();
  nhi.write32(kRegInterruptMask, rx);
  EXPECT_EQ(fired(), 2u) << "nothing came";
  ASSERT_TRUE(send(*a, 1, 4));
  EXPECT_EQ(fired(), 3u);
}

// One host of each flavour: each has the status, the identity and the router of its own.
TEST(Flavours, HostsOfOneFabricMayDiffer) {
  WorldConfig c;
  c.fabric.amd = 0b10;
  World world(c);
  EXPECT_EQ(world.devices[0]->identity().vendor, kVendorIntel);
  EXPECT_EQ(world.devices[1]->identity().vendor, kVendorAmd);
  const std::unique_ptr<Rail> rails[2] = {world.open(0, 1), world.open(1, 1)};
  for (uint32_t to = 0; to < 2; ++to) {
    ASSERT_TRUE(send(*rails[1 - to], 1, 1));
    const uint32_t rx = 1u << (12 + 1);
    EXPECT_EQ(world.devices[to]->read32(kRegNotify) & rx, rx);
    EXPECT_EQ(world.devices[to]->read32(kRegNotify) & rx, to == 1 ? rx : 0u) << to;
  }
}

// A controller whose status bit for a frame comes late: the frame has been taken, its ring's bit is
// clear, and now, as the mask is about to be written, the bit is set.
class LateStatus final : public PciDevice {
 public:
  LateStatus(PciDevice& device, std::span<emulated::Register> status, uint32_t bit)
      : device_(device), status_(status[bit / 32]), bit_(1u << bit % 32) {}

  uint32_t read32(uint32_t offset) noexcept override { return device_.read32(offset); }
  void write32(uint32_t offset, uint32_t value) noexcept override {
    const bool unmasks = offset >= kRegInterruptMask && offset < kRegInterruptMask + 8;
    if (unmasks) status_.fetch_or(bit_), ++unmasked;
    device_.write32(offset, value);
  }
  Result<uint64_t> dma_map(uint64_t offset, uint64_t bytes) override {
    return device_.dma_map(offset, bytes);
  }
  Status dma_unmap(uint64_t iova, uint64_t bytes) override {
    return device_.dma_unmap(iova, bytes);
  }
  [[nodiscard]] int interrupt_fd(uint32_t v) const noexcept override {
    return device_.interrupt_fd(v);
  }
  int64_t advance(int64_t now_ns) noexcept override { return device_.advance(now_ns); }

  int unmasked = 0;

 private:
  PciDevice& device_;
  emulated::Register& status_;
  uint32_t bit_;
};

TEST_P(InterruptFlavour, AStatusBitThatComesLateDoesNotSilenceTheRing) {
  const auto [intel, hops] = GetParam();
  WorldConfig c = bare(hops, intel);
  c.bring_up = true;
  World world(c);
  auto memory = sys::SharedMemory::map(sys::UniqueFd(dup(world.fabric->fd())));
  ASSERT_TRUE(memory);
  auto& silicon = *reinterpret_cast<emulated::FabricSilicon*>(memory->base());
  LateStatus device(*world.devices[1], silicon.nhis[1].status, hops + 1);
  world.memories[1]->slot(1).state.store(SlotState::kAttached);
  auto a = world.open(0, 1);
  auto b = open_nhi_rail(*world.memories[1], 0, device, 1, classify);
  ASSERT_TRUE(b->arm());
  EXPECT_EQ(device.unmasked, 1);
  const uint64_t before = world.fabric->counters(1).interrupts;
  EXPECT_EQ(before, intel ? 0u : 1u) << "of the late bit itself, where unmasking fires";
  ASSERT_TRUE(send(*a, 1, 0));
  EXPECT_EQ(world.fabric->counters(1).interrupts, before + 1);
}

INSTANTIATE_TEST_SUITE_P(IntelAndOthers, InterruptFlavour,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(3u, 12u, 32u)));

TEST(NhiModelAutoClear, EveryFrameFiresWhenTheControllerClearsItself) {
  World world;
  world.devices[1]->write32(kRegDmaMisc, kDmaMiscAutoClear);
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  ASSERT_TRUE(b->arm());
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(send(*a, 1, i));
  EXPECT_EQ(world.fabric->counters(1).interrupts, 3u);
}

TEST(NhiHops, AThreeHopControllerHasTwoDataRingPairs) {
  WorldConfig c = bare(3);
  c.host.cables = 3;
  c.fabric.cables = {{0, 1, 0, 0}, {0, 1, 1, 1}};
  World world(c);
  EXPECT_TRUE(bring_up_nhi_rail(*world.memories[0], 0, *world.devices[0]));
  EXPECT_TRUE(bring_up_nhi_rail(*world.memories[0], 1, *world.devices[0]));
  EXPECT_EQ(bring_up_nhi_rail(*world.memories[0], 2, *world.devices[0]).code(), ENODEV);
  EXPECT_EQ(bring_up_nhi_rail(*world.memories[0], 3, *world.devices[0]).code(), EINVAL);
  EXPECT_EQ(bring_up_nhi_rail(*world.memories[0], 0, *world.devices[0]).code(), EBUSY);
}

TEST(FabricShape, ImpossibleFabricsAreRefused) {
  const auto refused = [](const emulated::FabricConfig& config) {
    auto fabric = emulated::EmulatedFabric::create(config);
    return !fabric && fabric.error().code() == EINVAL && !fabric.error().text().empty();
  };
  emulated::FabricConfig good;
  good.hosts = 2;
  good.cables = {{0, 1, 0, 0}};
  good.params.resize(1);
  EXPECT_FALSE(refused(good));
  emulated::FabricConfig c = good;
  c.hosts = 9;
  EXPECT_TRUE(refused(c));
  c = good, c.hop_count = 4;
  EXPECT_TRUE(refused(c));
  c = good, c.cables[0].host_b = 0;
  EXPECT_TRUE(refused(c));
  c = good, c.cables[0].host_b = 2;
  EXPECT_TRUE(refused(c));
  c = good, c.hop_count = 3, c.cables[0].ordinal_a = 2;
  EXPECT_TRUE(refused(c)) << "a 3-hop controller has ring pairs 1 and 2";
  c = good, c.cables.push_back({0, 1, 0, 1}), c.params.resize(2);
  EXPECT_TRUE(refused(c)) << "two cables in one port";
  c = good, c.params.clear();
  EXPECT_TRUE(refused(c));
}

TEST(FabricShape, ASecondMappingSeesTheSameCables) {
  World world;
  auto again = world.map_again();
  EXPECT_EQ(again->fabric->hosts(), 2u);
  EXPECT_EQ(again->fabric->cables(), 1u);
  EXPECT_EQ(again->fabric->cable_of(1, 0), 0u);
  EXPECT_EQ(again->fabric->cable_of(1, 1), emulated::kCablesMax);
  EXPECT_FALSE(emulated::EmulatedFabric::map(sys::UniqueFd(dup(world.memories[0]->fd()))));
}

}  // namespace
}  // namespace tbt::rail::test
