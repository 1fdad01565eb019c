// The progress thread of Process: when it works, dozes and sleeps (see process.h).
#include <signal.h>

#include <algorithm>

#include "device/context.h"
#include "device/process.h"
#include "sys/futex.h"

namespace tbt::device {

namespace {

constexpr int64_t kApplicationBusyNs = 1000 * 1000;
constexpr int64_t kSpinNs = 10 * 1000;
constexpr int64_t kSleepMostNs = 500 * 1000 * 1000;
constexpr int64_t kBlockedNs = 200 * 1000;  // a full ring sends no interrupt when it drains
constexpr int kRelaxesPerLook = 32;
constexpr int kUselessWakesMost = 32;       // then the application does well without the thread

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

// False if a rail has something already.
bool Process::arm_rails() noexcept {
  bool quiet = true;
  for (auto& rail : attachment_->rails) quiet &= rail->arm();
  return quiet && !rails_pending();
}

bool Process::rails_pending() const noexcept {
  return std::ranges::any_of(attachment_->rails, [](const auto& rail) { return rail->rx_pending(); });
}

// Announces the sleep first and looks for work after, so that whoever brings work either is seen or wakes us.
void Process::sleep_on_slot(Instant now) {
  const rail::SlotId slot = attachment_->slot;
  const uint32_t seen = memory_.prepare_sleep(slot);
  asleep_.store(true);
  int64_t timeout = kSleepMostNs;
  bool work = false;
  {
    const Guard hold = guard();
    work = !arm_rails() || fabric::directory_generation(memory_) != generation_ || stop_;
    const Instant due = std::min(endpoint_->next_deadline(), advance_rails(now));
    timeout = std::min(timeout, (due - now).ns);
    for (uint32_t i = 0; i < attachment_->rails.size(); ++i) {
      if (endpoint_->has_transmit(i)) timeout = std::min(timeout, kBlockedNs);
    }
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
  for (Instant at = idle_since; !stop_ && at - idle_since < Duration{kSpinNs}; at = now()) {
    bool worked = false;
    {
      const Guard hold = guard();
      worked = step(at);
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
  int useless = 0;
  while (!stop_ && useless < kUselessWakesMost) {
    const bool worked = work_until_idle();
    const int64_t quiet = now().ns - application_seen_.load(std::memory_order_relaxed);
    useless = worked || quiet > kApplicationBusyNs ? 0 : useless + 1;
    sleep_on_slot(now());
  }
}

// Polling mode: true when the application leaves frames or timers waiting.
bool Process::watch_application() {
  const uint32_t seen = doze_word_.load();
  const int64_t quiet = now().ns - application_seen_.load(std::memory_order_relaxed);
  if (quiet >= kApplicationBusyNs) return true;
  sys::futex_wait(&doze_word_, seen, kApplicationBusyNs);
  const Guard hold = guard();
  return rails_pending();
}

void Process::run_thread() {
  while (!stop_) {
    if (watch_application()) serve();
  }
}

}  // namespace tbt::device
