// The memory of one fuzzed host: a few regions with different rights, guard bytes around each, and
// a shadow that tells of every byte that changed without leave.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/endpoint.h"

namespace tbt::fuzz {

enum class Area : uint8_t {
  kLocal,     // sends, receives and answers; no remote rights
  kOpen,      // peers may read, write and do atomics
  kReadOnly,  // peers may read
  kSecret,    // registered, no right at all
  kForeign,   // every right, but of another protection domain
  kWindowed,  // peers may do what the windows say that are bound to it
  kWide,      // peers may read; larger than a window of packets
};
inline constexpr size_t kAreas = 7;

inline constexpr uint32_t kSlotBytes = 1280;
inline constexpr uint32_t kSlots = 16;  // of kLocal
inline constexpr uint32_t kOpenBytes = 1536;
inline constexpr uint32_t kWideBytes = 300 * 256;

struct Range {
  size_t begin = 0;
  size_t bytes = 0;
};

class Memory {
 public:
  Memory(engine::Endpoint& endpoint, verbs::ProtectionDomain& own, verbs::ProtectionDomain& other);

  [[nodiscard]] uint32_t key(Area area) const noexcept { return at(area).key; }
  [[nodiscard]] bool live(Area area) const noexcept { return at(area).live; }
  // Is this the key of an area that is registered now?
  [[nodiscard]] bool live(uint32_t key) const noexcept;
  void revoke(Area area) noexcept;
  void restore(Area area);

  [[nodiscard]] uint64_t address(Area area, uint32_t offset = 0) const noexcept;
  [[nodiscard]] std::byte* data(Area area) noexcept { return bytes_.data() + at(area).range.begin; }
  [[nodiscard]] Range range(Area area) const noexcept { return at(area).range; }
  [[nodiscard]] Range slot(uint32_t index) const noexcept {
    return {at(Area::kLocal).range.begin + size_t{index} * kSlotBytes, kSlotBytes};
  }

  // As the application writes to its own memory.
  void fill(const Range& range, uint8_t first);
  // Since the last call nothing but these ranges may have changed.
  void settle(std::span<const Range> writable);
  // The same for the area that is too large to be looked at after each step.
  void settle_wide() const;
  // What is being sent: bytes of a live region of the queue pairs' domain, for a READ one that may
  // be read, or what a window opens (`readable`). `elsewhere`: or bytes that are not of this memory
  // (inline data).
  void check_source(std::span<const std::byte> piece, bool read_response, bool elsewhere,
                    std::span<const Range> readable) const;
  // Where a window of this memory lies.
  [[nodiscard]] Range range(const verbs::MemoryRegion& window) const noexcept {
    return {static_cast<size_t>(window.base - bytes_.data()), window.length};
  }

 private:
  struct Placed {
    Range range;
    uint32_t access = 0;
    uint32_t key = 0;
    bool own = true;
    bool live = false;
  };
  [[nodiscard]] const Placed& at(Area area) const noexcept {
    return areas_[static_cast<size_t>(area)];
  }
  [[nodiscard]] Placed& at(Area area) noexcept { return areas_[static_cast<size_t>(area)]; }

  engine::Endpoint& endpoint_;
  verbs::ProtectionDomain& own_;
  verbs::ProtectionDomain& other_;
  std::array<Placed, kAreas> areas_;
  std::vector<std::byte> bytes_;
  std::vector<std::byte> shadow_;
};

}  // namespace tbt::fuzz
