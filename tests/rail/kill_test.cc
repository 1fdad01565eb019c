// Processes that share rails are killed at random instructions. Afterwards no buffer is missing, no
// lock is held, no torn frame was ever seen, and traffic goes on.
//
//     host 0: slots 1, 2, 3 ---- cable ---- host 1: slots 1, 2, 3
//
// Every worker sends to anybody and receives; slot 0 (this test, on both hosts) reclaims.
#include <sys/mman.h>
#include <sys/wait.h>

#include <csignal>
#include <random>

#include "base/rng.h"
#include "rail/buffer_pool.h"
#include "rail/nhi/nhi_rail.h"
#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

constexpr SlotId kWorkers = 3;

// Every byte from 8 on carries the low byte of the number: a mix of two frames shows.
bool is_torn(const RxFrame& frame) {
  const auto want = static_cast<std::byte>(number_of(frame) & 0xff);
  for (uint32_t i = 8; i < frame.length; ++i) {
    if (frame.data[i] != want) return true;
  }
  return false;
}

struct Tally {
  std::atomic<uint64_t> received, torn;
};

void send_something(Rail& rail, Rng& rng) {
  const auto slot = static_cast<SlotId>(rng.below(kWorkers + 1));
  const uint32_t number = static_cast<uint32_t>(rng.next());
  const uint32_t length = 8 + rng.below(200);
  if (rng.below(3) == 0) {
    const std::array<TxFrame, 2> pair{head(length), payload(8 + rng.below(600))};
    send(rail, slot, number, pair);
  } else {
    send(rail, slot, number, length);
  }
}

void receive_something(Rail& rail, Tally& tally) {
  std::array<RxPacket, 8> packets;
  const size_t n = rail.rx_burst(packets);
  for (size_t i = 0; i < n; ++i) {
    const RxPacket& p = packets[i];
    const bool parted = p.payload.data != nullptr && number_of(p.head) != number_of(p.payload);
    if (is_torn(p.head) || (p.payload.data != nullptr && is_torn(p.payload)) || parted)
      ++tally.torn;
  }
  tally.received += n;
  rail.rx_release(std::span(packets).first(n));
}

[[noreturn]] void work(World& world, uint32_t host, SlotId slot, Tally& tally, uint64_t seed) {
  Rng rng(seed);
  auto cable = world.open(host, slot);
  auto loopback = world.open_loopback(host, slot);
  for (;;) {
    for (Rail* rail : {cable.get(), loopback.get()}) {
      for (uint32_t i = rng.below(4); i > 0; --i) send_something(*rail, rng);
      rail->advance(sys::monotonic_now().ns);
      receive_something(*rail, tally);
      if (rng.below(50) == 0 && rail->arm()) rail->disarm();
    }
    if (rng.below(500) == 0) sched_yield();
  }
}

#if defined(__SANITIZE_THREAD__)
constexpr int kBatches = 4;  // ThreadSanitizer is ten times slower
#else
constexpr int kBatches = 12;
#endif

// 26 victims each. More of them by hand: TBT_KILL_BATCHES=1000.
int batches() {
  const char* text = std::getenv("TBT_KILL_BATCHES");
  return text != nullptr ? std::atoi(text) : kBatches;
}

// Over the ideal cable frames go from ring to ring; over the other one they stand on the cable in
// between. With credits in software, the controllers lose each frame that finds no buffer.
struct Link {
  int64_t latency_ns = 0;
  bool credits = false;
};

class Killing : public ::testing::TestWithParam<Link> {
 protected:
  Killing() : world_(config()) {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    tally_ = static_cast<Tally*>(page);
    for (uint32_t h = 0; h < 2; ++h) {
      cable_[h] = world_.open(h, kDaemonSlot);
      loopback_[h] = world_.open_loopback(h, kDaemonSlot);
    }
    if (GetParam().credits) use_credits();
  }
  ~Killing() override {
    for (auto& host : workers_) {
      for (pid_t pid : host) {
        if (pid > 0) kill(pid, SIGKILL), waitpid(pid, nullptr, 0);
      }
    }
    munmap(tally_, 4096);
  }

