#include "verbs/mr_table.h"

#include <utility>

namespace tbt::verbs {

namespace {
constexpr size_t kInitialSlots = 64;  // power of two
}

MrTable::MrTable() : slots_(kInitialSlots) {}

const MemoryRegion* MrTable::find(uint32_t key) const noexcept {
  for (size_t i = home(key); slots_[i]; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i]->key == key) return slots_[i].get();
  }
  return nullptr;
}

void MrTable::place(std::unique_ptr<MemoryRegion> region) noexcept {
  size_t i = home(region->key);
  while (slots_[i]) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = std::move(region);
}

void MrTable::grow() {
  std::vector<std::unique_ptr<MemoryRegion>> old(slots_.size() * 2);
  old.swap(slots_);
  for (auto& region : old) {
    if (region) place(std::move(region));
  }
}

MemoryRegion* MrTable::insert(MemoryRegion region, Rng& rng) {
  if (count_ >= limits::kMaxMr) return nullptr;
  if ((count_ + 1) * 2 > slots_.size()) grow();
  do {
    region.key = static_cast<uint32_t>(rng.next() >> 32);
  } while (region.key == 0 || region.key == 0xffffffff || find(region.key) != nullptr);
  auto owned = std::make_unique<MemoryRegion>(region);
  MemoryRegion* result = owned.get();
  place(std::move(owned));
  ++count_;
  return result;
}

void MrTable::replace(uint32_t key, const MemoryRegion& region) noexcept {
  for (size_t i = home(key); slots_[i]; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i]->key != key) continue;
    *slots_[i] = region;
    slots_[i]->key = key;
    return;
  }
}

void MrTable::erase(uint32_t key) noexcept {
  const size_t mask = slots_.size() - 1;
  size_t hole = home(key);
  while (slots_[hole] && slots_[hole]->key != key) hole = (hole + 1) & mask;
  if (!slots_[hole]) return;
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

std::byte* MrTable::translate(uint32_t key, const ProtectionDomain* pd, uint64_t va,
                              uint64_t length, uint32_t access, KeyError& why) const noexcept {
  const MemoryRegion* region = find(key);
  why = KeyError::kNone;
  if (region == nullptr) {
    why = KeyError::kUnknownKey;
  } else if (region->pd != pd) {
    why = KeyError::kWrongPd;
  } else if ((region->access & access) != access) {
    why = KeyError::kNoAccess;
  } else if (va < region->iova || length > region->length ||
             va - region->iova > region->length - length) {
    why = KeyError::kOutOfRange;
  }
  return why == KeyError::kNone ? region->base + (va - region->iova) : nullptr;
}

}  // namespace tbt::verbs
