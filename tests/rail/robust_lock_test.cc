// The robust lock: exclusion, and what happens when its holder dies.
#include "sys/robust_lock.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>
#include <vector>

namespace tbt::sys {
namespace {

struct Shared {
  RobustLock lock;
  std::atomic<uint32_t> step;
  uint64_t guarded;  // only under the lock
};

class RobustLockTest : public ::testing::Test {
 protected:
  RobustLockTest()
      : shared_(static_cast<Shared*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~RobustLockTest() override { munmap(shared_, 4096); }

  // A process that takes the lock and never gives it back; returns its pid once it has it.
  pid_t holder() {
    const uint32_t before = shared_->step;
    const pid_t pid = fork();
    if (pid == 0) {
      static_cast<void>(shared_->lock.lock());
      ++shared_->step;
      for (;;) pause();
    }
    while (shared_->step == before) usleep(100);
    return pid;
  }

  Shared* shared_;
};

TEST_F(RobustLockTest, IsWaitedForOnlyAsLongAsWanted) {
  EXPECT_EQ(shared_->lock.lock_within(0), LockOutcome::kTaken);
  EXPECT_EQ(shared_->lock.lock_within(3'000'000), LockOutcome::kBusy) << "we live";
  shared_->lock.unlock();
  const pid_t pid = holder();
  EXPECT_EQ(shared_->lock.lock_within(3'000'000), LockOutcome::kBusy);
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(shared_->lock.lock_within(3'000'000), LockOutcome::kOwnerDied);
}

TEST_F(RobustLockTest, IsTakenOnceAtATime) {
  EXPECT_EQ(shared_->lock.try_lock(), LockOutcome::kTaken);
  EXPECT_EQ(shared_->lock.try_lock(), LockOutcome::kBusy);
  EXPECT_EQ(shared_->lock.try_lock_or_recover(), LockOutcome::kBusy) << "we live";
  shared_->lock.unlock();
  EXPECT_EQ(shared_->lock.try_lock(), LockOutcome::kTaken);
  shared_->lock.unlock();
  EXPECT_FALSE(shared_->lock.is_locked());
}

TEST_F(RobustLockTest, ALivingHolderIsNotRobbed) {
  const pid_t pid = holder();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(shared_->lock.try_lock_or_recover(), LockOutcome::kBusy);
  kill(pid, SIGSTOP);
  EXPECT_EQ(shared_->lock.try_lock_or_recover(), LockOutcome::kBusy) << "stopped is not dead";
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST_F(RobustLockTest, TheNextOneIsToldThatTheHolderDied) {
  const pid_t pid = holder();
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(shared_->lock.try_lock(), LockOutcome::kBusy);
  EXPECT_EQ(shared_->lock.lock(), LockOutcome::kOwnerDied);
  shared_->lock.unlock();
  EXPECT_EQ(shared_->lock.lock(), LockOutcome::kTaken);
  shared_->lock.unlock();
}

TEST_F(RobustLockTest, AZombieIsDead) {
  const pid_t pid = holder();
  kill(pid, SIGKILL);
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(shared_->lock.lock(), LockOutcome::kOwnerDied);
  shared_->lock.unlock();
  waitpid(pid, nullptr, 0);
}

TEST_F(RobustLockTest, AnotherLifeOfThePidIsNotTheHolder) {
  const ProcessToken other = own_token() ^ uint64_t { 1 } << 40;  // our pid, another start time
  EXPECT_TRUE(is_alive(own_token()));
  EXPECT_FALSE(is_alive(other));
}

TEST_F(RobustLockTest, AForkedChildHasItsOwnToken) {
  const ProcessToken ours = own_token();
  const pid_t pid = fork();
  if (pid == 0)
    _exit(own_token() != ours && token_pid(own_token()) == static_cast<uint32_t>(getpid()) ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(own_token(), ours);
}

TEST_F(RobustLockTest, AWaiterGetsItWhenTheHolderDies) {
  const pid_t pid = holder();
  LockOutcome outcome = LockOutcome::kBusy;
  std::thread waiter([&] { outcome = shared_->lock.lock(); });
  usleep(20000);  // let it fall asleep
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  waiter.join();
  EXPECT_EQ(outcome, LockOutcome::kOwnerDied);
}

TEST_F(RobustLockTest, ExcludesThreadsAndProcesses) {
  constexpr int kEach = 20000;
  const auto count = [this] {
    for (int i = 0; i < kEach; ++i) {
      static_cast<void>(shared_->lock.lock());
      ++shared_->guarded;
      if (i % 1000 == 0) usleep(10);  // make the others wait long enough to sleep
      shared_->lock.unlock();
    }
  };
  const pid_t pid = fork();
  if (pid == 0) {
    count();
    _exit(0);
  }
  std::thread other(count);
  count();
  other.join();
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(shared_->guarded, 3u * kEach);
}

}  // namespace
}  // namespace tbt::sys
