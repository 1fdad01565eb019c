// Processes by pid and start time.
#include "sys/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tbt::sys {
namespace {

// A child that waits for its end, under a name made to mislead whoever splits its stat line at
// spaces.
class Child {
 public:
  Child() : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_NAME, "a) Z 1 2 (");
    while (true) ::pause();
  }
  ~Child() { end(); }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(Process, IsNamedByPidAndStart) {
  const Child child;
  const auto name = name_process(child.pid());
  ASSERT_TRUE(name);
  EXPECT_EQ(name.value().pid, child.pid());
  EXPECT_GE(name.value().start_ticks, name_process(::getpid()).value().start_ticks);
  EXPECT_TRUE(open_process(name.value()));
}

TEST(Process, AnotherLifeOfAPidIsAnotherProcess) {
  const Child child;
  ProcessName name = name_process(child.pid()).value();
  name.start_ticks--;
  EXPECT_EQ(open_process(name).error().code(), ESRCH);
}

TEST(Process, AZombieIsNoProcess) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(name_process(pid).error().code(), ESRCH);
  ::waitpid(pid, nullptr, 0);
  EXPECT_EQ(name_process(pid).error().code(), ESRCH);
}

TEST(Process, ItsEndCanBeAwaited) {
  const Child child;
  const auto fd = open_pidfd(child.pid());
  ASSERT_TRUE(fd);
  EXPECT_FALSE(wait_for_exit(fd.value().get(), 1));
  ASSERT_TRUE(signal_process(fd.value().get(), SIGKILL));
  EXPECT_TRUE(wait_for_exit(fd.value().get(), 10000));
}

TEST(Process, ProgramsAreNamedWithoutTheirFolder) {
  EXPECT_EQ(program_name_of(::getpid()), "sys_test");
  EXPECT_TRUE(own_program_path().ends_with("/sys_test"));
  EXPECT_EQ(program_name_of(-1), "");
}

}  // namespace
}  // namespace tbt::sys
