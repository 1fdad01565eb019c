#include "verbs/completion_queue.h"

#include <algorithm>
#include <bit>

namespace tbt::verbs {

namespace {
// Free-running indices stay continuous over their wrap only if the ring size divides 2^32.
uint32_t ring_size(uint32_t entries) { return std::bit_ceil(std::max(entries, 1u)); }
}  // namespace

CompletionQueue::CompletionQueue(uint32_t entries, void* user)
    : ring_(ring_size(entries)), user_(user) {}

bool CompletionQueue::push(const Wc& wc, const SlotRelease& release, const void* owner) noexcept {
  if (overflowed_ || queued() == entries()) {
    overflowed_ = true;
    return false;
  }
  Entry& entry = at(tail_++);
  entry.wc = wc;
  entry.release = release;
  entry.owner = owner;
  return true;
}

uint32_t CompletionQueue::pop(std::span<Wc> out) noexcept {
  const uint32_t count = std::min(queued(), static_cast<uint32_t>(out.size()));
  for (uint32_t i = 0; i < count; ++i) {
    Entry& entry = at(head_++);
    out[i] = entry.wc;
    if (entry.release.counter != nullptr) *entry.release.counter = entry.release.value;
  }
  return count;
}

void CompletionQueue::purge(const void* owner) noexcept {
  uint32_t kept = head_;
  for (uint32_t i = head_; i != tail_; ++i) {
    if (at(i).owner == owner) continue;
    if (kept != i) at(kept) = at(i);
    ++kept;
  }
  tail_ = kept;
}

bool CompletionQueue::resize(uint32_t entries) {
  const uint32_t size = ring_size(entries);
  if (queued() > size) return false;
  std::vector<Entry> fresh(size);
  const uint32_t count = queued();
  for (uint32_t i = 0; i < count; ++i) fresh[i] = at(head_ + i);
  ring_.swap(fresh);
  head_ = 0;
  tail_ = count;
  return true;
}

void CompletionQueue::arm(bool solicited_only) noexcept {
  // Arming for solicited completions does not weaken a standing request for any.
  if (!solicited_only) {
    armed_ = Armed::kAny;
  } else if (armed_ == Armed::kNo) {
    armed_ = Armed::kSolicited;
  }
}

bool CompletionQueue::take_notification(bool solicited) noexcept {
  if (!awaits(solicited) || ++put_off_ < moderation_count_) return false;
  disarm();
  return true;
}

void CompletionQueue::disarm() noexcept {
  armed_ = Armed::kNo;
  put_off_ = 0;
}

void CompletionQueue::moderate(uint32_t count, Duration period) noexcept {
  moderation_count_ = count == 0 || period.ns == 0 ? 1 : count;
  moderation_period_ = period;
}

}  // namespace tbt::verbs
