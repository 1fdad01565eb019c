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
#pragma once

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <deque>
#include <mutex>

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

  // False with errno when there is no descriptor to be had.
  bool open() noexcept {
    fd_ = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    return fd_ >= 0;
  }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  void push(const Event& event) noexcept {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
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
      event = events_.front();
      events_.pop_front();
      event.taken();
      return true;
    }
  }

  // Takes back the unread events that `unwanted` picks.
  template <typename Predicate>
  void purge(Predicate unwanted) noexcept {
    const std::lock_guard lock(mutex_);
    size_t tokens = std::erase_if(events_, unwanted);
    while (tokens > 0 && take_token_without_waiting()) --tokens;
    owed_ += tokens;
  }

 private:
  // The application chooses whether the descriptor blocks, so the wish not to wait goes with the
  // call. A kernel before 5.7 refuses that for an eventfd; the token is then owed by a later pop().
  bool take_token_without_waiting() noexcept {
    uint64_t token = 0;
    const iovec where{.iov_base = &token, .iov_len = sizeof token};
    return preadv2(fd_, &where, 1, -1, RWF_NOWAIT) == static_cast<ssize_t>(sizeof token);
  }

  std::mutex mutex_;
  std::deque<Event> events_;
  size_t owed_ = 0;
  int fd_ = -1;
};

}  // namespace tbt::provider
