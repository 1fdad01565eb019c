// The event queue alone, under signals and with many threads.
#include "provider/event_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace tbt::provider {
namespace {

struct Event {
  int id = 0;
  std::atomic<int>* taken_count = nullptr;
  void taken() const noexcept {
    if (taken_count != nullptr) ++*taken_count;
  }
};

bool readable(int fd) {
  pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&p, 1, 0) == 1;
}

TEST(EventQueue, EventsComeInOrderAndCountWhenTaken) {
  EventQueue<Event> queue;
  ASSERT_TRUE(queue.open());
  std::atomic<int> taken = 0;
  for (int i = 0; i < 3; ++i) queue.push({i, &taken});
  Event event;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(readable(queue.fd()));
    ASSERT_TRUE(queue.pop(event));
    EXPECT_EQ(event.id, i);
  }
  EXPECT_EQ(taken, 3);
  EXPECT_FALSE(readable(queue.fd()));
}

TEST(EventQueue, PurgeTakesTokensWithEvents) {
  EventQueue<Event> queue;
  ASSERT_TRUE(queue.open());
  for (int i = 0; i < 10; ++i) queue.push({i, nullptr});
  queue.purge([](const Event& e) { return e.id != 4; });
  Event event;
  ASSERT_TRUE(queue.pop(event));
  EXPECT_EQ(event.id, 4);
  EXPECT_FALSE(readable(queue.fd()));
}

void ignore_signal(int) {}

// C-134: a storm of signals without SA_RESTART; the reader sees EINTR, and every event exactly
// once.
TEST(EventQueue, SignalsLoseAndDoubleNothing) {
  constexpr int kEvents = 20000;
  EventQueue<Event> queue;
  ASSERT_TRUE(queue.open());
  struct sigaction action {};
  action.sa_handler = ignore_signal;
  struct sigaction before {};
  sigaction(SIGALRM, &action, &before);
  const itimerval storm{.it_interval = {0, 1000}, .it_value = {0, 1000}};
  setitimer(ITIMER_REAL, &storm, nullptr);
  std::thread writer([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    for (int i = 0; i < kEvents; ++i) queue.push({i, nullptr});
  });
  Event event;
  for (int expected = 0; expected < kEvents;) {
    if (queue.pop(event)) {
      ASSERT_EQ(event.id, expected++);
    } else {
      ASSERT_EQ(errno, EINTR);
    }
  }
  writer.join();
  const itimerval calm{};
  setitimer(ITIMER_REAL, &calm, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  EXPECT_FALSE(readable(queue.fd()));
}

// Readers, writers and purges at once. An event is either read or purged, never both, and no token
// is left.
TEST(EventQueue, ConcurrentReadersAndPurgesKeepTheBooks) {
  constexpr int kWriters = 2;
  constexpr int kEach = 5000;
  EventQueue<Event> queue;
  ASSERT_TRUE(queue.open());
  std::atomic<int> taken = 0;
  std::atomic<int> purged = 0;
  std::atomic<bool> done = false;
  const auto purge_odd = [&] {
    queue.purge([&](const Event& e) {
      if (e.id % 2 == 0) return false;
      ++purged;
      return true;
    });
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      Event event;
      while (queue.pop(event) && event.id >= 0) {
      }
    });
  }
  std::thread purger([&] {
    while (!done) {
      purge_odd();
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&] {
      for (int id = 0; id < kEach; ++id) queue.push({id, &taken});
    });
  }
  for (auto& writer : writers) writer.join();
  done = true;
  purger.join();
  for (size_t i = 0; i < readers.size(); ++i) queue.push({-1, nullptr});
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(taken + purged, kWriters * kEach);
  EXPECT_FALSE(readable(queue.fd()));
}

}  // namespace
}  // namespace tbt::provider
