// Responder: the little of a network stack that shows a peer on thunderbolt-net that its cable
// works, without I/O. It answers for one IPv4 and one IPv6 address, and for nobody else's:
//
//   ARP requests for our address             ICMP echo to it
//   neighbour solicitations for our address  ICMPv6 echo to it and to all nodes (ff02::1)
//
// It speaks only when it is asked, answers at most one packet with one of the same size, and never
// a packet that is itself an answer. So two responders do not keep each other going.
//
// Fragments of an echo request (IPv4) are answered one by one, without putting them together: the
// first one carries the ICMP header, and what changes in its checksum does not depend on the rest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ip/identity.h"

namespace tbt::ip {

struct ResponderStats {
  uint64_t answered = 0;
  uint64_t ignored = 0;    // for others, or of kinds that are not answered
  uint64_t malformed = 0;  // cut off, or a wrong checksum
};

// The internet checksum (RFC 1071) of big endian words, not yet folded or inverted.
uint32_t checksum_add(uint32_t sum, std::span<const std::byte> bytes) noexcept;
uint16_t checksum_fold(uint32_t sum) noexcept;

class Responder {
 public:
  explicit Responder(const Identity& me) : me_(me) {}

  // The answer to an Ethernet packet of at most 64 KiB; empty: none. Valid until the next call.
  std::span<const std::byte> handle(std::span<const std::byte> packet);
  [[nodiscard]] const Identity& identity() const noexcept { return me_; }
  [[nodiscard]] const ResponderStats& stats() const noexcept { return stats_; }

 private:
  enum class Verdict { kAnswer, kIgnore, kMalformed };
  // A fragmented echo request whose first fragment was answered.
  struct Fragmented {
    Ipv4 source{};
    uint16_t id = 0;
    bool live = false;
  };

  // Each looks at the packet, which is as long as an Ethernet header at least, and makes answer_.
  Verdict arp(std::span<const std::byte> packet);
  Verdict ipv4(std::span<const std::byte> packet);
  Verdict echo(bool first, bool last);
  Verdict follow_fragments(const Fragmented& whose, bool first, bool last);
  Verdict ipv6(std::span<const std::byte> packet);
  Verdict icmpv6(std::span<const std::byte> packet, size_t length);
  Verdict solicitation(std::span<const std::byte> packet, size_t length);
  void seal_icmpv6(size_t length);

  // answer_ becomes the packet's first `bytes`, back to where it came from.
  void turn_round(std::span<const std::byte> packet, size_t bytes);
  [[nodiscard]] bool is_for_us(const std::byte* mac) const noexcept;

  Identity me_;
  std::vector<std::byte> answer_;
  std::array<Fragmented, 4> fragmented_{};
  size_t next_fragmented_ = 0;
  ResponderStats stats_;
};

}  // namespace tbt::ip