  void use_credits() {
    std::array<std::unique_ptr<nhi::NhiRail>, 2> rails;
    for (uint32_t h = 0; h < 2; ++h) {
      rails[h] = std::make_unique<nhi::NhiRail>(*world_.memories[h], 0, *world_.devices[h],
                                                kDaemonSlot, classify);
      EXPECT_TRUE(rails[h]->hold(nhi::RingFlow::kNone, 32));
    }
    for (auto& rail : rails) EXPECT_TRUE(rail->release());
    for (auto& rail : rails) EXPECT_TRUE(rail->use_credits(0x1234));
  }

  WorldConfig config() {
    WorldConfig c;
    c.host = {.cables = 1, .ring_entries = 32, .rx_buffers = 128};
    c.fabric.cables = {{0, 1, 0, 0}};
    c.fabric.params.resize(1);
    c.fabric.params[0].latency_ns = GetParam().latency_ns;
    c.fabric.e2e = !GetParam().credits;
    return c;
  }

  void start(uint32_t host, SlotId slot) {
    const uint64_t seed = ++seeds_;
    const pid_t pid = fork();
    if (pid == 0) work(world_, host, slot, *tally_, seed);
    workers_[host][slot] = pid;
  }

  void kill_and_reclaim(uint32_t host, SlotId slot) {
    int status = 0;
    kill(workers_[host][slot], SIGKILL);
    ASSERT_EQ(waitpid(workers_[host][slot], &status, 0), workers_[host][slot]);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "a worker ended by itself";
    workers_[host][slot] = 0;
    count_dead_holders(host);
    world_.memories[host]->slot(slot).state.store(SlotState::kDead);
    // False: the holder of a lock has been off its processor for a while.
    while (!cable_[host]->reclaim(slot) || !loopback_[host]->reclaim(slot)) sched_yield();
  }

  // How often a victim really held a lock: otherwise this test would prove little.
  void count_dead_holders(uint32_t host) {
    for (uint32_t r = 0; r < 2; ++r) {
      RailState& state = RailMemory::rail(*world_.memories[host], r);
      for (const sys::RobustLock* lock : {&state.tx.lock, &state.rx.lock}) {
        const uint64_t holder = lock->holder();
        dead_holders_ += holder != 0 && !sys::is_alive(holder) ? 1 : 0;
      }
    }
  }

  void drain() {
    for (uint32_t h = 0; h < 2; ++h) {
      cable_[h]->advance(sys::monotonic_now().ns);
      receive_something(*cable_[h], *tally_);
      receive_something(*loopback_[h], *tally_);
    }
  }

  // With no worker left: until what was on the cables has arrived. A cable delays by the real
  // clock, so a number of rounds would not do.
  void drain_dry() {
    Instant heard = sys::monotonic_now();
    while (sys::monotonic_now() - heard < Duration::from_ms(20)) {
      const uint64_t before = tally_->received;
      drain();
      if (tally_->received != before) heard = sys::monotonic_now();
    }
  }

  // With no worker left: every buffer is on the ring or free.
  void expect_nothing_missing() {
    drain_dry();
    for (uint32_t h = 0; h < 2; ++h) {
      HostMemory& memory = *world_.memories[h];
      for (uint32_t r = 0; r < 2; ++r) {
        RailState& state = RailMemory::rail(memory, r);
        EXPECT_FALSE(state.tx.lock.is_locked());
        EXPECT_FALSE(state.rx.lock.is_locked());
        BufferPool pool(reinterpret_cast<std::byte*>(&state), RailMemory::geometry(memory),
                        state.rx);
        const uint64_t window = state.rx.window.load();
        const auto posted = static_cast<uint32_t>(window >> 32) - static_cast<uint32_t>(window);
        EXPECT_EQ(pool.count(kMarkPosted), posted) << "host " << h << " rail " << r;
        EXPECT_LE(pool.count(kMarkKept), 1u);
        EXPECT_EQ(pool.count(kMarkFree) + posted + pool.count(kMarkKept), pool.size());
        EXPECT_GE(posted, r == 0 ? 16u : 0u);
      }
    }
  }

