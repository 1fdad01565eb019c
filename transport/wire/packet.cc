// Headers to bytes and back. Every length is compared once, before the loads that it permits; from
// there on the code only branches on the opcode's flags (one table line), so that a packet costs a
// few nanoseconds.
#include "wire/packet.h"

#include "base/assert.h"
#include "base/bytes.h"

namespace tbt::wire {
namespace {

using base::load_be;
using base::store_be;

// LRH "link next header", IBTA 7.7.5: the two values that announce an IBA transport header.
constexpr uint8_t kLnhBth = 2;
constexpr uint8_t kLnhGrh = 3;
constexpr uint8_t kGrhIpVersion = 6;
constexpr uint8_t kGrhNextHeader = 0x1b;
// The ICRC is not sent (the frame's check stands in its place) but the IBA's length fields count
// it.
constexpr uint32_t kIcrcBytes = 4;
constexpr uint32_t k24Bits = 0xffffff;
// Extension headers between BTH and RETH: one of them at most.
constexpr uint32_t kBeforeReth = kOpDeth | kOpFeth | kOpXrceth;

void put_lrh(const PacketHeaders& h, size_t packet_bytes, std::byte* p) noexcept {
  p[0] = std::byte{0};  // VL 0, LVer 0
  p[1] = static_cast<std::byte>((h.sl << 4) | (h.has_grh ? kLnhGrh : kLnhBth));
  store_be<uint16_t>(p + 2, h.dlid);
  store_be<uint16_t>(p + 4, static_cast<uint16_t>((packet_bytes + kIcrcBytes) / 4));
  store_be<uint16_t>(p + 6, h.slid);
}

void put_grh(const Grh& g, size_t packet_bytes, std::byte* p) noexcept {
  store_be<uint32_t>(p, (uint32_t{kGrhIpVersion} << 28) | (uint32_t{g.traffic_class} << 20) |
                            (g.flow_label & 0xfffff));
  store_be<uint16_t>(p + 4,
                     static_cast<uint16_t>(packet_bytes - kLrhBytes - kGrhBytes + kIcrcBytes));
  p[6] = std::byte{kGrhNextHeader};
  p[7] = static_cast<std::byte>(g.hop_limit);
  std::memcpy(p + 8, g.sgid.data(), g.sgid.size());
  std::memcpy(p + 24, g.dgid.data(), g.dgid.size());
}

void put_bth(const PacketHeaders& h, uint32_t pad, std::byte* p) noexcept {
  p[0] = static_cast<std::byte>(h.opcode);
  p[1] = static_cast<std::byte>((h.solicited ? 0x80 : 0) | (h.migreq ? 0x40 : 0) | (pad << 4));
  store_be<uint16_t>(p + 2, h.pkey);
  store_be<uint32_t>(p + 4, h.dest_qp & k24Bits);
  store_be<uint32_t>(p + 8, (h.ack_req ? 0x80000000u : 0u) | (h.psn & k24Bits));
}

std::byte* put_control(const PacketHeaders& h, std::byte* p) noexcept {
  store_be<uint32_t>(p, h.src_qp & k24Bits);
  for (size_t i = 0; i < h.control.size(); ++i) store_be<uint32_t>(p + 4 + 4 * i, h.control[i]);
  return p + 16;
}

std::byte* put_atomic_eth(const PacketHeaders& h, std::byte* p) noexcept {
  store_be<uint64_t>(p, h.va);
  store_be<uint32_t>(p + 8, h.rkey);
  store_be<uint64_t>(p + 12, h.swap_add);
  store_be<uint64_t>(p + 20, h.compare);
  return p + 28;
}

void put_ext(const PacketHeaders& h, uint32_t flags, std::byte* p) noexcept {
  if ((flags & kBeforeReth) == 0) {
    // so most packets
  } else if (flags & kOpDeth) {
    store_be<uint32_t>(p, h.qkey);
    store_be<uint32_t>(p + 4, h.src_qp & k24Bits);
    p += 8;
  } else {
    store_be<uint32_t>(p, flags & kOpFeth ? h.flush : h.srq_number & k24Bits);
    p += 4;
  }
  if (flags & kOpReth) {
    store_be<uint64_t>(p, h.va);
    store_be<uint32_t>(p + 8, h.rkey);
    store_be<uint32_t>(p + 12, h.dma_length);
    p += 16;
  }
  if (flags & kOpAeth) {
    store_be<uint32_t>(p, (uint32_t{h.syndrome} << 24) | (h.msn & k24Bits));
    p += 4;
  }
  if (flags & kOpImm) {
    base::store<uint32_t>(p, h.imm_be);
    p += 4;
  }
  constexpr uint32_t kRare = kOpAtomicEth | kOpAtomicAckEth | kOpIeth | kOpControl;
  if ((flags & kRare) == 0) return;
  if (flags & kOpAtomicEth) p = put_atomic_eth(h, p);
  if (flags & kOpAtomicAckEth) store_be<uint64_t>(p, h.atomic_result);
  if (flags & kOpIeth) store_be<uint32_t>(p, h.rkey);
  if (flags & kOpControl) put_control(h, p);
}

void get_grh(const std::byte* p, Grh& g) noexcept {
  const uint32_t first = load_be<uint32_t>(p);
  g.traffic_class = static_cast<uint8_t>(first >> 20);
  g.flow_label = first & 0xfffff;
  g.hop_limit = static_cast<uint8_t>(p[7]);
  std::memcpy(g.sgid.data(), p + 8, g.sgid.size());
  std::memcpy(g.dgid.data(), p + 24, g.dgid.size());
}

ParseError check_grh(const std::byte* p, size_t packet_bytes) noexcept {
  if ((static_cast<uint8_t>(p[0]) >> 4) != kGrhIpVersion) return ParseError::kBadVersion;
  if (static_cast<uint8_t>(p[6]) != kGrhNextHeader) return ParseError::kBadVersion;
  const size_t expected = packet_bytes - kLrhBytes - kGrhBytes + kIcrcBytes;
  return load_be<uint16_t>(p + 4) == expected ? ParseError::kNone : ParseError::kBadLength;
}

void get_bth(const std::byte* p, PacketHeaders& h) noexcept {
  const auto second = static_cast<uint8_t>(p[1]);
  h.opcode = static_cast<uint8_t>(p[0]);
  h.solicited = (second & 0x80) != 0;
  h.migreq = (second & 0x40) != 0;
  h.pad = (second >> 4) & 3;
  h.pkey = load_be<uint16_t>(p + 2);
  h.dest_qp = load_be<uint32_t>(p + 4) & k24Bits;
  const uint32_t last = load_be<uint32_t>(p + 8);
  h.ack_req = (last >> 31) != 0;
  h.psn = last & k24Bits;
}

void get_rare(const std::byte* p, uint32_t flags, PacketHeaders& h) noexcept {
  if (flags & kOpAtomicEth) {
    h.va = load_be<uint64_t>(p);
    h.rkey = load_be<uint32_t>(p + 8);
    h.swap_add = load_be<uint64_t>(p + 12);
    h.compare = load_be<uint64_t>(p + 20);
  }
  if (flags & kOpAtomicAckEth) h.atomic_result = load_be<uint64_t>(p);
  if (flags & kOpIeth) h.rkey = load_be<uint32_t>(p);
  if (flags & kOpControl) {
    h.src_qp = load_be<uint32_t>(p) & k24Bits;
    for (size_t i = 0; i < h.control.size(); ++i) h.control[i] = load_be<uint32_t>(p + 4 + 4 * i);
  }
}

void get_ext(const std::byte* p, uint32_t flags, PacketHeaders& h) noexcept {
  if ((flags & kBeforeReth) == 0) {
    // so most packets
  } else if (flags & kOpDeth) {
    h.qkey = load_be<uint32_t>(p);
    h.src_qp = load_be<uint32_t>(p + 4) & k24Bits;
    p += 8;
  } else if (flags & kOpFeth) {
    h.flush = load_be<uint32_t>(p);
    p += 4;
  } else {
    h.srq_number = load_be<uint32_t>(p) & k24Bits;
    p += 4;
  }
  if (flags & kOpReth) {
    h.va = load_be<uint64_t>(p);
    h.rkey = load_be<uint32_t>(p + 8);
    h.dma_length = load_be<uint32_t>(p + 12);
    p += 16;
  }
  if (flags & kOpAeth) {
    h.syndrome = static_cast<uint8_t>(p[0]);
    h.msn = load_be<uint32_t>(p) & k24Bits;
    p += 4;
  }
  if (flags & kOpImm) {
    h.imm_be = base::load<uint32_t>(p);
    p += 4;
  }
  get_rare(p, flags, h);
}

// LRH and GRH: fills in their fields and says how many bytes they are.
ParseError parse_link(std::span<const std::byte> bytes, size_t packet_bytes, PacketHeaders& h,
                      size_t& used) noexcept {
  if (bytes.size() < kLrhBytes) return ParseError::kTruncated;
  const std::byte* p = bytes.data();
  const auto second = static_cast<uint8_t>(p[1]);
  if ((static_cast<uint8_t>(p[0]) & 0x0f) != 0) return ParseError::kBadVersion;
  const uint8_t lnh = second & 3;
  if (lnh != kLnhBth && lnh != kLnhGrh) return ParseError::kBadLink;
  const size_t words = load_be<uint16_t>(p + 4) & 0x7ff;
  if (words * 4 != packet_bytes + kIcrcBytes || bytes.size() > packet_bytes)
    return ParseError::kBadLength;
  h.sl = second >> 4;
  h.dlid = load_be<uint16_t>(p + 2);
  h.slid = load_be<uint16_t>(p + 6);
  h.has_grh = lnh == kLnhGrh;
  used = kLrhBytes;
  if (!h.has_grh) return ParseError::kNone;
  if (bytes.size() < kLrhBytes + kGrhBytes) return ParseError::kTruncated;
  used = kLrhBytes + kGrhBytes;
  const ParseError error = check_grh(p + kLrhBytes, packet_bytes);
  if (error == ParseError::kNone) get_grh(p + kLrhBytes, h.grh);
  return error;
}

}  // namespace

size_t encode_headers(const PacketHeaders& headers, uint32_t payload_bytes,
                      std::span<std::byte> out) noexcept {
  const OpcodeInfo& info = opcode_info(headers.opcode);
  TBT_DCHECK(info.name != nullptr && out.size() >= kMaxHeaderBytes);
  TBT_DCHECK(payload_bytes == 0 || (info.flags & kOpPayload) != 0);
  const uint32_t pad = (0u - payload_bytes) & 3;
  const size_t header_bytes =
      kLrhBytes + (headers.has_grh ? kGrhBytes : 0) + kBthBytes + size_t{info.ext_bytes};
  const size_t packet_bytes = header_bytes + payload_bytes + pad;
  std::byte* p = out.data();
  put_lrh(headers, packet_bytes, p);
  p += kLrhBytes;
  if (headers.has_grh) {
    put_grh(headers.grh, packet_bytes, p);
    p += kGrhBytes;
  }
  put_bth(headers, pad, p);
  put_ext(headers, info.flags, p + kBthBytes);
  return header_bytes;
}

ParseError parse_packet(std::span<const std::byte> bytes, size_t packet_bytes,
                        ParsedPacket& out) noexcept {
  PacketHeaders& h = out.headers;
  size_t used = 0;
  const ParseError error = parse_link(bytes, packet_bytes, h, used);
  if (error != ParseError::kNone) return error;
  if (bytes.size() < used + kBthBytes) return ParseError::kTruncated;
  const std::byte* bth = bytes.data() + used;
  get_bth(bth, h);
  if ((static_cast<uint8_t>(bth[1]) & 0x0f) != 0) return ParseError::kBadVersion;
  const OpcodeInfo& info = opcode_info(h.opcode);
  if (info.name == nullptr) return ParseError::kUnknownOpcode;
  used += kBthBytes + info.ext_bytes;
  if (bytes.size() < used) return ParseError::kTruncated;
  // A head frame ends with the last header: all of the payload is in the payload frame, or none.
  if (bytes.size() != used && bytes.size() != packet_bytes) return ParseError::kBadLength;
  get_ext(bth + kBthBytes, info.flags, h);
  // bytes.size() <= packet_bytes was checked with the LRH, so this does not go below zero.
  const size_t rest = packet_bytes - used;
  if (h.pad > rest || (rest != 0 && (info.flags & kOpPayload) == 0)) return ParseError::kBadLength;
  out.header_bytes = static_cast<uint32_t>(used);
  out.payload_bytes = static_cast<uint32_t>(rest - h.pad);
  return ParseError::kNone;
}

const char* parse_error_name(ParseError error) noexcept {
  switch (error) {
    case ParseError::kNone:
      return "none";
    case ParseError::kTruncated:
      return "truncated";
    case ParseError::kBadLength:
      return "bad length";
    case ParseError::kBadVersion:
      return "bad version";
    case ParseError::kBadLink:
      return "bad link header";
    case ParseError::kUnknownOpcode:
      return "unknown opcode";
  }
  return "?";
}

}  // namespace tbt::wire
