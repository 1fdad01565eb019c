// The controller as a virtual machine sees it, message by message, and the stream they come in.
#include "rail/emulated/vfio_user_device.h"

#include <sys/socket.h>

#include <algorithm>

#include "rail/emulated/control_trace.h"
#include "rail/emulated/vfio_user_connection.h"
#include "rail/nhi/nhi_regs.h"
#include "sys/event_fd.h"
#include "sys/unix_socket.h"
#include "vfio_user_fixture.h"

namespace tbt::rail::emulated::test {
namespace {

using namespace vfio_user;

constexpr PciIds kIds{0x8086, 0x5781};
constexpr uint32_t kBar = 0, kConfig = 7, kMsix = 2;
constexpr uint64_t kCommandRegister = 4;
constexpr uint32_t kTriggerFds = 1u << 5 | 1u << 2;
constexpr uint16_t kMemoryOn = 2, kBusMasterOn = 4;

// A device and what a machine would say to it.
class VfioUserDeviceTest : public testing::Test {
 protected:
  VfioUserDeviceTest() {
    device.set_controller(&controller);
    device.on_memory_change([this] { memory_changes++; });
    EXPECT_EQ(error_of(send(1, pack(uint16_t{0}, uint16_t{1}))), 0);
    EXPECT_EQ(error_of(write<uint16_t>(kConfig, kCommandRegister, kMemoryOn | kBusMasterOn)), 0);
  }

  // The reply; `status` if the device wants no more.
  Bytes send(uint16_t command, const Bytes& payload, std::vector<sys::UniqueFd> fds = {},
             uint32_t flags = 0) {
    const Bytes bytes = header_bytes(command, payload.size(), flags);
    const auto header = decode_header(std::span(bytes).first<kHeaderBytes>());
    Message reply;
    status = device.handle(header.value(), payload, std::move(fds), reply);
    return reply;
  }
  static int error_of(const Bytes& reply) {
    if (reply.size() < kHeaderBytes) return -1;
    return base::load<int>(reply.data() + 12);
  }
  template <typename T>
  Bytes write(uint32_t region, uint64_t offset, T value, uint32_t flags = 0) {
    const auto size = static_cast<uint32_t>(sizeof value);
    return send(10, join(pack(offset, region, size), pack(value)), {}, flags);
  }
  template <typename T>
  T read(uint32_t region, uint64_t offset) {
    const Bytes reply = send(9, pack(offset, region, static_cast<uint32_t>(sizeof(T))));
    EXPECT_EQ(error_of(reply), 0) << "offset " << offset;
    return reply.size() == 32 + sizeof(T) ? base::load<T>(reply.data() + 32) : T{};
  }
  Bytes map_page(uint64_t iova, std::vector<sys::UniqueFd> fds) {
    return send(2, pack(32u, 3u, uint64_t{0}, iova, uint64_t{4096}), std::move(fds));
  }
  // Eventfds for vectors [first, first + n); ours are kept in `events`.
  void arm(uint32_t first, uint32_t n) {
    std::vector<sys::UniqueFd> theirs;
    for (uint32_t i = 0; i < n; i++) {
      events[first + i] = std::move(*sys::make_eventfd());
      theirs.push_back(dup_of(events[first + i]));
    }
    EXPECT_EQ(error_of(send(8, pack(20u, kTriggerFds, kMsix, first, n), std::move(theirs))), 0);
  }
  uint64_t fired(uint32_t vector) { return sys::drain_eventfd(events[vector].get()); }

