// The keeper: whom it replaces, and what the next daemon is given. The daemons here are functions
// that tell the test by shared memory what they have found.
#include "tbtd/keeper.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

namespace tbt::daemon {
namespace {

struct Board {
  std::atomic<uint32_t> starts, restarts, processes, connections, hardware;
};

class KeeperTest : public ::testing::Test {
 protected:
  KeeperTest()
      : board_(static_cast<Board*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    alarm(20);
  }
  ~KeeperTest() override {
    alarm(0);
    munmap(board_, 4096);
  }

  int run(Keeper::DaemonMain daemon) {
    std::vector<sys::UniqueFd> hardware;
    hardware.emplace_back(dup(STDOUT_FILENO));
    Keeper keeper(std::move(hardware), sys::UniqueFd(dup(STDIN_FILENO)), [&](Inheritance all) {
      board_->starts++;
      board_->restarts = all.restarts;
      board_->processes = static_cast<uint32_t>(all.processes.size());
      board_->hardware = static_cast<uint32_t>(all.hardware.size());
      return daemon(std::move(all));
    });
    const int code = keeper.run();
    sigset_t none;  // the keeper's mask is this process's
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    return code;
  }

  static int be_killed() {
    raise(SIGKILL);
    return 0;
  }

  Board* board_;
};

TEST_F(KeeperTest, ADaemonThatEndsByItselfIsNotReplaced) {
  EXPECT_EQ(run([](Inheritance all) {
              all.keeper.ready();
              return 7;
            }),
            7);
  EXPECT_EQ(board_->starts, 1u);
  EXPECT_EQ(board_->hardware, 1u);
}

TEST_F(KeeperTest, ADaemonThatWasNeverReadyIsNotReplaced) {
  EXPECT_EQ(run([](Inheritance) { return be_killed(); }), 1);
  EXPECT_EQ(board_->starts, 1u);
}

TEST_F(KeeperTest, TheNextDaemonIsGivenWhatTheKilledOneKept) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
  const auto daemon = [&](Inheritance all) {
    if (all.restarts == 0) {
      for (const rail::SlotId slot : {3, 4, 5}) all.keeper.keep(slot, ends[0], -1);
      all.keeper.drop(4);
      all.keeper.keep(5, ends[0], ends[0]);  // the slot's next owner
      all.keeper.ready();
      return be_killed();
    }
    const bool alone = !all.processes[3].process && all.processes[5].process;
    const bool right = all.processes.size() == 2 && alone && all.hardware.size() == 1 &&
                       all.listener && all.last_slot == 5;
    // The connection is the same one: what is written to it arrives.
    const int socket = all.processes[3].connection.get();
    return right && write(socket, "x", 1) == 1 ? 0 : 1;
  };
  EXPECT_EQ(run(daemon), 0);
  EXPECT_EQ(board_->starts, 2u);
  EXPECT_EQ(board_->restarts, 1u);
  char byte = 0;
  EXPECT_EQ(recv(ends[1], &byte, 1, MSG_DONTWAIT), 1);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(KeeperTest, WhoIsKilledAgainAndAgainIsGivenUp) {
  EXPECT_EQ(run([](Inheritance all) {
              all.keeper.ready();
              return be_killed();
            }),
            1);
  EXPECT_EQ(board_->starts, static_cast<uint32_t>(kKeeperQuickDeaths));
}

// What it goes on with is still there.
TEST_F(KeeperTest, WhoIsKilledWhileItGoesOnForAnotherIsReplaced) {
  const auto daemon = [](Inheritance all) {
    if (all.restarts == 0) all.keeper.ready();
    return all.restarts < 3 ? be_killed() : 0;
  };
  EXPECT_EQ(run(daemon), 0);
  EXPECT_EQ(board_->starts, 4u);
}

TEST_F(KeeperTest, WhoIsNeverReadyAgainIsGivenUp) {
  EXPECT_EQ(run([](Inheritance all) {
              if (all.restarts == 0) all.keeper.ready();
              return be_killed();
            }),
            1);
  EXPECT_EQ(board_->starts, static_cast<uint32_t>(kKeeperQuickDeaths));
}

TEST_F(KeeperTest, ASignalToEndIsPassedOnAndNobodyFollows) {
  const auto daemon = [](Inheritance all) {
    all.keeper.ready();
    kill(getppid(), SIGTERM);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    int signal = 0;
    sigwait(&ends, &signal);  // the keeper's, and blocked as the daemon finds it
    return be_killed();
  };
  EXPECT_EQ(run(daemon), 1);
  EXPECT_EQ(board_->starts, 1u);
}

}  // namespace
}  // namespace tbt::daemon
