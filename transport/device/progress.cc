// The progress thread of Process: when it works, dozes and sleeps (see process.h).
#include <sched.h>
#include <signal.h>

#include <algorithm>

#include "device/context.h"
#include "device/process.h"
#include "sys/futex.h"

namespace tbt::device {

namespace {

constexpr int64_t kApplicationBusyNs = 1000 * 1000;
constexpr int64_t kSpinNs = 20 * 1000;
constexpr int64_t kYieldNs = 200 * 1000;
constexpr int64_t kSleepMostNs = 500 * 1000 * 1000;
constexpr int64_t kBlockedNs = 200 * 1000;  // a full ring sends no interrupt when it drains
constexpr int kRelaxesPerLook = 32;

}  // namespace

void Process::add_context(ContextImpl& context) {
  {
    const Guard hold = guard();
    contexts_.push_back(&context);
    if (thread_.joinable()) return;
    stop_ = false;
  }
  // Signals are the application's business.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run_thread(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
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
  // It may have gone to sleep for longer than what was just posted can wait.
  rail::Slot& slot = memory_.slot(attachment_->slot);
  slot.wake.fetch_add(1);
  sys::futex_wake_all(&slot.wake);
}

bool Process::rails_pending() const noexcept {
  return std::ranges::any_of(attachment_->rails, [](const auto& rail) { return rail->rx_pending(); });
}

void Process::doze(int64_t ns) noexcept {
  const uint32_t seen = doze_word_.load();
  if (application_seen_.load(std::memory_order_relaxed) == 0 || stop_) return;
  sys::futex_wait(&doze_word_, seen, ns);
}

// Announces the sleep first and looks for work after, so that whoever brings work either is seen or wakes us.
void Process::sleep_on_slot(Instant now) {
  rail::Slot& slot = memory_.slot(attachment_->slot);
  const uint32_t seen = slot.wake.load();
  slot.sleeping.store(1);
  asleep_.store(true);
  int64_t timeout = kSleepMostNs;
  bool work = false;
  {
    const Guard hold = guard();
    for (auto& rail : attachment_->rails) work |= !rail->arm();
    work |= rails_pending() || fabric::directory_generation(memory_) != generation_ || stop_;
    const Instant due = std::min(endpoint_->next_deadline(), advance_rails(now));
    timeout = std::min(timeout, (due - now).ns);
    for (uint32_t i = 0; i < attachment_->rails.size(); ++i) {
      if (endpoint_->has_transmit(i)) timeout = std::min(timeout, kBlockedNs);
    }
  }
  if (!work && timeout > 0) memory_.sleep(attachment_->slot, seen, timeout);
  asleep_.store(false);
  slot.sleeping.store(0);
}

// Steps until the application is back or there has been nothing to do for a while.
void Process::take_over() {
  Instant idle_since = now();
  while (!stop_) {
    const Instant at = now();
    if (at.ns - application_seen_.load(std::memory_order_relaxed) < kApplicationBusyNs) return;
    bool worked = false;
    {
      const Guard hold = guard();
      worked = step(at);
    }
    if (worked) {
      idle_since = at;
    } else if (at - idle_since < Duration{kSpinNs}) {
      for (int i = 0; i < kRelaxesPerLook; ++i) cpu_relax();
    } else if (at - idle_since < Duration{kYieldNs}) {
      sched_yield();
    } else {
      sleep_on_slot(at);
      idle_since = now();
    }
  }
}

void Process::run_thread() {
  while (!stop_) {
    const int64_t quiet = now().ns - application_seen_.load(std::memory_order_relaxed);
    if (quiet < kApplicationBusyNs) {
      doze(kApplicationBusyNs - quiet + kApplicationBusyNs / 8);
    } else {
      take_over();
    }
  }
}

}  // namespace tbt::device