  FakeController controller;
  VfioUserDevice device{kIds};
  std::array<sys::UniqueFd, kMsixVectors> events;
  Status status;
  int memory_changes = 0;
};

TEST_F(VfioUserDeviceTest, ADriverFindsAnUsb4HostInterface) {
  EXPECT_EQ(read<uint32_t>(kConfig, 0), 0x57818086u);
  EXPECT_EQ(read<uint32_t>(kConfig, 8) >> 8, 0x0c0340u);
  EXPECT_EQ(read<uint8_t>(kConfig, 0x3d), 0) << "no INTx";
  std::vector<int> capabilities;
  for (uint8_t at = read<uint8_t>(kConfig, 0x34); at != 0; at = read<uint8_t>(kConfig, at + 1u)) {
    capabilities.push_back(read<uint8_t>(kConfig, at));
    ASSERT_LE(capabilities.size(), 3u);
    if (capabilities.back() != 0x11) continue;
    EXPECT_EQ(read<uint16_t>(kConfig, at + 2u) & 0x7ff, 15) << "16 vectors";
    EXPECT_EQ(read<uint32_t>(kConfig, at + 4u), 0x7e000u);
    EXPECT_EQ(read<uint32_t>(kConfig, at + 8u), 0x7f000u);
  }
  EXPECT_EQ(capabilities, (std::vector<int>{0x01, 0x11, 0x10}));
  EXPECT_EQ(read<uint32_t>(kConfig, 0x100), 0u) << "no extended capabilities";
  EXPECT_EQ(read<uint32_t>(kConfig, 4092), 0u);
}

TEST_F(VfioUserDeviceTest, TheBarHasSixtyFourBitsAndASize) {
  (void)write<uint32_t>(kConfig, 0x10, ~0u);
  (void)write<uint32_t>(kConfig, 0x14, ~0u);
  EXPECT_EQ(read<uint32_t>(kConfig, 0x10), 0xfff80004u);
  EXPECT_EQ(read<uint32_t>(kConfig, 0x14), 0xffffffffu);
  EXPECT_EQ(read<uint32_t>(kConfig, 0x18), 0u);
  (void)write<uint32_t>(kConfig, 0, 0);
  EXPECT_EQ(read<uint32_t>(kConfig, 0), 0x57818086u) << "read only";
}

TEST_F(VfioUserDeviceTest, SaysWhatThereIs) {
  const Bytes info = send(4, pack(16u, 0u, 0u, 0u));
  ASSERT_EQ(info.size(), 32u);
  EXPECT_EQ(base::load<uint32_t>(info.data() + 20), 3u) << "PCI, and can be reset";
  for (uint32_t region = 0; region < 9; region++) {
    const Bytes reply = send(5, join(pack(32u, 0u, region, 0u), Bytes(16)));
    ASSERT_EQ(reply.size(), 48u);
    const uint64_t want = region == kBar ? 0x80000 : region == kConfig ? 4096 : 0;
    EXPECT_EQ(base::load<uint64_t>(reply.data() + 32), want) << region;
  }
  EXPECT_EQ(error_of(send(5, join(pack(32u, 0u, 9u, 0u), Bytes(16)))), EINVAL);
  for (uint32_t irq = 0; irq < 5; irq++) {
    const Bytes reply = send(7, pack(16u, 0u, irq, 0u));
    ASSERT_EQ(reply.size(), 32u);
    EXPECT_EQ(base::load<uint32_t>(reply.data() + 28), irq == kMsix ? 16u : 0u) << irq;
  }
  EXPECT_EQ(error_of(send(7, pack(16u, 0u, 5u, 0u))), EINVAL);
  EXPECT_EQ(error_of(send(16, Bytes(8))), ENOTSUP);
}

TEST_F(VfioUserDeviceTest, RegistersAreReadAndWrittenWhole) {
  controller.registers[0x39640] = 0x0040000c;
  EXPECT_EQ(read<uint32_t>(kBar, 0x39640), 0x0040000cu);
  EXPECT_EQ(error_of(write<uint32_t>(kBar, 8, 0x00050000)), 0);
  EXPECT_EQ(controller.writes.back(), std::pair(8u, 0x00050000u));
  (void)write<uint64_t>(kBar, 0, 0x1122334455667788);
  EXPECT_EQ(controller.registers[0], 0x55667788u);
  EXPECT_EQ(controller.registers[4], 0x11223344u);
  const size_t before = controller.writes.size();
  EXPECT_EQ(error_of(write<uint16_t>(kBar, 8, 1)), EINVAL);
  EXPECT_EQ(error_of(write<uint32_t>(kBar, 6, 1)), EINVAL);
  EXPECT_EQ(error_of(write<uint32_t>(kBar, 0x80000, 1)), EINVAL);
  EXPECT_EQ(error_of(write<uint32_t>(kBar, ~uint64_t{3}, 1)), EINVAL);
  EXPECT_EQ(error_of(write<uint64_t>(kConfig, 4092, 1)), EINVAL);
  EXPECT_EQ(error_of(write<uint32_t>(3, 0, 1)), EINVAL);
  EXPECT_EQ(controller.writes.size(), before);
}

TEST_F(VfioUserDeviceTest, PostedWritesGetNoReply) {
  EXPECT_TRUE(write<uint32_t>(kBar, 0x38200, 1, kFlagNoReply).empty());
  EXPECT_TRUE(status);
  EXPECT_EQ(controller.registers[0x38200], 1u);
  EXPECT_TRUE(write<uint16_t>(kBar, 0x38200, 1, kFlagNoReply).empty()) << "nor does an error";
}

TEST_F(VfioUserDeviceTest, ABarThatIsOffAnswersAllOnes) {
  (void)write<uint16_t>(kConfig, kCommandRegister, kBusMasterOn);
  controller.reads.clear();
  EXPECT_EQ(read<uint32_t>(kBar, 0x39640), ~0u);
  (void)write<uint32_t>(kBar, 0x38200, 1);
  EXPECT_TRUE(controller.reads.empty());
  EXPECT_EQ(controller.registers.count(0x38200), 0u);
}

TEST_F(VfioUserDeviceTest, OnlyABusMasterReachesMemory) {
  const auto memory = make_guest_memory(4096);
  std::vector<sys::UniqueFd> fds;
  fds.push_back(dup_of(memory));
  EXPECT_EQ(error_of(map_page(0x1000, std::move(fds))), 0);
  EXPECT_NE(device.find(0x1000, 4096, Reach::kWrite), nullptr);
  const int before = memory_changes;
  (void)write<uint16_t>(kConfig, kCommandRegister, kMemoryOn);
  EXPECT_EQ(device.find(0x1000, 4096, Reach::kWrite), nullptr);
  EXPECT_EQ(memory_changes, before + 1);
  (void)write<uint16_t>(kConfig, kCommandRegister, kMemoryOn | kBusMasterOn);
  EXPECT_NE(device.find(0x1000, 4096, Reach::kWrite), nullptr);
  const Bytes reply = send(3, pack(24u, 0u, uint64_t{0x1000}, uint64_t{4096}));
  EXPECT_EQ(base::load<uint64_t>(reply.data() + 24), 0x1000u);
  EXPECT_EQ(device.find(0x1000, 4096, Reach::kWrite), nullptr);
  EXPECT_EQ(memory_changes, before + 3);
}

TEST_F(VfioUserDeviceTest, EveryVectorHasItsOwnDescriptor) {
  arm(0, 8);
  arm(8, 8);  // descriptors come in several messages
  device.fire(3);
  device.fire(15);
  device.fire(16);
  for (uint32_t v = 0; v < 16; v++) EXPECT_EQ(fired(v), v == 3 || v == 15 ? 1u : 0u) << v;
  EXPECT_EQ(error_of(send(8, pack(20u, kTriggerFds, kMsix, 3u, 1u))), 0) << "takes one away";
  device.fire(3);
  EXPECT_EQ(fired(3), 0u);
  EXPECT_EQ(read<uint32_t>(kBar, 0x7f000), 1u << 3) << "it is pending";
  arm(3, 1);
  EXPECT_EQ(fired(3), 1u) << "and is delivered later";
  EXPECT_EQ(read<uint32_t>(kBar, 0x7f000), 0u);
  EXPECT_EQ(error_of(send(8, pack(20u, 1u << 5 | 1u, kMsix, 0u, 0u))), 0) << "all off";
  device.fire(15);
  EXPECT_EQ(fired(15), 0u);
}

TEST_F(VfioUserDeviceTest, WithoutBusMasteringNoInterruptLeaves) {
  arm(0, 1);
  (void)write<uint16_t>(kConfig, kCommandRegister, kMemoryOn);
  device.fire(0);
  EXPECT_EQ(fired(0), 0u);
}

TEST_F(VfioUserDeviceTest, VectorsOutOfRangeAreRefused) {
  for (const auto& [index, start, count] : {std::tuple{kMsix, 16u, 1u},
                                            {kMsix, 0u, 17u},
                                            {kMsix, ~0u, 2u},
                                            {0u, 0u, 1u},
                                            {9u, 0u, 1u}}) {
    EXPECT_EQ(error_of(send(8, pack(20u, 1u << 5 | 1u, index, start, count))), EINVAL) << start;
  }
  EXPECT_EQ(error_of(send(8, pack(20u, 1u << 3 | 1u, kMsix, 0u, 1u))), EINVAL) << "mask";
}

TEST_F(VfioUserDeviceTest, DescriptorsThatDisagreeEndTheConversation) {
  std::vector<sys::UniqueFd> two;
  two.push_back(std::move(*sys::make_eventfd()));
  two.push_back(std::move(*sys::make_eventfd()));
  EXPECT_TRUE(send(8, pack(20u, kTriggerFds, kMsix, 0u, 3u), std::move(two)).empty());
  EXPECT_EQ(status.code(), EPROTO);
  two.clear();
  two.push_back(make_guest_memory(4096));
  two.push_back(make_guest_memory(4096));
  EXPECT_TRUE(map_page(0, std::move(two)).empty());
  EXPECT_EQ(status.code(), EPROTO);
}

TEST_F(VfioUserDeviceTest, ResetsForgetWhatTheDriverSet) {
  for (const bool function_level : {false, true}) {
    (void)write<uint16_t>(kConfig, kCommandRegister, kMemoryOn | kBusMasterOn);
    controller.writes.clear();
    const Bytes reply = function_level ? write<uint16_t>(kConfig, 0x68, 1u << 15) : send(13, {});
    EXPECT_EQ(error_of(reply), 0);
    const auto resets = [&](uint32_t reg) {
      return std::ranges::count(controller.writes, std::pair(reg, 1u));
    };
    EXPECT_EQ(resets(nhi::kRegResetV1), 1);
    EXPECT_EQ(resets(nhi::kRegResetV2), 1);
    EXPECT_EQ(read<uint16_t>(kConfig, kCommandRegister), 0);
    EXPECT_EQ(read<uint16_t>(kConfig, 0x68) >> 15, 0) << "reads as zero";
  }
}

TEST_F(VfioUserDeviceTest, VersionComesFirstAndOnce) {
  (void)send(1, pack(uint16_t{0}, uint16_t{1}));
  EXPECT_EQ(status.code(), EPROTO);
  device.disconnect();
  (void)send(4, pack(16u, 0u, 0u, 0u));
  EXPECT_EQ(status.code(), EPROTO);
  (void)send(1, pack(uint16_t{1}, uint16_t{0}));
  EXPECT_EQ(status.code(), EPROTO) << "another major version";
  EXPECT_FALSE(send(1, pack(uint16_t{0}, uint16_t{0})).empty());
}

TEST_F(VfioUserDeviceTest, NothingOfAMachineThatHasGoneIsKept) {
  arm(0, 1);
  const auto memory = make_guest_memory(4096);
  std::vector<sys::UniqueFd> fds;
  fds.push_back(dup_of(memory));
  (void)map_page(0, std::move(fds));
  device.disconnect();
  EXPECT_EQ(device.memory().pieces(), 0u);
  device.fire(0);
  EXPECT_EQ(fired(0), 0u);
}

// ---- the byte stream

class VfioUserConnectionTest : public VfioUserDeviceTest {
 protected:
  VfioUserConnectionTest() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    machine.reset(pair[0]);
    connection = std::make_unique<VfioUserConnection>(sys::UniqueFd(pair[1]), device);
  }
  void give(const Bytes& bytes, std::span<const int> fds = {}) {
    EXPECT_TRUE(sys::send_bytes(machine.get(), bytes, fds, 0));
  }
  Bytes take() {
    Bytes bytes(8192);
    std::vector<sys::UniqueFd> fds;
    const auto n = sys::receive_bytes(machine.get(), bytes, fds);
    bytes.resize(n ? n.value() : 0);
    return bytes;
  }

