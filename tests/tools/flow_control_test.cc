// The daemon's hand on its rails: two of them over the NHI model, with hardware whose end-to-end
// credits work, are not there or get stuck; and a process that is stopped with a rail's lock.
#include "tbtd/flow_control.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "sys/monotonic_clock.h"
#include "world.h"

namespace tbt::daemon {
namespace {

using namespace rail::test;
using wire::tb::FlowOutcome;
using wire::tb::PathFlow;

constexpr uint32_t kSession = 77;

class FlowControlTest : public ::testing::Test {
 protected:
  void make(bool e2e, bool sticks) {
    WorldConfig c;
    c.host = {.cables = 1, .ring_entries = 64, .rx_buffers = 192};
    c.fabric.e2e = e2e;
    c.fabric.e2e_sticks = sticks;
    processes_ = {};
    ends_ = {};
    world_ = std::make_unique<World>(c);
    for (uint32_t h = 0; h < 2; ++h) {
      FlowControl::Hooks hooks;
      hooks.held = [this, h](uint32_t, uint32_t session) { held_[h] = session; };
      hooks.tested = [this, h](uint32_t, uint32_t session, FlowOutcome outcome) {
        EXPECT_EQ(session, kSession);
        tested_[h] = outcome;
      };
      hooks.carries = [this, h](uint32_t) { ++carried_[h]; };
      hooks.warn = [](const std::string& text) { ADD_FAILURE() << text; };
      ends_[h] = std::make_unique<FlowControl>(*world_->memories[h], *world_->devices[h],
                                               std::move(hooks));
      processes_[h] = world_->open(h, 1);
    }
  }
  // Both ends as a daemon would, until `done` or 3 s have passed.
  bool run(const std::function<bool()>& done) {
    const Instant end = sys::monotonic_now() + Duration::from_s(3);
    while (!done() && sys::monotonic_now() < end) {
      for (uint32_t h = 0; h < 2; ++h) {
        const Instant now = sys::monotonic_now();
        processes_[h]->advance(now.ns);
        if (ends_[h]->poll_timeout() <= now) ends_[h]->turn(now);
      }
    }
    return done();
  }
  void try_hardware() {
    for (auto& end : ends_) end->hold(0, kSession);
    ASSERT_TRUE(run([&] { return held_[0] == kSession && held_[1] == kSession; }));
    EXPECT_FALSE(send(*processes_[0], 1, 1)) << "nobody else may send now";
    for (auto& end : ends_) end->test(sys::monotonic_now(), 0, kSession);
    ASSERT_TRUE(run([&] { return tested_[0] && tested_[1]; }));
  }
  void carry(PathFlow flow) {
    fabric::PathStatus path;
    path.flow = flow;
    path.session = flow == PathFlow::kCredits ? kSession : 0;
    for (auto& end : ends_) end->carry(path);
    ASSERT_TRUE(run([&] { return ends_[0]->carries(0) && ends_[1]->carries(0); }));
  }
  // More than the rings hold, to a receiver that takes four at a time; what arrived.
  uint32_t send_many() {
    uint32_t sent = 0, arrived = 0;
    const Instant end = sys::monotonic_now() + Duration::from_s(5);
    while (arrived < kMany && sys::monotonic_now() < end) {
      while (sent < kMany && send(*processes_[0], 1, sent)) ++sent;
      for (auto& process : processes_) process->advance(sys::monotonic_now().ns);
      receive(*processes_[0]);  // the peer's credit frames
      arrived += static_cast<uint32_t>(receive(*processes_[1], 4).size());
    }
    return arrived;
  }
  uint64_t overruns() { return world_->fabric->counters(1).overruns; }

  static constexpr uint32_t kMany = 400;
  std::unique_ptr<World> world_;
  std::array<std::unique_ptr<FlowControl>, 2> ends_;
  std::array<std::unique_ptr<rail::Rail>, 2> processes_;
  std::array<uint32_t, 2> held_{}, carried_{};
  std::array<std::optional<FlowOutcome>, 2> tested_{};
};

TEST_F(FlowControlTest, HardwareThatWorksIsFoundToWorkAndUsed) {
  make(true, false);
  try_hardware();
  EXPECT_EQ(tested_[0], FlowOutcome::kHeld);
  EXPECT_EQ(tested_[1], FlowOutcome::kHeld);
  EXPECT_FALSE(ends_[0]->carries(0));
  carry(PathFlow::kE2e);
  EXPECT_EQ(send_many(), kMany);
  EXPECT_EQ(overruns(), 0u);
  EXPECT_EQ(processes_[0]->stats().credit_frames, 0u);
}

TEST_F(FlowControlTest, CreditsInSoftwareTakeThePlaceOfThoseThatDoNotWork) {
  for (const bool sticks : {false, true}) {
    tested_ = {};
    held_ = {};
    make(sticks, sticks);
    try_hardware();
    EXPECT_EQ(tested_[0], FlowOutcome::kMissing);
    EXPECT_EQ(tested_[1], FlowOutcome::kMissing);
    const uint64_t before = overruns();
    carry(PathFlow::kCredits);
    EXPECT_EQ(send_many(), kMany);
    EXPECT_EQ(overruns(), before) << "not one is lost";
    EXPECT_GT(processes_[0]->stats().credit_frames, 0u);
  }
}

// A daemon that goes on for another one puts right what that one was about to.
TEST_F(FlowControlTest, CarryingIsOnceForAllAndWhatRunsIsLeftAlone) {
  make(true, false);
  carry(PathFlow::kE2e);
  EXPECT_TRUE(send(*processes_[0], 1, 5));
  carry(PathFlow::kE2e);
  EXPECT_EQ(receive(*processes_[1]), std::vector<uint32_t>{5}) << "the rings were not begun anew";
  carry(PathFlow::kCredits);
  const uint32_t begun = carried_[0];
  ends_[0]->rest(0);
  EXPECT_FALSE(ends_[0]->carries(0));
  EXPECT_TRUE(ends_[0]->poll_timeout().is_never());
  carry(PathFlow::kCredits);
  EXPECT_EQ(carried_[0], begun + 1);
}

TEST_F(FlowControlTest, AStoppedProcessWithTheLockIsWaitedForAndNobodyElse) {
  make(true, false);
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::byte* buffer = nullptr;
    if (processes_[0]->tx_begin({&buffer, 1}) != 1) ::_exit(1);
    ::raise(SIGSTOP);
    processes_[0]->tx_commit({});
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, WUNTRACED);
  ASSERT_TRUE(WIFSTOPPED(status));
  for (auto& end : ends_) end->hold(0, kSession);
  ASSERT_TRUE(run([&] { return held_[1] == kSession; }));
  const Instant now = sys::monotonic_now();
  ends_[0]->turn(now);
  EXPECT_EQ(held_[0], 0u);
  EXPECT_GT(ends_[0]->poll_timeout(), now) << "and not at once";
  ::kill(pid, SIGCONT);
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_TRUE(run([&] { return held_[0] == kSession; }));
}

}  // namespace
}  // namespace tbt::daemon
