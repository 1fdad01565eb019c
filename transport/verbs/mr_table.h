// Protection domains, memory regions and the table that finds a region by its key.
//
// Keys are 32 random bits (lkey == rkey), so a guess hits a region with probability 2^-32 times
// their number. Every access, local or remote, is checked for key, protection domain, right and
// range, in this order, and again for each packet: a region may be deregistered between two packets
// of one message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "tbt/types.h"

namespace tbt::verbs {

struct ProtectionDomain {
  uint32_t users = 0;  // MRs, QPs, SRQs and AHs made on it
};

struct MemoryRegion {
  uint32_t key = 0;
  uint32_t access = 0;  // AccessFlags
  ProtectionDomain* pd = nullptr;
  uint64_t iova = 0;  // the address that work requests and peers use for `base`
  uint64_t length = 0;
  std::byte* base = nullptr;
};

enum class KeyError : uint8_t { kNone, kUnknownKey, kWrongPd, kNoAccess, kOutOfRange };

class MrTable {
 public:
  MrTable();

  // Gives the region a fresh key. nullptr when limits::kMaxMr regions exist.
  MemoryRegion* insert(MemoryRegion region, Rng& rng);
  // Puts another region under a key that exists.
  void replace(uint32_t key, const MemoryRegion& region) noexcept;
  void erase(uint32_t key) noexcept;
  [[nodiscard]] const MemoryRegion* find(uint32_t key) const noexcept;

  // The memory behind [va, va + length) of a region, or nullptr and why.
  std::byte* translate(uint32_t key, const ProtectionDomain* pd, uint64_t va, uint64_t length,
                       uint32_t access, KeyError& why) const noexcept;

  [[nodiscard]] size_t size() const noexcept { return count_; }

 private:
  // Open addressing, linear probing; the key is random, so it is its own hash.
  [[nodiscard]] size_t home(uint32_t key) const noexcept { return key & (slots_.size() - 1); }
  void grow();
  void place(std::unique_ptr<MemoryRegion> region) noexcept;

  std::vector<std::unique_ptr<MemoryRegion>> slots_;
  size_t count_ = 0;
};

}  // namespace tbt::verbs
