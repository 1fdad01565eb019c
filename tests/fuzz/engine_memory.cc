#include "engine_memory.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace tbt::fuzz {

namespace {

constexpr size_t kGuardBytes = 64;
constexpr std::byte kGuard{0xa5};
constexpr uint32_t kAll =
    kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic;

struct Plan {
  size_t bytes;
  uint32_t access;
  bool own;
};
constexpr Plan kPlan[kAreas] = {
    {size_t{kSlots} * kSlotBytes, kAccessLocalWrite, true},
    {kOpenBytes, kAll, true},
    {1024, kAccessRemoteRead, true},
    {512, 0, true},
    {512, kAll, false},
    {1024, kAccessLocalWrite | kAccessMwBind, true},
    {kWideBytes, kAccessRemoteRead, true},
};

}  // namespace

Memory::Memory(engine::Endpoint& endpoint, verbs::ProtectionDomain& own,
               verbs::ProtectionDomain& other)
    : endpoint_(endpoint), own_(own), other_(other) {
  size_t used = kGuardBytes;
  for (size_t i = 0; i < kAreas; ++i) {
    areas_[i] = {{used, kPlan[i].bytes}, kPlan[i].access, 0, kPlan[i].own, false};
    used += kPlan[i].bytes + kGuardBytes;
  }
  bytes_.assign(used, kGuard);
  shadow_ = bytes_;
  for (size_t i = 0; i < kAreas; ++i) restore(static_cast<Area>(i));
}

bool Memory::live(uint32_t key) const noexcept {
  return std::ranges::any_of(areas_, [&](const Placed& p) { return p.live && p.key == key; });
}

void Memory::revoke(Area area) noexcept {
  Placed& placed = at(area);
  if (placed.live && endpoint_.regions().erase(placed.key)) placed.live = false;
}

void Memory::restore(Area area) {
  Placed& placed = at(area);
  if (placed.live) return;
  verbs::MemoryRegion region;
  region.access = placed.access;
  region.pd = placed.own ? &own_ : &other_;
  region.iova = address(area);
  region.length = placed.range.bytes;
  region.base = data(area);
  placed.key = endpoint_.register_memory(region)->key;
  placed.live = true;
}

uint64_t Memory::address(Area area, uint32_t offset) const noexcept {
  return reinterpret_cast<uint64_t>(bytes_.data() + at(area).range.begin) + offset;
}

void Memory::fill(const Range& range, uint8_t first) {
  for (size_t i = 0; i < range.bytes; ++i) {
    bytes_[range.begin + i] = shadow_[range.begin + i] = static_cast<std::byte>(first + i * 7);
  }
}

void Memory::settle(std::span<const Range> writable) {
  for (const Range& range : writable) {
    std::memcpy(shadow_.data() + range.begin, bytes_.data() + range.begin, range.bytes);
  }
  const size_t wide = at(Area::kWide).range.begin;
  TBT_ASSERT(std::memcmp(bytes_.data(), shadow_.data(), wide) == 0);
}

void Memory::settle_wide() const {
  TBT_ASSERT(std::memcmp(bytes_.data(), shadow_.data(), bytes_.size()) == 0);
}

void Memory::check_source(std::span<const std::byte> piece, bool read_response,
                          bool elsewhere, std::span<const Range> readable) const {
  if (piece.empty()) return;
  const std::byte* const begin = bytes_.data();
  if (piece.data() < begin || piece.data() >= begin + bytes_.size()) return TBT_ASSERT(elsewhere);
  const auto offset = static_cast<size_t>(piece.data() - begin);
  const auto holds = [&](const Placed& placed) {
    return offset >= placed.range.begin &&
           offset + piece.size() <= placed.range.begin + placed.range.bytes;
  };
  const auto found = std::ranges::find_if(areas_, holds);
  TBT_ASSERT(found != areas_.end() && found->own && found->live);
  const bool by_window = std::ranges::any_of(readable, [&](const Range& range) {
    return offset >= range.begin && offset + piece.size() <= range.begin + range.bytes;
  });
  TBT_ASSERT(!read_response || by_window || (found->access & kAccessRemoteRead) != 0);
}

}  // namespace tbt::fuzz
