// InfiniBand packet headers as one value type, and the two functions between it and bytes.
//
// A packet on a native rail is LRH, optional GRH, BTH, extension headers, payload, pad. Bit layouts
// are those of IBTA vol. 1 (LRH 7.7, GRH 8.3, BTH 9.2, RETH/AETH/AtomicETH/ImmDt/IETH/DETH 9.3);
// all fields here are in host order except where said. The check that ends the packet belongs to
// frame.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/opcode.h"

namespace tbt::wire {

inline constexpr size_t kLrhBytes = 8;
inline constexpr size_t kGrhBytes = 40;
inline constexpr size_t kBthBytes = 12;
inline constexpr size_t kMaxHeaderBytes = kLrhBytes + kGrhBytes + kBthBytes + 32;

using GidBytes = std::array<uint8_t, 16>;

struct Grh {
  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;  // 20 bits
  uint8_t hop_limit = 0;
  GidBytes sgid{};
  GidBytes dgid{};
};

// AETH syndrome (IBTA vol. 1, 9.7.5.2.1): bits 6:5 select the kind, bits 4:0 its value.
enum class AethKind : uint8_t { kAck = 0, kRnrNak = 1, kReserved = 2, kNak = 3 };
enum class NakCode : uint8_t {
  kPsnSequenceError = 0,
  kInvalidRequest = 1,
  kRemoteAccessError = 2,
  kRemoteOperationalError = 3,
};
inline constexpr uint8_t kAethNoCredits = 0x1f;  // "end-to-end credits are not used"

constexpr uint8_t aeth_syndrome(AethKind kind, uint8_t value) noexcept {
  return static_cast<uint8_t>((static_cast<uint8_t>(kind) << 5) | (value & 0x1f));
}
constexpr AethKind aeth_kind(uint8_t syndrome) noexcept {
  return static_cast<AethKind>((syndrome >> 5) & 3);
}
constexpr uint8_t aeth_value(uint8_t syndrome) noexcept { return syndrome & 0x1f; }

// What a FLUSH asks for: where to the data shall have come, and of which part of the region.
enum FlushPlacement : uint32_t { kFlushGlobal = 1, kFlushPersistent = 2 };
enum class FlushSelectivity : uint8_t { kRange = 0, kRegion = 1 };
constexpr uint32_t feth(uint32_t placement, FlushSelectivity selectivity) noexcept {
  return placement | static_cast<uint32_t>(selectivity) << 4;
}
// Known placements, at least one, and a known selectivity.
constexpr bool feth_valid(uint32_t feth) noexcept {
  return (feth & ~0x13u) == 0 && (feth & 3) != 0;
}

// Everything before the payload. Extension fields are meaningful only where the opcode has them.
struct PacketHeaders {
  // LRH
  uint8_t sl = 0;
  uint16_t dlid = 0;
  uint16_t slid = 0;
  // GRH
  bool has_grh = false;
  Grh grh{};
  // BTH
  uint8_t opcode = 0;
  bool solicited = false;
  bool migreq = true;
  uint8_t pad = 0;  // set by encode_headers from the payload size; filled in by parse
  uint16_t pkey = 0xffff;
  uint32_t dest_qp = 0;  // 24 bits
  bool ack_req = false;
  uint32_t psn = 0;  // 24 bits
  // RETH
  uint64_t va = 0;
  uint32_t rkey = 0;  // also the key of an IETH
  uint32_t dma_length = 0;
  // FETH: bits 3:0 placement, 5:4 selectivity (FlushPlacement, FlushSelectivity); the others are 0
  uint32_t flush = 0;
  // XRCETH
  uint32_t srq_number = 0;  // 24 bits
  // AETH
  uint8_t syndrome = 0;
  uint32_t msn = 0;  // 24 bits
  // AtomicETH (va and rkey above) and AtomicAckETH
  uint64_t swap_add = 0;
  uint64_t compare = 0;
  uint64_t atomic_result = 0;
  // ImmDt: the four bytes as they stand on the wire, never swapped
  uint32_t imm_be = 0;
  // DETH
  uint32_t qkey = 0;
  uint32_t src_qp = 0;  // 24 bits; also the sender's QPN in a QpControl body
  // QpControl body (our opcodes 0xC0-0xC3): src_qp above, then three words whose meaning wire.md
  // gives
  std::array<uint32_t, 3> control{};

  [[nodiscard]] bool is(uint32_t flags) const noexcept { return opcode_has(opcode, flags); }
};

// Writes LRH to the last extension header for a payload of `payload_bytes` (LRH length and BTH pad
// are computed) and returns the number of bytes written. `out` must hold kMaxHeaderBytes; the
// opcode must be known.
size_t encode_headers(const PacketHeaders& headers, uint32_t payload_bytes,
                      std::span<std::byte> out) noexcept;

enum class ParseError : uint8_t {
  kNone,
  kTruncated,   // the bytes end inside a header
  kBadLength,   // LRH length disagrees with the bytes, or pad exceeds the payload
  kBadVersion,  // LVer, GRH IPVer or BTH TVer not what the IBA says
  kBadLink,     // LNH says the packet is raw
  kUnknownOpcode,
};
const char* parse_error_name(ParseError error) noexcept;

struct ParsedPacket {
  PacketHeaders headers;
  uint32_t header_bytes = 0;   // where the payload starts
  uint32_t payload_bytes = 0;  // without pad
};

// Parses the headers at the start of `bytes`. `packet_bytes` is the size of the whole packet,
// headers to pad. `bytes` is all of it, or exactly its headers (a head frame); anything between is
// kBadLength. Reads nothing outside `bytes`. Extension fields that the opcode has not, and the GRH
// without has_grh, keep what `out` held.
ParseError parse_packet(std::span<const std::byte> bytes, size_t packet_bytes,
                        ParsedPacket& out) noexcept;

}  // namespace tbt::wire
