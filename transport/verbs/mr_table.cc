#include "verbs/mr_table.h"

#include <utility>

namespace tbt::verbs {

namespace {
constexpr size_t kInitialSlots = 64;  // power of two

bool same_block(uint32_t a, uint32_t b) noexcept { return (a ^ b) >> 8 == 0; }
}  // namespace

MrTable::MrTable() : slots_(kInitialSlots) {}

MrTable::Entry* MrTable::block_of(uint32_t key) const noexcept {
  for (size_t i = home(key); slots_[i]; i = (i + 1) & (slots_.size() - 1)) {
    if (same_block(slots_[i]->key, key)) return slots_[i].get();
  }
  return nullptr;
}

MrTable::Entry* MrTable::entry_of(uint32_t key) const noexcept {
  Entry* entry = block_of(key);
  return entry != nullptr && entry->key == key ? entry : nullptr;
}

void MrTable::place(std::unique_ptr<Entry> entry) noexcept {
  size_t i = home(entry->key);
  while (slots_[i]) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = std::move(entry);
}

void MrTable::grow() {
  std::vector<std::unique_ptr<Entry>> old(slots_.size() * 2);
  old.swap(slots_);
  for (auto& entry : old) {
    if (entry) place(std::move(entry));
  }
}

MrTable::Entry* MrTable::add(Rng& rng) {
  if ((count_ + 1) * 2 > slots_.size()) grow();
  auto owned = std::make_unique<Entry>();
  do {
    owned->key = static_cast<uint32_t>(rng.next() >> 32);
  } while (owned->key == 0 || owned->key == 0xffffffff || block_of(owned->key) != nullptr);
  Entry* entry = owned.get();
  place(std::move(owned));
  ++count_;
  return entry;
}

MemoryRegion* MrTable::insert(MemoryRegion region, Rng& rng) {
  if (count_ - windows_ >= limits::kMaxMr) return nullptr;
  Entry* entry = add(rng);
  region.key = entry->key;
  region.access |= kAccessLocalRead;
  static_cast<MemoryRegion&>(*entry) = region;
  direct_ += region.dma != 0 ? 1 : 0;
  return entry;
}

bool MrTable::replace(uint32_t key, const MemoryRegion& region) noexcept {
  Entry* entry = entry_of(key);
  if (entry == nullptr || entry->windows != 0) return false;
  set_dma(key, region.dma);
  static_cast<MemoryRegion&>(*entry) = region;
  entry->key = key;
  entry->access |= kAccessLocalRead;
  return true;
}

void MrTable::set_dma(uint32_t key, uint64_t dma) noexcept {
  Entry* entry = entry_of(key);
  if (entry == nullptr) return;
  direct_ += dma != 0 ? 1 : 0;
  direct_ -= entry->dma != 0 ? 1 : 0;
  entry->dma = dma;
}

bool MrTable::erase(uint32_t key) noexcept {
  const Entry* entry = entry_of(key);
  if (entry == nullptr || entry->windows != 0) return false;
  set_dma(key, 0);
  remove(*entry);
  return true;
}

void MrTable::remove(const Entry& entry) noexcept {
  const size_t mask = slots_.size() - 1;
  size_t hole = home(entry.key);
  while (slots_[hole].get() != &entry) hole = (hole + 1) & mask;
  slots_[hole].reset();
  --count_;
  // Move back whatever the hole would cut off from its home.
  for (size_t i = (hole + 1) & mask; slots_[i]; i = (i + 1) & mask) {
    const size_t distance_home = (i - home(slots_[i]->key)) & mask;
    const size_t distance_hole = (i - hole) & mask;
    if (distance_home < distance_hole) continue;
    slots_[hole] = std::move(slots_[i]);
    hole = i;
  }
}

std::byte* MrTable::translate(uint32_t key, Accessor who, uint64_t va, uint64_t length,
                              uint32_t access, KeyError& why) const noexcept {
  const Entry* entry = entry_of(key);
  why = KeyError::kNone;
  if (entry == nullptr) {
    why = KeyError::kUnknownKey;
  } else if (entry->pd != who.pd && !is_of(*entry, who.qp_number)) {
    why = KeyError::kWrongPd;
  } else if ((entry->access & access) != access) {
    why = KeyError::kNoAccess;
  } else if (va < entry->iova || length > entry->length ||
             va - entry->iova > entry->length - length) {
    why = KeyError::kOutOfRange;
  }
  return why == KeyError::kNone ? entry->base + (va - entry->iova) : nullptr;
}

}  // namespace tbt::verbs
