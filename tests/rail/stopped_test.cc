// A process may be stopped (SIGSTOP, a debugger, a frozen group) while it holds a lock of the
// host's rings. The others find the ring full, see to their timers and to other rails, and nothing
// is lost when it goes on.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

constexpr unsigned kHangSeconds =
    20;  // then the test is killed: somebody waits for the stopped one
constexpr int64_t kSoonNs = 500 * 1000 * 1000;

// Does `begin`, is stopped, and does `end` when it is told to go on.
class StoppedProcess {
 public:
  StoppedProcess(const std::function<void()>& begin, const std::function<void()>& end) {
    pid_ = fork();
    if (pid_ == 0) {
      begin();
      raise(SIGSTOP);
      end();
      _exit(0);
    }
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
  }
  ~StoppedProcess() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
  }
  void go_on() {
    int status = 0;
    kill(pid_, SIGCONT);
    waitpid(pid_, &status, 0);
    pid_ = -1;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }

 private:
  pid_t pid_ = -1;
};

class Stopped : public ::testing::Test {
 protected:
  Stopped() { alarm(kHangSeconds); }
  ~Stopped() override { alarm(0); }

  static int64_t time_of(const std::function<void()>& action) {
    const int64_t begin = sys::monotonic_now().ns;
    action();
    return sys::monotonic_now().ns - begin;
  }

  RailState& state() { return RailMemory::rail(*world_.memories[0], 0); }

  World world_;
  std::unique_ptr<Rail> daemon_ = world_.open(0, kDaemonSlot);
  std::unique_ptr<Rail> far_ = world_.open(1, 1);
};

TEST_F(Stopped, InTheMiddleOfSendingLooksLikeAFullRing) {
  auto sender = world_.open(0, 1);
  std::byte* buffer = nullptr;
  StoppedProcess stopped(
      [&] {
        if (sender->tx_begin({&buffer, 1}) != 1) _exit(1);
        fill(buffer, 1, 7, 64);
      },
      [&] {
        const TxFrame frame = whole(64);
        sender->tx_commit({&frame, 1});
      });
  EXPECT_LT(time_of([&] { EXPECT_FALSE(send(*daemon_, 1, 8)); }), kSoonNs);
  EXPECT_LT(time_of([&] { EXPECT_FALSE(send(*daemon_, 1, 8)); }), kSoonNs);
  EXPECT_FALSE(daemon_->reclaim(2));
  stopped.go_on();
  EXPECT_TRUE(send(*daemon_, 1, 9));
  EXPECT_TRUE(daemon_->reclaim(2));
  EXPECT_EQ(receive(*far_), (std::vector<uint32_t>{7, 9}));
}

TEST_F(Stopped, InTheMiddleOfReceivingKeepsTheDaemonFromReclaimingOnly) {
  auto to_us = world_.open(1, 2);
  StoppedProcess stopped([&] { static_cast<void>(state().rx.lock.lock()); },
                         [&] { state().rx.lock.unlock(); });
  EXPECT_TRUE(send(*to_us, kDaemonSlot, 5));
  EXPECT_LT(time_of([&] { EXPECT_TRUE(receive(*daemon_).empty()); }), kSoonNs);
  EXPECT_LT(time_of([&] { EXPECT_FALSE(daemon_->reclaim(2)); }), kSoonNs);
  EXPECT_TRUE(send(*daemon_, 1, 6));
  stopped.go_on();
  EXPECT_TRUE(daemon_->reclaim(2));
  EXPECT_EQ(receive(*daemon_), std::vector<uint32_t>{5});
  EXPECT_EQ(receive(*far_), std::vector<uint32_t>{6});
}

TEST_F(Stopped, InTheMiddleOfArmingLeavesTheOthersPolling) {
  sys::RobustLock& lock = RailMemory::header(*world_.memories[0]).interrupt_lock;
  StoppedProcess stopped([&] { static_cast<void>(lock.lock()); }, [&] { lock.unlock(); });
  EXPECT_TRUE(receive(*daemon_).empty());  // polls: the interrupt is off
  EXPECT_LT(time_of([&] { EXPECT_FALSE(daemon_->arm()); }), kSoonNs);
  stopped.go_on();
  EXPECT_TRUE(daemon_->arm());
}

TEST_F(Stopped, OnTheLoopbackLooksLikeAFullOne) {
  auto sender = world_.open_loopback(0, 1);
  auto receiver = world_.open_loopback(0, 2);
  std::byte* buffer = nullptr;
  StoppedProcess stopped(
      [&] {
        if (sender->tx_begin({&buffer, 1}) != 1) _exit(1);
        fill(buffer, 2, 3, 64);
      },
      [&] {
        const TxFrame frame = whole(64);
        sender->tx_commit({&frame, 1});
      });
  EXPECT_LT(time_of([&] { EXPECT_FALSE(send(*receiver, 2, 4)); }), kSoonNs);
  EXPECT_FALSE(receiver->reclaim(3));
  stopped.go_on();
  EXPECT_TRUE(send(*receiver, 2, 4));
  EXPECT_EQ(receive(*receiver), (std::vector<uint32_t>{3, 4}));
}

}  // namespace
}  // namespace tbt::rail::test
