// The BTH opcode table: for every opcode of RC, UC, UD and XRC what it is and which headers follow
// the BTH, as data (IBTA vol. 1, table 35 "OpCode field"; the kernel keeps the same table in
// rxe_opcode.c). Four manufacturer-specific opcodes (0xC0-0xC3) carry our own queue-pair control
// messages; docs/wire.md.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tbt::wire {

enum class Opcode : uint8_t {
  kRcSendFirst = 0x00,
  kRcSendMiddle = 0x01,
  kRcSendLast = 0x02,
  kRcSendLastImm = 0x03,
  kRcSendOnly = 0x04,
  kRcSendOnlyImm = 0x05,
  kRcWriteFirst = 0x06,
  kRcWriteMiddle = 0x07,
  kRcWriteLast = 0x08,
  kRcWriteLastImm = 0x09,
  kRcWriteOnly = 0x0a,
  kRcWriteOnlyImm = 0x0b,
  kRcReadRequest = 0x0c,
  kRcReadResponseFirst = 0x0d,
  kRcReadResponseMiddle = 0x0e,
  kRcReadResponseLast = 0x0f,
  kRcReadResponseOnly = 0x10,
  kRcAck = 0x11,
  kRcAtomicAck = 0x12,
  kRcCmpSwap = 0x13,
  kRcFetchAdd = 0x14,
  kRcSendLastInv = 0x16,
  kRcSendOnlyInv = 0x17,
  kRcFlush = 0x1c,        // these two: IBTA vol. 1, annex A19 "Memory Placement Extensions"
  kRcAtomicWrite = 0x1d,  // answered like a READ of no bytes
  kUcSendFirst = 0x20,
  kUcSendMiddle = 0x21,
  kUcSendLast = 0x22,
  kUcSendLastImm = 0x23,
  kUcSendOnly = 0x24,
  kUcSendOnlyImm = 0x25,
  kUcWriteFirst = 0x26,
  kUcWriteMiddle = 0x27,
  kUcWriteLast = 0x28,
  kUcWriteLastImm = 0x29,
  kUcWriteOnly = 0x2a,
  kUcWriteOnlyImm = 0x2b,
  kUdSendOnly = 0x64,
  kUdSendOnlyImm = 0x65,
  kQpReset = 0xc0,   // the named QP's peer is gone; body: QpControl
  kUcCredit = 0xc1,  // UC wait mode: receiver -> sender, how many messages may have been sent
  kUcCreditRequest = 0xc2,  // UC wait mode: sender -> receiver, asks for kUcCredit
  kRcSack =
      0xc3  // RC: an acknowledge that also says which later packets have arrived; AETH, QpControl
};

// XRC numbers its packets as RC does, from here on, and puts an XRCETH into every request.
inline constexpr uint8_t kXrcBase = 0xa0;
constexpr Opcode xrc(Opcode rc) noexcept {
  return static_cast<Opcode>(static_cast<uint8_t>(rc) | kXrcBase);
}

// Properties of an opcode; a bit set.
enum OpcodeFlags : uint32_t {
  kOpRequest = 1u << 0,   // requester -> responder
  kOpResponse = 1u << 1,  // responder -> requester
  kOpSend = 1u << 2,
  kOpWrite = 1u << 3,
  kOpRead = 1u << 4,     // read request or read response
  kOpAtomic = 1u << 5,   // atomic request or atomic acknowledge
  kOpStart = 1u << 6,    // FIRST or ONLY
  kOpEnd = 1u << 7,      // LAST or ONLY
  kOpPayload = 1u << 8,  // may carry payload
  kOpReth = 1u << 9,
  kOpAeth = 1u << 10,
  kOpAtomicEth = 1u << 11,
  kOpAtomicAckEth = 1u << 12,
  kOpImm = 1u << 13,
  kOpIeth = 1u << 14,
  kOpDeth = 1u << 15,
  kOpControl = 1u << 16,  // ours: a QpControl body follows the BTH
  kOpFeth = 1u << 17,     // FLUSH
  kOpAtomicWrite = 1u << 18,
  kOpXrceth = 1u << 19,
};

struct OpcodeInfo {
  const char* name = nullptr;  // nullptr: not an opcode we know
  uint32_t flags = 0;
  uint8_t ext_bytes = 0;  // extension headers after the BTH
};

// Never fails: an unknown opcode yields an entry with name == nullptr and no flags.
const OpcodeInfo& opcode_info(uint8_t opcode) noexcept;

inline bool opcode_has(uint8_t opcode, uint32_t flags) noexcept {
  return (opcode_info(opcode).flags & flags) == flags;
}

// The transport service in the opcode's three high bits: 0 RC, 1 UC, 3 UD, 5 XRC, 6 and 7
// manufacturer specific.
constexpr uint8_t opcode_service(uint8_t opcode) noexcept { return opcode >> 5; }

}  // namespace tbt::wire
