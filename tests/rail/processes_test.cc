// Two and more real processes: traffic over a cable, and sleeping and waking without a lost
// wake-up.
#include <poll.h>
#include <sys/wait.h>

#include <csignal>
#include <thread>

#include "world.h"

namespace tbt::rail::test {
namespace {

// Runs `child` in a process of its own; its result is the exit code. Killed with the test if that
// ends early.
class Child {
 public:
  template <typename F>
  explicit Child(F run) : pid_(fork()) {
    if (pid_ == 0) _exit(run());
  }
  ~Child() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
  }
  int join() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  }

 private:
  pid_t pid_;
};

WorldConfig large() {
  WorldConfig c;
  c.host = {.cables = 1, .ring_entries = 64, .rx_buffers = 192};
  return c;
}

int receive_in_order(Rail& rail, uint32_t count) {
  uint32_t expected = 0;
  while (expected < count) {
    const auto numbers = receive(rail);
    if (numbers.empty()) sched_yield();
    for (const uint32_t n : numbers) {
      if (n != expected++) return 1;
    }
  }
  return 0;
}

void send_in_order(Rail& rail, SlotId slot, uint32_t count) {
  for (uint32_t i = 0; i < count;) {
    if (send(rail, slot, i, 16 + i % 500)) {
      ++i;
    } else {
      sched_yield();
    }
  }
}

TEST(Processes, SendOverACableInOrderBothWays) {
  World world(large());
  constexpr uint32_t kCount = 50000;
  Child other([&] {
    auto again = world.map_again();  // at other addresses, as a process that was not forked has it
    auto rail = again->open(1, 1);
    std::thread sender([&] {
      auto out = again->open(1, 1);
      send_in_order(*out, 1, kCount);
    });
    const int result = receive_in_order(*rail, kCount);
    sender.join();
    return result;
  });
  auto rail = world.open(0, 1);
  std::thread sender([&] {
    auto out = world.open(0, 1);
    send_in_order(*out, 1, kCount);
  });
  EXPECT_EQ(receive_in_order(*rail, kCount), 0);
  sender.join();
  EXPECT_EQ(other.join(), 0);
}

TEST(Processes, ManySendersAndReceiversShareOneCable) {
  World world(large());
  constexpr uint32_t kCount = 10000;
  std::vector<std::unique_ptr<Child>> children;
  for (SlotId s = 1; s <= 4; ++s) {
    world.open(0, s);
    world.open(1, s);  // attached before the first frame comes
  }
  for (SlotId s = 1; s <= 4; ++s) {
    children.push_back(std::make_unique<Child>([&, s] {
      send_in_order(*world.open(0, s), s, kCount);
      return 0;
    }));
    children.push_back(
        std::make_unique<Child>([&, s] { return receive_in_order(*world.open(1, s), kCount); }));
  }
  for (auto& child : children) EXPECT_EQ(child->join(), 0);
}

TEST(Processes, AllTalkOverTheLoopback) {
  World world(large());
  constexpr uint32_t kCount = 20000;
  std::vector<std::unique_ptr<Child>> children;
  for (SlotId s = 1; s <= 4; ++s) world.open_loopback(0, s);
  for (SlotId s = 1; s <= 4; ++s) {
    children.push_back(std::make_unique<Child>([&, s] {
      auto rail = world.open_loopback(0, s);
      const SlotId next = s == 4 ? 1 : static_cast<SlotId>(s + 1);
      uint32_t sent = 0, expected = 0;
      while (sent < kCount || expected < kCount) {
        if (sent < kCount && send(*rail, next, sent)) ++sent;
        const auto numbers = receive(*rail);
        for (const uint32_t n : numbers) {
          if (n != expected++) return 1;
        }
        if (numbers.empty()) sched_yield();
      }
      return 0;
    }));
  }
  for (auto& child : children) EXPECT_EQ(child->join(), 0);
}

// Sleeps until a packet is there, as device/ does: announce, arm, look, sleep. Returns false after
// 30 s.
bool sleep_for_packet(World& world, uint32_t host, SlotId slot, Rail& rail) {
  HostMemory& memory = *world.memories[host];
  for (;;) {
    const uint32_t seen = memory.prepare_sleep(slot);
    if (!rail.arm()) {
      memory.cancel_sleep(slot);
      return true;
    }
    const auto begin = std::chrono::steady_clock::now();
    memory.sleep(slot, seen, int64_t{30} * 1000 * 1000 * 1000);
    rail.disarm();
    if (rail.rx_pending()) return true;
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(29)) return false;
  }
}