  sys::UniqueFd machine;
  std::unique_ptr<VfioUserConnection> connection;
};

TEST_F(VfioUserConnectionTest, MessagesMayComeInAnyPieces) {
  const Bytes message = join(header_bytes(4, 16), pack(16u, 0u, 0u, 0u));
  Bytes three = join(join(message, message), message);
  for (const std::byte b : three) {
    give({b});
    EXPECT_TRUE(connection->serve());
  }
  EXPECT_EQ(take().size(), 3 * 32u);
  give(three);
  EXPECT_TRUE(connection->serve());
  EXPECT_EQ(take().size(), 3 * 32u);
}

TEST_F(VfioUserConnectionTest, DescriptorsBelongToTheirMessage) {
  const auto memory = make_guest_memory(2 * 4096);
  const int fd = memory.get();
  const auto map = [](uint64_t iova) {
    return join(header_bytes(2, 32), pack(32u, 3u, uint64_t{0}, iova, uint64_t{4096}));
  };
  give(map(0));
  give(map(0x1000), {&fd, 1});
  give(map(0x2000));
  EXPECT_TRUE(connection->serve());
  EXPECT_EQ(device.find(0, 1, Reach::kWrite), nullptr);
  EXPECT_NE(device.find(0x1000, 1, Reach::kWrite), nullptr);
  EXPECT_EQ(device.find(0x2000, 1, Reach::kWrite), nullptr);
}

TEST_F(VfioUserConnectionTest, NonsenseAndFarewellEndIt) {
  give(header_bytes(4, static_cast<size_t>(-1)));
  EXPECT_EQ(connection->serve().error().code(), EPROTO);
  connection = std::make_unique<VfioUserConnection>(std::move(machine), device);
  EXPECT_EQ(connection->serve().error().code(), EPIPE);
}

TEST(ControlTrace, ALineShowsDwordsAsTheyAreOnTheWire) {
  const Bytes bytes = pack(base::to_big(0x01020304u), base::to_big(0xaabbccddu));
  EXPECT_EQ(trace_line(1'000'002'000, {true, 2, bytes}), "1.000002 tx pdf 2 01020304 aabbccdd");
  EXPECT_EQ(trace_line(12'345'678'999, {false, 5, std::span(bytes).first(4)}),
            "12.345678 rx pdf 5 01020304");
}

}  // namespace
}  // namespace tbt::rail::emulated::test
