// A queue of events with a file descriptor that an application may poll, as verbs wants it for
// completion channels and asynchronous events.
//
// An eventfd in semaphore mode holds one token per queued event; the events themselves lie in
// memory. A plain pipe would not do: destroying a CQ or QP has to take back its unread events, and
// has to wait until the read ones are acknowledged, so reads must be counted when they happen, as
// the kernel does it.
//
// pop() first takes a token, outside of the lock, so that it blocks, restarts after a signal or
// fails with EAGAIN exactly as read(2) does on a kernel descriptor. Between the token and the lock
// a purge may take the event that the token stood for: the purge counts it as owed, and the next
// reader that comes to the lock pays with its token and goes back to waiting. Invariant under the
// lock: tokens in the eventfd + readers that hold one == queued events + tokens owed.
//
// An event for which there is no memory is lost, unless it was promised: promise() makes room for
// it at a time when failing is possible.
#pragma once

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace tbt::provider {

// Event needs a member `void taken() noexcept`, called under the lock for each event that pop()
// hands out.
template <typename Event>
class EventQueue {
 public:
  EventQueue() = default;
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;
  ~EventQueue() {
    if (fd_ >= 0) close(fd_);
  }

  // False with errno when there is no descriptor, or no memory, to be had.
  bool open() noexcept {
    if (!make_room(1)) {
      errno = ENOMEM;
      return false;
    }
    fd_ = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    return fd_ >= 0;
  }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  // Makes room for one event more and notes that in `promised`, which the queue's lock guards.
  // False: out of memory.
  bool promise(bool& promised) noexcept {
    const std::lock_guard lock(mutex_);
    if (promised) return true;
    if (!make_room(count_ + promises_ + 1)) return false;
    ++promises_;
    promised = true;
    return true;
  }
  void take_back(bool& promised) noexcept {
    const std::lock_guard lock(mutex_);
    if (std::exchange(promised, false)) --promises_;
  }

  void push(const Event& event) noexcept {
    bool promised = false;
    push(event, promised);
  }
  // Keeps the promise, if there was one.
  void push(const Event& event, bool& promised) noexcept {
    const std::lock_guard lock(mutex_);
    if (std::exchange(promised, false)) --promises_;
    if (!make_room(count_ + promises_ + 1)) return;
    at(count_++) = event;
    const uint64_t one = 1;
    // Cannot block: the counter would have to reach 2^64 - 1.
    [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof one);
  }

  // Waits for the oldest event. False with errno as read(2) sets it.
  bool pop(Event& event) noexcept {
    for (;;) {
      uint64_t token = 0;
      if (read(fd_, &token, sizeof token) != static_cast<ssize_t>(sizeof token)) return false;
      const std::lock_guard lock(mutex_);
      if (owed_ > 0) {
        --owed_;
        continue;
      }
      event = at(0);
      first_ = (first_ + 1) & (ring_.size() - 1);
      --count_;
      event.taken();
      return true;
    }
  }

  // Takes back the unread events that `unwanted` picks.
  template <typename Predicate>
  void purge(Predicate unwanted) noexcept {
    const std::lock_guard lock(mutex_);
    size_t kept = 0;
    for (size_t i = 0; i < count_; ++i) {
      if (unwanted(at(i))) continue;
      if (kept != i) at(kept) = at(i);
      ++kept;
    }
    size_t tokens = count_ - kept;
    count_ = kept;
    while (tokens > 0 && take_token_without_waiting()) --tokens;
    owed_ += tokens;
  }

 private:
  [[nodiscard]] Event& at(size_t i) noexcept { return ring_[(first_ + i) & (ring_.size() - 1)]; }

  bool make_room(size_t events) noexcept {
    if (events <= ring_.size()) return true;
    try {
      std::vector<Event> fresh(std::bit_ceil(std::max<size_t>(events, 8)));
      for (size_t i = 0; i < count_; ++i) fresh[i] = at(i);
      ring_.swap(fresh);
      first_ = 0;
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  // The application chooses whether the descriptor blocks, so the wish not to wait goes with the
  // call. A kernel before 5.7 refuses that for an eventfd; the token is then owed by a later pop().
  bool take_token_without_waiting() noexcept {
    uint64_t token = 0;
    const iovec where{.iov_base = &token, .iov_len = sizeof token};
    return preadv2(fd_, &where, 1, -1, RWF_NOWAIT) == static_cast<ssize_t>(sizeof token);
  }

  std::mutex mutex_;
  std::vector<Event> ring_;  // its size is a power of two
  size_t first_ = 0;
  size_t count_ = 0;
  size_t promises_ = 0;
  size_t owed_ = 0;
  int fd_ = -1;
};

}  // namespace tbt::provider