  void expect_traffic() {
    for (uint32_t h = 0; h < 2; ++h) {
      uint32_t got = 0;
      for (uint32_t i = 0; i < 500; ++i) {
        const int64_t until = sys::monotonic_now().ns + 1000 * 1000 * 1000;
        bool sent = false;
        do {  // the ring may be full for a moment, while frames are on their way
          sent = send(*cable_[h], kDaemonSlot, i);
          cable_[h]->advance(sys::monotonic_now().ns + GetParam().latency_ns);
          EXPECT_TRUE(receive(*cable_[h]).empty());
          for (const uint32_t n : receive(*cable_[1 - h])) ASSERT_EQ(n, got++);
        } while (!sent && sys::monotonic_now().ns < until);
        ASSERT_TRUE(sent) << "host " << h << " frame " << i;
      }
      EXPECT_EQ(got, 500u);
    }
  }

  World world_;
  Tally* tally_ = nullptr;
  std::array<std::unique_ptr<Rail>, 2> cable_, loopback_;
  std::array<std::array<pid_t, kWorkers + 1>, 2> workers_{};
  uint64_t seeds_ = 0;
  uint32_t dead_holders_ = 0;
};

TEST_P(Killing, AtRandomPointsLosesNoBufferAndNoLock) {
  Rng rng(7);
  for (int batch = 0; batch < batches(); ++batch) {
    for (uint32_t h = 0; h < 2; ++h) {
      for (SlotId s = 1; s <= kWorkers; ++s) start(h, s);
    }
    for (int i = 0; i < 20; ++i) {
      const uint64_t before = tally_->received;
      const uint32_t pause_us = 200 + rng.below(2000);
      for (uint32_t waited = 0; waited < pause_us || tally_->received == before; waited += 100) {
        ASSERT_LT(waited, 30u * 1000 * 1000) << "traffic has stopped";
        usleep(100);
        drain();
      }
      const uint32_t h = rng.below(2);
      const auto s = static_cast<SlotId>(1 + rng.below(kWorkers));
      ASSERT_NO_FATAL_FAILURE(kill_and_reclaim(h, s));
      start(h, s);
    }
    for (uint32_t h = 0; h < 2; ++h) {
      for (SlotId s = 1; s <= kWorkers; ++s) ASSERT_NO_FATAL_FAILURE(kill_and_reclaim(h, s));
    }
    expect_nothing_missing();
    ASSERT_NO_FATAL_FAILURE(expect_traffic());
    ASSERT_FALSE(HasFailure()) << "batch " << batch;
  }
  EXPECT_EQ(tally_->torn, 0u);
  EXPECT_GT(tally_->received, 1000u);
  EXPECT_GT(dead_holders_, 5u);
  std::printf("%u of %d victims held a lock; %lu packets received\n", dead_holders_, batches() * 26,
              tally_->received.load());
  // Without credits nobody loses a frame. With them only a question may find no buffer, of an end
  // that was left without an answer for so long that it has ceased to count (docs/wire.md, 7.2).
  for (uint32_t h = 0; h < 2; ++h) {
    const uint64_t questions = GetParam().credits ? cable_[1 - h]->stats().credit_requests : 0;
    EXPECT_LE(world_.fabric->counters(h).overruns, questions);
  }
  EXPECT_EQ(world_.fabric->counters(0).misuse, 0u) << world_.fabric->counters(0).last_misuse;
  EXPECT_EQ(world_.fabric->counters(1).misuse, 0u) << world_.fabric->counters(1).last_misuse;
}

INSTANTIATE_TEST_SUITE_P(OverTheIdealCable, Killing, ::testing::Values(Link{}));
INSTANTIATE_TEST_SUITE_P(OverACableWithLatency, Killing, ::testing::Values(Link{20000}));
INSTANTIATE_TEST_SUITE_P(WithCreditsInSoftware, Killing,
                         ::testing::Values(Link{0, true}, Link{20000, true}));

}  // namespace
}  // namespace tbt::rail::test
