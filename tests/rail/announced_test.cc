// A frame that is found without its interrupt is counted as stranded, and only such a one: somebody
// sends on another processor, and the receiver looks at every moment.
#include <atomic>
#include <thread>

#include "sys/barrier.h"
#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

constexpr uint32_t kFrames = 5000;
constexpr int64_t kLongestNs = 2'000'000'000;  // where both threads share a processor

// With a latency the frame is brought out by whoever looks first.
class Announced : public ::testing::TestWithParam<int64_t> {
 protected:
  static WorldConfig config() {
    WorldConfig c;
    c.fabric.params.resize(1);
    c.fabric.params[0].latency_ns = GetParam();
    return c;
  }
  // Sends one frame each time that it is asked.
  void send_when_asked() {
    for (uint32_t n = 1;; ++n) {
      while (asked_.load() < n) {
        if (stop_) return;
        std::this_thread::yield();
      }
      while (!send(*a_, 1, n)) {
      }
      while (GetParam() != 0 && taken_.load() < n) a_->advance(sys::monotonic_now().ns);
    }
  }

  World world_{config()};
  std::unique_ptr<Rail> a_ = world_.open(0, 1), b_ = world_.open(1, 1);
  // Of the receiver, for frame `n`.
  [[nodiscard]] bool goes_on(uint32_t n) const {
    return n <= kFrames && sys::monotonic_now().ns < end_ns_;
  }
  void join(std::thread& sender) {
    stop_ = true;
    sender.join();
  }

  const int64_t end_ns_ = sys::monotonic_now().ns + kLongestNs;
  std::atomic<uint32_t> asked_{0}, taken_{0};
  std::atomic<bool> stop_{false};
};

TEST_P(Announced, APollerThatIsFasterThanTheInterruptFindsItsStatus) {
  std::thread sender([this] { send_when_asked(); });
  for (uint32_t n = 1; goes_on(n); ++n) {
    EXPECT_TRUE(b_->arm());
    asked_ = n;
    while (!b_->rx_pending()) sys::cpu_relax();
    b_->disarm();
    while (receive(*b_).empty()) {
    }
    taken_ = n;
  }
  join(sender);
  EXPECT_EQ(b_->stats().stranded, 0u);
  EXPECT_EQ(b_->stats().interrupts, taken_);
}

TEST_P(Announced, AFrameThatComesWhileSomebodyBeginsToPollIsNotStranded) {
  std::thread sender([this] { send_when_asked(); });
  for (uint32_t n = 1; goes_on(n); ++n) {
    EXPECT_TRUE(b_->arm());
    asked_ = n;
    for (uint32_t i = 0; i < n % 64; ++i) sys::cpu_relax();
    b_->disarm();
    while (receive(*b_).empty()) {
    }
    taken_ = n;
  }
  join(sender);
  EXPECT_EQ(b_->stats().stranded, 0u);
}

INSTANTIATE_TEST_SUITE_P(Cables, Announced, ::testing::Values(0, 1000));

}  // namespace
}  // namespace tbt::rail::test
