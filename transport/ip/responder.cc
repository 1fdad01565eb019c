#include "ip/responder.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "ip/packet_layout.h"

namespace tbt::ip {

using base::load_be;
using base::store_be;

namespace {

constexpr uint16_t kGroupBit = 0x01;  // in a MAC address's first byte: of several hosts

bool is_group(const std::byte* mac) noexcept {
  return (std::to_integer<uint8_t>(mac[0]) & kGroupBit) != 0;
}

Ipv4 ipv4_at(const std::byte* at) noexcept {
  Ipv4 address;
  std::memcpy(address.data(), at, address.size());
  return address;
}

// An address that a single host can have.
bool is_host(const Ipv4& address) noexcept { return address[0] != 0 && address[0] < 224; }

}  // namespace

uint32_t checksum_add(uint32_t sum, std::span<const std::byte> bytes) noexcept {
  uint64_t wide = sum;
  size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) wide += load_be<uint16_t>(bytes.data() + i);
  if (i < bytes.size()) wide += std::to_integer<uint32_t>(bytes[i]) << 8;
  while (wide >> 32 != 0) wide = (wide & 0xffff'ffff) + (wide >> 32);
  return static_cast<uint32_t>(wide);
}

uint16_t checksum_fold(uint32_t sum) noexcept {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

std::span<const std::byte> Responder::handle(std::span<const std::byte> packet) {
  answer_.clear();
  Verdict verdict = Verdict::kMalformed;
  if (packet.size() >= kEthBytes) {
    const std::byte* const source = packet.data() + kEthSource;
    const uint16_t type = load_be<uint16_t>(packet.data() + kEthType);
    verdict = is_group(source) || is_for_us(source) || !is_for_us(packet.data()) ? Verdict::kIgnore
              : type == kTypeArp                                                 ? arp(packet)
              : type == kTypeIpv4                                                ? ipv4(packet)
              : type == kTypeIpv6                                                ? ipv6(packet)
                                                                                 : Verdict::kIgnore;
  }
  switch (verdict) {
    case Verdict::kAnswer:
      ++stats_.answered;
      return answer_;
    case Verdict::kIgnore:
      ++stats_.ignored;
      return {};
    case Verdict::kMalformed:
      break;
  }
  ++stats_.malformed;
  return {};
}

// Ours, or one of several hosts; of those what is inside decides.
bool Responder::is_for_us(const std::byte* mac) const noexcept {
  return is_group(mac) || std::memcmp(mac, me_.mac.data(), kMacBytes) == 0;
}

void Responder::turn_round(std::span<const std::byte> packet, size_t bytes) {
  answer_.assign(packet.begin(), packet.begin() + static_cast<ptrdiff_t>(bytes));
  std::memcpy(answer_.data(), packet.data() + kEthSource, kMacBytes);
  std::memcpy(answer_.data() + kEthSource, me_.mac.data(), kMacBytes);
}

// A probe, whose sender has no address yet, is answered too: the address is taken. An announcement,
// by which somebody takes ours, is not.
Responder::Verdict Responder::arp(std::span<const std::byte> packet) {
  if (packet.size() < kArpEnd) return Verdict::kMalformed;
  const std::byte* const p = packet.data();
  const uint64_t kind =
      uint64_t{load_be<uint32_t>(p + kArp)} << 16 | load_be<uint16_t>(p + kArp + 4);
  if (kind != kArpEthernetIpv4 || load_be<uint16_t>(p + kArpOperation) != kArpRequest ||
      ipv4_at(p + kArpTarget) != me_.ipv4 || ipv4_at(p + kArpSender) == me_.ipv4) {
    return Verdict::kIgnore;
  }
  turn_round(packet, kArpEnd);
  std::byte* const a = answer_.data();
  store_be(a + kArpOperation, kArpReply);
  std::memcpy(a + kArpTargetMac, p + kArpSenderMac, kMacBytes + me_.ipv4.size());
  std::memcpy(a + kArpSenderMac, me_.mac.data(), kMacBytes);
  std::memcpy(a + kArpSender, me_.ipv4.data(), me_.ipv4.size());
  return Verdict::kAnswer;
}

Responder::Verdict Responder::ipv4(std::span<const std::byte> packet) {
  if (packet.size() < kIpEnd) return Verdict::kMalformed;
  const std::byte* const p = packet.data();
  const size_t length = load_be<uint16_t>(p + kIpLength);  // the rest fills a short packet up
  if (length < kIpEnd - kIp || length > packet.size() - kIp) return Verdict::kMalformed;
  if (std::to_integer<uint8_t>(p[kIp]) != kIpNoOptions) return Verdict::kIgnore;
  if (checksum_fold(checksum_add(0, packet.subspan(kIp, kIpEnd - kIp))) != 0xffff) {
    return Verdict::kMalformed;
  }
  const Ipv4 source = ipv4_at(p + kIpSource);
  if (std::to_integer<uint8_t>(p[kIpProtocol]) != kProtocolIcmp || is_group(p) ||
      ipv4_at(p + kIpTarget) != me_.ipv4 || source == me_.ipv4 || !is_host(source)) {
    return Verdict::kIgnore;
  }
  const uint16_t fragment = load_be<uint16_t>(p + kIpFragment);
  const bool first = (fragment & kFragmentOffset) == 0, last = (fragment & kMoreFragments) == 0;
  turn_round(packet, kIp + length);
  std::byte* const a = answer_.data();
  if (!first || !last) {
    const Fragmented whose{source, load_be<uint16_t>(p + kIpId), true};
    if (const Verdict v = follow_fragments(whose, first, last); v != Verdict::kAnswer) return v;
  }
  std::memcpy(a + kIpSource, me_.ipv4.data(), me_.ipv4.size());
  std::memcpy(a + kIpTarget, source.data(), source.size());
  a[kIpTtl] = std::byte{kTtl};
  store_be(a + kIpChecksum, uint16_t{0});
  const auto header = std::span<const std::byte>(answer_).subspan(kIp, kIpEnd - kIp);
  store_be(a + kIpChecksum, static_cast<uint16_t>(~checksum_fold(checksum_add(0, header))));
  return first ? echo(first, last) : Verdict::kAnswer;
}

// answer_ is still the request where ICMP begins.
Responder::Verdict Responder::echo(bool first, bool last) {
  const auto icmp = std::span<std::byte>(answer_).subspan(kIpEnd);
  if (icmp.size() < kIcmpBytes) return Verdict::kMalformed;
  if (icmp[0] != std::byte{kEchoRequest} || icmp[1] != std::byte{0}) return Verdict::kIgnore;
  if (first && last && checksum_fold(checksum_add(0, icmp)) != 0xffff) return Verdict::kMalformed;
  // The type is the high half of the first word, and goes from 8 to 0 (RFC 1624).
  constexpr uint32_t kChange = uint32_t{kEchoRequest} << 8;
  const uint16_t old = load_be<uint16_t>(answer_.data() + kIcmpChecksum);
  icmp[0] = std::byte{kEchoReply};
  store_be(answer_.data() + kIcmpChecksum, checksum_fold(uint32_t{old} + kChange));
  return Verdict::kAnswer;
}

// Fragments after the first do not say of what they are: only those of a request that was answered
// are. If the first one is no echo request, this is left without effect.
Responder::Verdict Responder::follow_fragments(const Fragmented& whose, bool first, bool last) {
  const auto same = [&whose](const Fragmented& f) {
    return f.live && f.source == whose.source && f.id == whose.id;
  };
  const auto known = std::ranges::find_if(fragmented_, same);
  if (!first) {
    if (known == fragmented_.end()) return Verdict::kIgnore;
    if (last) known->live = false;
    return Verdict::kAnswer;
  }
  const auto icmp = std::span<const std::byte>(answer_).subspan(kIpEnd);
  if (icmp.empty() || icmp[0] != std::byte{kEchoRequest}) return Verdict::kIgnore;
  if (known == fragmented_.end()) {
    fragmented_[next_fragmented_] = whose;
    next_fragmented_ = (next_fragmented_ + 1) % fragmented_.size();
  }
  return Verdict::kAnswer;
}

}  // namespace tbt::ip
