// The progress thread of Process: when it works, dozes and sleeps (see process.h).
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

#include "device/context.h"
#include "device/process.h"
#include "sys/futex.h"

namespace tbt::device {

namespace {

constexpr int64_t kApplicationBusyNs = 1000 * 1000;
constexpr int64_t kSpinNs = 10 * 1000;  // with the processor to itself
constexpr int64_t kShortSpinNs = 1000;  // beside an application that may share the processor
constexpr int64_t kSleepMostNs = 500 * 1000 * 1000;
// Beside a busy application, and on a link that loses nothing, the thread looks at the measured
// timers only so often, and no post wakes it for them: a poll serves them in time, and an
// application that only watches its memory loses its turns on the processor to such wakes.
constexpr Duration kBusyLook = Duration::from_ms(60);
constexpr Duration kLossRemembered = Duration::from_ms(1000);
// A full ring sends no interrupt when it drains: it is watched for a while, then looked at now and
// then.
constexpr int64_t kBlockedSpinNs = 100 * 1000;
constexpr int64_t kBlockedNs = 50 * 1000;
constexpr unsigned long kTimerSlackNs = 1000;  // the default would double such a sleep
constexpr uint64_t kTurnNs = 100 * 1000;       // the shortest that the kernel takes
constexpr int kRelaxesPerLook = 32;
// So many wakes in a row for nothing, and the application does well without the thread. An
// application that proves that wrong soon after gets more patience each time.
constexpr uint32_t kUselessWakesFirst = 32;
constexpr uint32_t kUselessWakesMost = 1u << 16;
constexpr Duration kSoon = Duration::from_ms(100);

// Asks the scheduler (Linux 6.12 and later) for short turns, which lets a woken thread run before
// an application that spins on its memory. Elsewhere the call fails, and the thread is an ordinary
// one.
void ask_for_short_turns() noexcept {
  struct {
    uint32_t size = 48;  // SCHED_ATTR_SIZE_VER0
    uint32_t policy = SCHED_OTHER;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime_ns = kTurnNs;
    uint64_t deadline_ns = 0;
    uint64_t period_ns = 0;
  } attr;
  attr.nice = ::getpriority(PRIO_PROCESS, 0);
  ::syscall(SYS_sched_setattr, 0, &attr, 0);
}

}  // namespace

void Process::add_context(ContextImpl& context) {
  {
    const Guard hold = guard();
    contexts_.push_back(&context);
    if (thread_.joinable()) return;
    stop_ = false;
  }
  if (const int code = start_thread(); code != 0) {
    const Guard hold = guard();
    std::erase(contexts_, &context);
    throw std::system_error(code, std::generic_category());
  }
}

// 0, or what keeps it from starting.
int Process::start_thread() noexcept {
  // Signals are the application's business.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int code = 0;
  try {
    thread_ = std::thread([this] { run_thread(); });
  } catch (const std::system_error& error) {
    code = error.code().value();
  } catch (const std::bad_alloc&) {
    code = ENOMEM;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return code;
}

void Process::remove_context(ContextImpl& context) {
  {
    const Guard hold = guard();
    std::erase(contexts_, &context);
    if (!contexts_.empty()) return;
    stop_ = true;
  }
  doze_word_.fetch_add(1);
  sys::futex_wake_all(&doze_word_);
  rail::Slot& slot = memory_.slot(attachment_->slot);
  slot.wake.fetch_add(1);
  sys::futex_wake_all(&slot.wake);
  thread_.join();
  // Nobody polls here any more: the other processes of the host rely on the interrupt.
  const Guard hold = guard();
  arm_rails();
}

void Process::application_sleeps() noexcept {
  application_seen_.store(0, std::memory_order_relaxed);
  if (asleep_.load(std::memory_order_acquire)) return;  // it watches already
  doze_word_.fetch_add(1);
  sys::futex_wake_all(&doze_word_);
}

void Process::application_posted(Instant now) noexcept {
  application_seen_.store(now.ns, std::memory_order_relaxed);
  if (!asleep_.load(std::memory_order_acquire)) return;
  // Has it gone to sleep for longer than what was just posted can wait?
  Instant due = thread_due(now);
  if (transmit_waits()) due = std::min(due, now + Duration{kApplicationBusyNs});
  if (due < asleep_until_) return wake_thread();
  sent_to_self();
}

// When the sleeping thread must see to the endpoint's timers.
Instant Process::thread_due(Instant now) const noexcept {
  const bool lossy = now - endpoint_->last_loss() < kLossRemembered;
  if (lossy || application_quiet(now)) return endpoint_->next_deadline();
  return std::min(endpoint_->next_strict_deadline(), now + kBusyLook);
}

// Rails wake other processes only: frames for our own queue pairs would lie until the thread's
// sleep ends, if the application waits for an event now.
void Process::sent_to_self() noexcept {
  if (asleep_.load(std::memory_order_acquire) && rails_pending()) wake_thread();
}

void Process::wake_thread() noexcept {
  rail::Slot& slot = memory_.slot(attachment_->slot);
  slot.wake.fetch_add(1);
  sys::futex_wake_all(&slot.wake);
}

// Packets are ready and a ring is full.
bool Process::transmit_waits() const noexcept {
  for (uint32_t i = 0; i < attachment_->rails.size(); ++i) {
    if (endpoint_->has_transmit(i)) return true;
  }
  return false;
}

bool Process::application_quiet(Instant now) const noexcept {
  return now.ns - application_seen_.load(std::memory_order_relaxed) >= kApplicationBusyNs;
}

// False if a rail has something already.
bool Process::arm_rails() noexcept {
  bool quiet = true;
  received_ = false;
  for (auto& rail : attachment_->rails) quiet &= rail->arm();
  return quiet && !rails_pending();
}

bool Process::rails_pending() const noexcept {
  return std::ranges::any_of(attachment_->rails,
                             [](const auto& rail) { return rail->rx_pending(); });
}

// Announces the sleep first and looks for work after, so that whoever brings work either is seen or
// wakes us.
void Process::sleep_on_slot(Instant now) {
  const rail::SlotId slot = attachment_->slot;
  const uint32_t seen = memory_.prepare_sleep(slot);
  asleep_.store(true);
  int64_t timeout = kSleepMostNs;
  bool work = false;
  {
    const Guard hold = guard();
    work = !arm_rails() || fabric::directory_generation(memory_) != generation_ || stop_;
    const Instant due = std::min(thread_due(now), advance_rails(now));
    timeout = std::min(timeout, (due - now).ns);
    if (transmit_waits()) {
      timeout = std::min(timeout, application_quiet(now) ? kBlockedNs : kApplicationBusyNs);
    }
    asleep_until_ = now + Duration{timeout};
  }
  if (!work && timeout > 0) {
    memory_.sleep(slot, seen, timeout);
  } else {
    memory_.cancel_sleep(slot);
  }
  asleep_.store(false);
}

// Steps until there has been nothing to do for a moment; true if there was anything.
bool Process::work_until_idle() {
  bool any = false;
  Instant idle_since = now();
  Duration spin{};
  for (Instant at = idle_since; !stop_ && at - idle_since <= spin; at = now()) {
    bool worked = false;
    {
      const Guard hold = guard();
      worked = step(at);
      spin.ns = !application_quiet(at) ? kShortSpinNs : transmit_waits() ? kBlockedSpinNs : kSpinNs;
    }
    any |= worked;
    if (worked) {
      idle_since = at;
    } else {
      for (int i = 0; i < kRelaxesPerLook; ++i) cpu_relax();
    }
  }
  return any;
}

// Interrupt mode, until the application has been first to the frames for a good while.
void Process::serve() {
  useless_most_ = now() - served_until_ < kSoon ? std::min(useless_most_ * 4, kUselessWakesMost)
                                                : kUselessWakesFirst;
  uint32_t useless = 0;
  while (!stop_ && useless < useless_most_) {
    const bool worked = work_until_idle();
    useless = worked || application_quiet(now()) ? 0 : useless + 1;
    sleep_on_slot(now());
  }
  served_until_ = now();
}

// Polling mode: true when the application leaves frames or timers waiting.
bool Process::watch_application() {
  const uint32_t seen = doze_word_.load();
  if (application_quiet(now())) return true;
  sys::futex_wait(&doze_word_, seen, kApplicationBusyNs);
  const Guard hold = guard();
  return rails_pending();
}

void Process::run_thread() {
  ask_for_short_turns();
  ::prctl(PR_SET_TIMERSLACK, kTimerSlackNs, 0, 0, 0);
  while (!stop_) {
    if (watch_application()) serve();
  }
}

}  // namespace tbt::device