// Every round both sides fall asleep and are woken by the other: 10^5 chances to lose a wake-up,
// each of which would take 30 s and fail.
int sleeping_ping_pong(World& world, uint32_t host, Rail& rail, uint32_t rounds, bool first) {
  for (uint32_t i = 0; i < rounds; ++i) {
    if (first && !send(rail, 1, i)) return 1;
    if (!sleep_for_packet(world, host, 1, rail)) return 2;
    const auto numbers = receive(rail);
    if (numbers.size() != 1 || numbers[0] != i) return 3;
    if (!first && !send(rail, 1, i)) return 4;
  }
  return 0;
}

TEST(Processes, NoWakeUpIsLostOverACable) {
  for (const bool intel : {true, false}) {
    WorldConfig c = large();
    c.fabric.amd = intel ? 0 : ~0u;
    World world(c);
    constexpr uint32_t kRounds = 50000;
    Child other([&] { return sleeping_ping_pong(world, 1, *world.open(1, 1), kRounds, false); });
    EXPECT_EQ(sleeping_ping_pong(world, 0, *world.open(0, 1), kRounds, true), 0);
    EXPECT_EQ(other.join(), 0);
  }
}

TEST(Processes, NoWakeUpIsLostOverTheLoopback) {
  World world(large());
  constexpr uint32_t kRounds = 30000;
  const auto play = [&](SlotId slot, bool first) {
    auto rail = world.open_loopback(0, slot);
    const auto peer = static_cast<SlotId>(3 - slot);
    for (uint32_t i = 0; i < kRounds; ++i) {
      if (first && !send(*rail, peer, i)) return 1;
      if (!sleep_for_packet(world, 0, slot, *rail)) return 2;
      const auto numbers = receive(*rail);
      if (numbers.size() != 1 || numbers[0] != i) return 3;
      if (!first && !send(*rail, peer, i)) return 4;
    }
    return 0;
  };
  world.open_loopback(0, 1);
  world.open_loopback(0, 2);
  Child other([&] { return play(2, false); });
  EXPECT_EQ(play(1, true), 0);
  EXPECT_EQ(other.join(), 0);
}

// Three sleepers on one host, frames for any of them: whoever is woken passes on what is not its
// own.
TEST(Processes, NoWakeUpIsLostAmongManySleepers) {
  World world(large());
  constexpr uint32_t kRounds = 10000;
  std::vector<std::unique_ptr<Child>> children;
  for (SlotId s = 1; s <= 3; ++s) world.open(1, s);
  for (SlotId s = 1; s <= 3; ++s) {
    children.push_back(std::make_unique<Child>([&, s] {
      auto rail = world.open(1, s);
      for (uint32_t i = 0; i < kRounds;) {
        if (!sleep_for_packet(world, 1, s, *rail)) return 2;
        for (const uint32_t n : receive(*rail)) {
          if (n != i++) return 3;
          while (!send(*rail, 1, n)) sched_yield();
        }
      }
      return 0;
    }));
  }
  auto rail = world.open(0, 1);
  uint32_t answers = 0;
  for (uint32_t i = 0; i < kRounds; ++i) {
    const auto order = static_cast<SlotId>(i % 3);
    for (SlotId k = 0; k < 3; ++k) {
      ASSERT_TRUE(send(*rail, static_cast<SlotId>(1 + (order + k) % 3), i));
    }
    const auto begin = std::chrono::steady_clock::now();
    for (answers = 0; answers < 3;) {
      answers += static_cast<uint32_t>(receive(*rail).size());
      if (answers < 3) sched_yield();
      ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(25))
          << "round " << i;
    }
  }
  for (auto& child : children) EXPECT_EQ(child->join(), 0);
}

// The daemon sleeps on its descriptor.
TEST(Processes, TheDaemonIsWokenWhenNobodyElseIsThere) {
  World world(large());
  constexpr uint32_t kRounds = 20000;
  auto daemon = open_nhi_rail(*world.memories[1], 0, *world.devices[1], kDaemonSlot, classify);
  Child sender([&] {
    auto rail = world.open(0, 1);
    for (uint32_t i = 0; i < kRounds; ++i) {
      while (!send(*rail, kDaemonSlot, i)) sched_yield();
      while (receive(*rail).empty()) sched_yield();
    }
    return 0;
  });
  world.open(0, 1);
  for (uint32_t i = 0; i < kRounds;) {
    world.memories[1]->prepare_sleep(kDaemonSlot);
    if (daemon->arm()) {
      pollfd p{world.interrupts[1].get(), POLLIN, 0};
      ASSERT_EQ(poll(&p, 1, 30000), 1) << "lost in round " << i;
      sys::drain_eventfd(p.fd);
      daemon->disarm();
    }
    world.memories[1]->cancel_sleep(kDaemonSlot);
    for (const uint32_t n : receive(*daemon)) {
      ASSERT_EQ(n, i++);
      ASSERT_TRUE(send(*daemon, 1, n));
    }
  }
  EXPECT_EQ(sender.join(), 0);
}

}  // namespace
}  // namespace tbt::rail::test
