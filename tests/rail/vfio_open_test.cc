// Opening a controller that, or a kernel that, is not as it should be: each ends in one sentence
// that says what to do, and nothing is left behind (vfio_world.h looks).
#include "vfio_world.h"

namespace tbt::rail::test {
namespace {

using namespace nhi;

using VfioOpen = VfioTest;
using VfioPower = VfioTest;
using Chain = ScriptedKernel::Chain;

TEST_F(VfioOpen, TheDeviceMustBeThereAndBoundAndOurs) {
  kernel_->fail_open["/dev/vfio/17"] = ENOENT;
  expect_refusal(ENOENT, "tbt bind");
  kernel_->fail_open["/dev/vfio/17"] = EBUSY;
  expect_refusal(EBUSY, "another process");
  kernel_->fail_open["/dev/vfio/17"] = EACCES;
  expect_refusal(EACCES, "run as root");
  kernel_->fail_open.clear();
  kernel_->has_container = true;
  expect_refusal(EBUSY, "another process");
  options_.address = "0000:99:00.0";
  expect_refusal(ENODEV, "no PCI device");
}

TEST_F(VfioOpen, VfioMustBeThere) {
  kernel_->fail_open["/dev/vfio/vfio"] = ENOENT;
  expect_refusal(ENOENT, "modprobe vfio-pci");
  kernel_->fail_open["/dev/vfio/vfio"] = EACCES;
  expect_refusal(EACCES, "run as root");
  kernel_->fail_open["/dev/vfio/vfio"] = EMFILE;
  expect_refusal(EMFILE, "descriptor");
  kernel_->fail_open.clear();
  kernel_->api = 1;
  expect_refusal(EPROTO, "version");
  kernel_->api = VFIO_API_VERSION;
  kernel_->extensions.clear();
  expect_refusal(ENOTSUP, "vfio_iommu_type1");
}

TEST_F(VfioOpen, TheMachinesOwnKernelIsAskedByDefault) {
  auto device = VfioDevice::open(options_);  // /dev/vfio below our folder is not there
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code(), ENOENT);
}

TEST_F(VfioOpen, TheGroupMustBeViable) {
  kernel_->viable = false;
  expect_refusal(EBUSY, "takes the whole group");
}

TEST_F(VfioOpen, WithoutAnIommuItRefusesUnlessToldOtherwise) {
  file("/sys/kernel/iommu_groups/17/name", "vfio-noiommu");
  kernel_->extensions = {VFIO_NOIOMMU_IOMMU};
  expect_refusal(ENODEV, "VT-d or AMD-Vi");
  options_.allow_no_iommu = true;
  {
    auto device = opened();
    ASSERT_TRUE(device);
    EXPECT_FALSE(device->has_iommu());
    EXPECT_EQ(device->read32(kRegCapabilities) & 0x3ff, 12u);
    EXPECT_EQ(device->dma_map(0, 4096).error().code(), EPERM);
  }
  std::filesystem::remove(root_.string() + device() + "/iommu_group");
  expect_refusal(ENODEV, "enable_unsafe_noiommu_mode");
  options_.allow_no_iommu = false;
  expect_refusal(ENODEV, "VT-d or AMD-Vi");
}

TEST_F(VfioOpen, InterruptsWithoutRemappingNeedLeave) {
  kernel_->fail[VFIO_SET_IOMMU] = EPERM;
  expect_refusal(EPERM, "allow_unsafe_interrupts=1");
}

TEST_F(VfioOpen, EveryCallOfTheKernelMayFail) {
  for (const unsigned long request :
       {VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER, VFIO_SET_IOMMU, VFIO_IOMMU_GET_INFO,
        VFIO_GROUP_GET_DEVICE_FD, VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO,
        VFIO_DEVICE_SET_IRQS}) {
    kernel_->fail = {{request, EIO}};
    auto device = open();
    EXPECT_FALSE(device) << std::hex << request;
    EXPECT_EQ(device.error().code(), EIO) << std::hex << request;
    EXPECT_GT(device.error().text().size(), 10u);
    EXPECT_TRUE(kernel_->open_fds.empty()) << std::hex << request;
  }
  kernel_->fail = {{VFIO_DEVICE_GET_IRQ_INFO, EIO}};
  expect_refusal(ENODEV, "MSI-X");
}

TEST_F(VfioOpen, ThereMustBeInterrupts) {
  kernel_->msix_vectors = 0;
  expect_refusal(ENODEV, "MSI-X");
}

TEST_F(VfioOpen, AddressesMustBeTranslatable) {
  kernel_->iova_ranges = {{0, 0xfedfffff}, {0x1'0000'0000, 0x1'0000'ffff}};
  expect_refusal(ENOTSUP, "addresses");
  kernel_->iova_ranges = {{0, 0xfedfffff}, {0x1'0000'0000, 0x1'0000'0000 + kMemoryBytes - 1}};
  EXPECT_TRUE(opened());
  kernel_->page_sizes = 1 << 16;
  expect_refusal(ENOTSUP, "4 KiB");
}

TEST_F(VfioOpen, ABarThatIsNotAControllersIsRefused) {
  kernel_->bar_bytes = 0x1000;
  expect_refusal(ENODEV, "BAR0");
  kernel_->bar_bytes = kBarBytes;
  kernel_->refuse_map = true;
  expect_refusal(EIO, "mapped");
  kernel_->refuse_map = false;
  kernel_->config_bytes = 64;
  expect_refusal(EIO, "configuration space");
}

TEST_F(VfioOpen, AKernelThatAnswersNonsenseIsNotBelieved) {
  kernel_->chain = Chain::kInsane;
  expect_refusal(EIO, "makes no sense");
  for (const Chain chain : {Chain::kLoop, Chain::kBeyond}) {
    kernel_->chain = chain;
    EXPECT_TRUE(opened());  // no capability found: as if there were none
  }
  kernel_->config[kMsixAt + 1] = kPmAt;  // a list of capabilities that bites its tail
  kernel_->config[kMsixAt] = 0x05;
  EXPECT_TRUE(opened());
}

TEST_F(VfioOpen, AControllerThatDoesNotAnswerIsSaid) {
  kernel_->bar[kRegCapabilities / 4] = kDeviceGone;
  expect_refusal(ENODEV, "all ones");
  kernel_->bar[kRegCapabilities / 4] = 0;
  expect_refusal(ENODEV, "no ring");
  kernel_->put16(0, 0xffff);
  expect_refusal(ENODEV, "gone");
}

TEST_F(VfioOpen, TheRouterIsResetAsItsVersionSays) {
  EXPECT_TRUE(opened());
  EXPECT_EQ(kernel_->log[2], "reset v2");
  EXPECT_GE(kernel_->slept_us, 150000u);
  EXPECT_LT(kernel_->slept_us, 170000u);
  kernel_->log.clear();
  kernel_->bar[kRegCapabilities / 4] = 12 | 0x20 << 16;
  kernel_->reset_us = 5000;
  auto v1 = std::make_unique<ScriptedKernel>(root_.string());
  v1->bar[kRegCapabilities / 4] = 12 | 0x20 << 16;
  v1->reset_us = 5000;
  EXPECT_TRUE(VfioDevice::open(options_, *v1));
  EXPECT_EQ(v1->log[2], "reset v1");
}

TEST_F(VfioOpen, AResetThatDoesNotEndIsNotWaitedForForEver) {
  kernel_->reset_us = 10'000'000;
  expect_refusal(ETIMEDOUT, "reset");
  EXPECT_LE(kernel_->slept_us, 700'000u);
}

TEST_F(VfioPower, ASleepingFunctionIsWoken) {
  kernel_->put16(kPmAt + 4, 0x0003);  // D3hot
  EXPECT_TRUE(opened());
  EXPECT_EQ(kernel_->config[kPmAt + 4] & 3, 0);
  EXPECT_GE(kernel_->slept_us, 10000u);
  EXPECT_EQ(kernel_->config[4] & 2, 2) << "memory access is on";
}

TEST_F(VfioPower, IntegratedIntelControllersAreForcedToPower) {
  make_integrated();
  kernel_->put32(0xfc, 0x55000100);  // another DMA delay, and a bit that is not ours
  {
    auto device = opened();
    ASSERT_TRUE(device);
    EXPECT_EQ(kernel_->config32(0xfc), 0x22000102u);
  }
  EXPECT_EQ(kernel_->config32(0xfc), 0x22000100u);
  EXPECT_EQ(kernel_->log.front(), "force power");
  // Discrete ones are left alone.
  file(device() + "/device", "0x5781");
  kernel_->log.clear();
  EXPECT_TRUE(opened());
  EXPECT_EQ(kernel_->log.front(), "vectors on");
}

TEST_F(VfioPower, FirmwareThatDoesNotStartIsNotWaitedForForEver) {
  make_integrated();
  kernel_->firmware_us = 900'000;
  EXPECT_TRUE(opened());
  kernel_->firmware_us = 5'000'000;
  kernel_->log.clear();
  kernel_->slept_us = 0;
  expect_refusal(ETIMEDOUT, "firmware");
  EXPECT_EQ(kernel_->slept_us, 350u * 3000);
  EXPECT_EQ(kernel_->log, (std::vector<std::string>{"force power", "no force power", "close device",
                                                    "close container"}));
}

}  // namespace
}  // namespace tbt::rail::test
