// A watchdog that finds frames lying must not become the DMA engine of a busy sender: it moves some
// and leaves.
#include <sys/mman.h>

#include "rail/emulated/silicon.h"
#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using emulated::FabricSilicon;

constexpr uint32_t kWaiting = 3000;  // frames; a sweep moves 1024 of them

// The silicon of a fabric, as the processes share it.
class Silicon {
 public:
  explicit Silicon(const emulated::EmulatedFabric& fabric) {
    at_ =
        ::mmap(nullptr, sizeof(FabricSilicon), PROT_READ | PROT_WRITE, MAP_SHARED, fabric.fd(), 0);
    EXPECT_NE(at_, MAP_FAILED);
  }
  ~Silicon() { ::munmap(at_, sizeof(FabricSilicon)); }
  FabricSilicon* operator->() const { return static_cast<FabricSilicon*>(at_); }

 private:
  void* at_;
};

TEST(BoundedRun, ASweepLeavesABusySenderAlone) {
  WorldConfig config;
  config.host = {.cables = 1, .ring_entries = 4096, .rx_buffers = 8192};
  World world(config);
  auto a = world.open(0, 1);
  auto b = world.open(1, 1);
  Silicon silicon(*world.fabric);
  auto& flow = silicon->flows[0][1];

  // Somebody else is at work in the engine for as long as the doorbells ring.
  ASSERT_EQ(flow.lock.try_lock(), sys::LockOutcome::kTaken);
  for (uint32_t i = 0; i < kWaiting; ++i) ASSERT_TRUE(send(*a, 1, i));
  flow.lock.unlock();
  ASSERT_TRUE(receive(*b).empty()) << "the frames were to wait";

  std::vector<size_t> sweeps;
  uint32_t next = 0;
  int64_t now = sys::monotonic_now().ns;
  while (next < kWaiting && sweeps.size() < 10) {
    now += 1'000'000'000;
    world.devices[0]->advance(now);
    const uint32_t before = next;
    for (auto n = receive(*b, 256); !n.empty(); n = receive(*b, 256)) {
      for (const uint32_t number : n) ASSERT_EQ(number, next++);
    }
    sweeps.push_back(next - before);
  }
  EXPECT_EQ(sweeps, (std::vector<size_t>{1024, 1024, kWaiting - 2 * 1024}));
}

}  // namespace
}  // namespace tbt::rail::test
