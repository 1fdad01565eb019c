// Memory windows: binding and what ends it (IBTA vol. 1, 10.6.7; type 2 is 2B).
#include "verbs/mr_table.h"

namespace tbt::verbs {

namespace {

constexpr uint32_t kRemoteRights = kAccessRemoteWrite | kAccessRemoteRead | kAccessRemoteAtomic;

}  // namespace

uint32_t MrTable::add_window(MwType type, ProtectionDomain* pd, Rng& rng) {
  if (windows_ >= limits::kMaxMw) return 0;
  Entry* entry = add(rng);
  ++windows_;
  entry->window = Window{type, pd, nullptr, 0};
  return entry->key;
}

void MrTable::remove_window(uint32_t key) noexcept {
  Entry* entry = block_of(key);
  if (entry == nullptr || !entry->window) return;
  unbind(*entry);
  remove(*entry);
  --windows_;
}

uint32_t MrTable::window_key(uint32_t key) const noexcept {
  const Entry* entry = block_of(key);
  return entry != nullptr ? entry->key : 0;
}

// The key stays taken, and gives access to nothing.
void MrTable::unbind(Entry& entry) noexcept {
  Window& window = *entry.window;
  if (window.region != nullptr) --window.region->windows;
  window.region = nullptr;
  window.qp_number = 0;
  entry.access = 0;
  entry.pd = nullptr;
  entry.iova = entry.length = 0;
  entry.base = nullptr;
}

// The region that a binding names, if it can be bound so.
MrTable::Entry* MrTable::bindable(const Binding& binding, Accessor who) const noexcept {
  Entry* region = entry_of(binding.region_key);
  if (region == nullptr || region->window || region->pd != who.pd) return nullptr;
  if ((region->access & kAccessMwBind) == 0) return nullptr;
  constexpr uint32_t kChanges = kAccessRemoteWrite | kAccessRemoteAtomic;
  if ((binding.access & kChanges) != 0 && (region->access & kAccessLocalWrite) == 0) return nullptr;
  const bool inside = binding.addr >= region->iova && binding.length <= region->length &&
                      binding.addr - region->iova <= region->length - binding.length;
  return inside ? region : nullptr;
}

bool MrTable::bind(const Binding& binding, Accessor who) noexcept {
  Entry* entry = block_of(binding.key);
  if (entry == nullptr || !entry->window) return false;
  Window& window = *entry->window;
  if (window.pd != who.pd) return false;
  const bool second = window.type == MwType::kType2;
  if (second && window.region != nullptr) return false;
  Entry* region = nullptr;
  if (binding.length != 0 && (region = bindable(binding, who)) == nullptr) return false;
  unbind(*entry);
  entry->key = binding.key;
  if (region == nullptr) return true;
  ++region->windows;
  window.region = region;
  window.qp_number = second ? who.qp_number : 0;
  entry->access = binding.access & kRemoteRights;
  entry->pd = second ? nullptr : window.pd;
  entry->iova = (binding.access & kAccessZeroBased) != 0 ? 0 : binding.addr;
  entry->length = binding.length;
  entry->base = region->base + (binding.addr - region->iova);
  return true;
}

bool MrTable::may_invalidate(uint32_t key, Accessor who) const noexcept {
  const Entry* entry = entry_of(key);
  return entry != nullptr && is_of(*entry, who.qp_number);
}

bool MrTable::invalidate(uint32_t key, Accessor who) noexcept {
  if (!may_invalidate(key, who)) return false;
  unbind(*entry_of(key));
  return true;
}

void MrTable::unbind_all_of(uint32_t qp_number) noexcept {
  if (windows_ == 0) return;
  for (const auto& entry : slots_) {
    if (entry && is_of(*entry, qp_number)) unbind(*entry);
  }
}

}  // namespace tbt::verbs
