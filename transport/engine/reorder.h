// ReorderBuffer: packets of requests that came before their turn, kept until the gap is filled.
//
// One per queue pair, made at its first gap. A place per PSN of the window; the packets themselves
// come from the endpoint's PacketStore, which bounds what all peers together can make us keep
// (T10).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "wire/packet.h"

namespace tbt::engine {

// Packets ahead of the expected one that are kept, and what a sender remembers of them. A power of
// two, so that a PSN's low bits name its place.
inline constexpr uint32_t kReorderPackets = 1024;

struct StoredPacket {
  wire::ParsedPacket packet;
  std::array<std::byte, 4096> payload;
};

class PacketStore {
 public:
  explicit PacketStore(uint32_t packets_max) : left_(packets_max) {}

  // A queue pair that holds so many may take one more while so many are free. The more are taken,
  // the less each may hold: one of few may fill its window (Options::early_packets is nine of
  // them), and however many a peer has, its greed leaves an eighth of what is free to the next one
  // that loses a packet.
  static constexpr bool may_take(uint32_t held, uint32_t free) noexcept {
    return free != 0 && (held < kAlways || held < free / 8);
  }
  // nullptr: the budget, or what a queue pair that holds so many may have of it, is used up.
  std::unique_ptr<StoredPacket> take(uint32_t held);
  void give_back(std::unique_ptr<StoredPacket> packet) noexcept;

 private:
  static constexpr uint32_t kAlways = 4;
  uint32_t left_;           // that may still be allocated
  uint32_t allocated_ = 0;  // spare_ has room for all of them, so giving back cannot fail
  std::vector<std::unique_ptr<StoredPacket>> spare_;
};

class ReorderBuffer {
 public:
  explicit ReorderBuffer(PacketStore& store) : store_(store) {}
  ~ReorderBuffer();
  ReorderBuffer(const ReorderBuffer&) = delete;
  ReorderBuffer& operator=(const ReorderBuffer&) = delete;

  [[nodiscard]] uint32_t count() const noexcept { return count_; }
  [[nodiscard]] bool has(uint32_t psn) const noexcept {
    return is_used(psn) && numbers_[psn % kReorderPackets] == psn;
  }
  // Which of the 32 packets from `first` on are kept: bit i is `first` + i.
  [[nodiscard]] uint32_t kept_from(uint32_t first) const noexcept;
  // True if it is kept now, or was already.
  bool keep(const wire::ParsedPacket& packet, std::span<const std::byte> payload);
  // The packet of this PSN leaves the buffer; nullptr if it is not there. It goes back to the
  // store.
  std::unique_ptr<StoredPacket> take(uint32_t psn) noexcept;

  // The part of a SACK that does not fit into its headers, while it is sent.
  std::array<std::byte, kReorderPackets / 8> sack_tail;

 private:
  [[nodiscard]] bool is_used(uint32_t psn) const noexcept {
    return (used_[psn % kReorderPackets / 64] >> (psn % 64) & 1) != 0;
  }

  PacketStore& store_;
  std::array<std::unique_ptr<StoredPacket>, kReorderPackets> places_;
  std::array<uint32_t, kReorderPackets> numbers_{};    // the PSNs of those in use
  std::array<uint64_t, kReorderPackets / 64> used_{};  // a bit per place
  uint32_t count_ = 0;
};

}  // namespace tbt::engine
