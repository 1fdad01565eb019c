// Protection domains, memory regions, memory windows, and the table that finds either by its key.
//
// Keys are 32 random bits (lkey == rkey), so a guess hits a region with probability 2^-32 times
// their number. Every access, local or remote, is checked for key, protection domain, right and
// range, in this order, and again for each packet: a region may be deregistered between two packets
// of one message.
//
// No two entries share the upper 24 bits of their keys: the low 8 of a window's are its user's to
// choose (IBTA vol. 1, 10.6.7.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/rng.h"
#include "tbt/types.h"

namespace tbt::verbs {

struct ProtectionDomain {
  uint32_t users = 0;  // MRs, MWs, QPs, SRQs and AHs made on it
};

// Beside the AccessFlags: reading on behalf of the owner. Every region gives it, no window does.
inline constexpr uint32_t kAccessLocalRead = 1u << 31;

struct MemoryRegion {
  uint32_t key = 0;
  uint32_t access = 0;  // AccessFlags
  ProtectionDomain* pd = nullptr;
  uint64_t iova = 0;  // the address that work requests and peers use for `base`
  uint64_t length = 0;
  std::byte* base = nullptr;
  uint64_t dma = 0;  // where the controller finds `base`; 0: nowhere
};

// On whose behalf memory is touched.
struct Accessor {
  const ProtectionDomain* pd = nullptr;
  uint32_t qp_number = 0;  // 0: none, for windows of type 2 are closed then
};

// What a bind asks for (memory_window.cc).
struct Binding {
  uint32_t key = 0;  // the new one of the window; the upper 24 bits say which window
  uint32_t region_key = 0;
  uint64_t addr = 0;  // as the region's users say it
  uint64_t length = 0;
  uint32_t access = 0;
};

enum class KeyError : uint8_t { kNone, kUnknownKey, kWrongPd, kNoAccess, kOutOfRange };

class MrTable {
 public:
  MrTable();

  // Gives the region a fresh key. nullptr when limits::kMaxMr regions exist.
  MemoryRegion* insert(MemoryRegion region, Rng& rng);
  // Puts another region under a key that exists. False, and nothing is done, while windows are
  // bound to it; the same for erase().
  bool replace(uint32_t key, const MemoryRegion& region) noexcept;
  bool erase(uint32_t key) noexcept;
  [[nodiscard]] const MemoryRegion* find(uint32_t key) const noexcept { return entry_of(key); }
  // What a region's `dma` is from now on.
  void set_dma(uint32_t key, uint64_t dma) noexcept;
  // Where the controller finds `at`, which translate() has given for this key; 0: nowhere. Costs
  // nothing as long as no region has a `dma`.
  [[nodiscard]] uint64_t dma_of(uint32_t key, const std::byte* at) const noexcept {
    if (direct_ == 0) return 0;
    const MemoryRegion* region = find(key);
    return region != nullptr && region->dma != 0
               ? region->dma + static_cast<uint64_t>(at - region->base)
               : 0;
  }

  // The memory behind [va, va + length) of a region or window, or nullptr and why.
  std::byte* translate(uint32_t key, Accessor who, uint64_t va, uint64_t length, uint32_t access,
                       KeyError& why) const noexcept;

  // An unbound window; returns its key, or 0 when limits::kMaxMw exist.
  uint32_t add_window(MwType type, ProtectionDomain* pd, Rng& rng);
  void remove_window(uint32_t key) noexcept;
  // The present key of the window whose keys have the upper 24 bits of `key`.
  [[nodiscard]] uint32_t window_key(uint32_t key) const noexcept;
  // False if that cannot be: nothing is changed then.
  bool bind(const Binding& binding, Accessor who) noexcept;
  // Only a window of type 2 that is bound to this queue pair can be invalidated.
  [[nodiscard]] bool may_invalidate(uint32_t key, Accessor who) const noexcept;
  bool invalidate(uint32_t key, Accessor who) noexcept;
  // A queue pair ends: its windows of type 2 become unbound.
  void unbind_all_of(uint32_t qp_number) noexcept;

  [[nodiscard]] size_t size() const noexcept { return count_; }

 private:
  struct Entry;
  struct Window {
    MwType type = MwType::kType1;
    ProtectionDomain* pd = nullptr;
    Entry* region = nullptr;  // that it is bound to; nullptr: unbound, and gives no access
    uint32_t qp_number = 0;   // type 2, while bound; else 0, which no queue pair has
  };
  // The entry of a window of type 2 has no PD: its queue pair is asked for instead.
  struct Entry : MemoryRegion {
    uint32_t windows = 0;  // of a region: those bound to it
    std::optional<Window> window;
  };

  // Open addressing, linear probing; the key is random, so it is its own hash.
  [[nodiscard]] size_t home(uint32_t key) const noexcept {
    return (key >> 8) & (slots_.size() - 1);
  }
  void grow();
  void place(std::unique_ptr<Entry> entry) noexcept;
  Entry* add(Rng& rng);
  void remove(const Entry& entry) noexcept;
  // By the whole key, and by its upper 24 bits.
  [[nodiscard]] Entry* entry_of(uint32_t key) const noexcept;
  [[nodiscard]] Entry* block_of(uint32_t key) const noexcept;
  static void unbind(Entry& entry) noexcept;
  // Whether the entry is a window that was bound by this queue pair and belongs to it.
  [[nodiscard]] static bool is_of(const Entry& entry, uint32_t qp_number) noexcept {
    return entry.window && qp_number != 0 && entry.window->qp_number == qp_number;
  }
  [[nodiscard]] Entry* bindable(const Binding& binding, Accessor who) const noexcept;

  std::vector<std::unique_ptr<Entry>> slots_;
  size_t count_ = 0;
  size_t windows_ = 0;  // of count_
  size_t direct_ = 0;   // regions with a `dma`
};

}  // namespace tbt::verbs
