// The table behind opcode.h, one line per opcode in numerical order. The extension headers' sizes
// are summed from the flags, so that a line cannot contradict itself.
#include "wire/opcode.h"

#include <array>

namespace tbt::wire {
namespace {

constexpr uint32_t kFirst = kOpStart;
constexpr uint32_t kLast = kOpEnd;
constexpr uint32_t kOnly = kOpStart | kOpEnd;
constexpr uint32_t kData = kOpRequest | kOpPayload;
constexpr uint32_t kSend = kData | kOpSend;
constexpr uint32_t kWrite = kData | kOpWrite;
constexpr uint32_t kReadResponse = kOpResponse | kOpRead | kOpPayload;
constexpr uint32_t kAtomicRequest = kOpRequest | kOpAtomic | kOpAtomicEth | kOnly;

constexpr uint8_t ext_bytes_of(uint32_t flags) {
  uint32_t bytes = 0;
  if (flags & kOpDeth) bytes += 8;
  if (flags & kOpFeth) bytes += 4;
  if (flags & kOpXrceth) bytes += 4;
  if (flags & kOpReth) bytes += 16;
  if (flags & kOpAtomicEth) bytes += 28;
  if (flags & kOpAeth) bytes += 4;
  if (flags & kOpAtomicAckEth) bytes += 8;
  if (flags & kOpImm) bytes += 4;
  if (flags & kOpIeth) bytes += 4;
  if (flags & kOpControl) bytes += 16;
  return static_cast<uint8_t>(bytes);
}

struct Row {
  Opcode opcode;
  const char* name;
  uint32_t flags;
};

constexpr Row kRows[] = {
    {Opcode::kRcSendFirst, "rc send first", kSend | kFirst},
    {Opcode::kRcSendMiddle, "rc send middle", kSend},
    {Opcode::kRcSendLast, "rc send last", kSend | kLast},
    {Opcode::kRcSendLastImm, "rc send last imm", kSend | kLast | kOpImm},
    {Opcode::kRcSendOnly, "rc send only", kSend | kOnly},
    {Opcode::kRcSendOnlyImm, "rc send only imm", kSend | kOnly | kOpImm},
    {Opcode::kRcWriteFirst, "rc write first", kWrite | kFirst | kOpReth},
    {Opcode::kRcWriteMiddle, "rc write middle", kWrite},
    {Opcode::kRcWriteLast, "rc write last", kWrite | kLast},
    {Opcode::kRcWriteLastImm, "rc write last imm", kWrite | kLast | kOpImm},
    {Opcode::kRcWriteOnly, "rc write only", kWrite | kOnly | kOpReth},
    {Opcode::kRcWriteOnlyImm, "rc write only imm", kWrite | kOnly | kOpReth | kOpImm},
    {Opcode::kRcReadRequest, "rc read request", kOpRequest | kOpRead | kOnly | kOpReth},
    {Opcode::kRcReadResponseFirst, "rc read response first", kReadResponse | kFirst | kOpAeth},
    {Opcode::kRcReadResponseMiddle, "rc read response middle", kReadResponse},
    {Opcode::kRcReadResponseLast, "rc read response last", kReadResponse | kLast | kOpAeth},
    {Opcode::kRcReadResponseOnly, "rc read response only", kReadResponse | kOnly | kOpAeth},
    {Opcode::kRcAck, "rc ack", kOpResponse | kOnly | kOpAeth},
    {Opcode::kRcAtomicAck, "rc atomic ack",
     kOpResponse | kOpAtomic | kOnly | kOpAeth | kOpAtomicAckEth},
    {Opcode::kRcCmpSwap, "rc compare swap", kAtomicRequest},
    {Opcode::kRcFetchAdd, "rc fetch add", kAtomicRequest},
    {Opcode::kRcSendLastInv, "rc send last inv", kSend | kLast | kOpIeth},
    {Opcode::kRcSendOnlyInv, "rc send only inv", kSend | kOnly | kOpIeth},
    {Opcode::kRcFlush, "rc flush", kOpRequest | kOnly | kOpFeth | kOpReth},
    {Opcode::kRcAtomicWrite, "rc atomic write", kData | kOpAtomicWrite | kOnly | kOpReth},
    {Opcode::kUcSendFirst, "uc send first", kSend | kFirst},
    {Opcode::kUcSendMiddle, "uc send middle", kSend},
    {Opcode::kUcSendLast, "uc send last", kSend | kLast},
    {Opcode::kUcSendLastImm, "uc send last imm", kSend | kLast | kOpImm},
    {Opcode::kUcSendOnly, "uc send only", kSend | kOnly},
    {Opcode::kUcSendOnlyImm, "uc send only imm", kSend | kOnly | kOpImm},
    {Opcode::kUcWriteFirst, "uc write first", kWrite | kFirst | kOpReth},
    {Opcode::kUcWriteMiddle, "uc write middle", kWrite},
    {Opcode::kUcWriteLast, "uc write last", kWrite | kLast},
    {Opcode::kUcWriteLastImm, "uc write last imm", kWrite | kLast | kOpImm},
    {Opcode::kUcWriteOnly, "uc write only", kWrite | kOnly | kOpReth},
    {Opcode::kUcWriteOnlyImm, "uc write only imm", kWrite | kOnly | kOpReth | kOpImm},
    {Opcode::kUdSendOnly, "ud send only", kSend | kOnly | kOpDeth},
    {Opcode::kUdSendOnlyImm, "ud send only imm", kSend | kOnly | kOpDeth | kOpImm},
    {xrc(Opcode::kRcSendFirst), "xrc send first", kSend | kFirst | kOpXrceth},
    {xrc(Opcode::kRcSendMiddle), "xrc send middle", kSend | kOpXrceth},
    {xrc(Opcode::kRcSendLast), "xrc send last", kSend | kLast | kOpXrceth},
    {xrc(Opcode::kRcSendLastImm), "xrc send last imm", kSend | kLast | kOpImm | kOpXrceth},
    {xrc(Opcode::kRcSendOnly), "xrc send only", kSend | kOnly | kOpXrceth},
    {xrc(Opcode::kRcSendOnlyImm), "xrc send only imm", kSend | kOnly | kOpImm | kOpXrceth},
    {xrc(Opcode::kRcWriteFirst), "xrc write first", kWrite | kFirst | kOpReth | kOpXrceth},
    {xrc(Opcode::kRcWriteMiddle), "xrc write middle", kWrite | kOpXrceth},
    {xrc(Opcode::kRcWriteLast), "xrc write last", kWrite | kLast | kOpXrceth},
    {xrc(Opcode::kRcWriteLastImm), "xrc write last imm", kWrite | kLast | kOpImm | kOpXrceth},
    {xrc(Opcode::kRcWriteOnly), "xrc write only", kWrite | kOnly | kOpReth | kOpXrceth},
    {xrc(Opcode::kRcWriteOnlyImm), "xrc write only imm",
     kWrite | kOnly | kOpReth | kOpImm | kOpXrceth},
    {xrc(Opcode::kRcReadRequest), "xrc read request",
     kOpRequest | kOpRead | kOnly | kOpReth | kOpXrceth},
    {xrc(Opcode::kRcReadResponseFirst), "xrc read response first",
     kReadResponse | kFirst | kOpAeth},
    {xrc(Opcode::kRcReadResponseMiddle), "xrc read response middle", kReadResponse},
    {xrc(Opcode::kRcReadResponseLast), "xrc read response last", kReadResponse | kLast | kOpAeth},
    {xrc(Opcode::kRcReadResponseOnly), "xrc read response only", kReadResponse | kOnly | kOpAeth},
    {xrc(Opcode::kRcAck), "xrc ack", kOpResponse | kOnly | kOpAeth},
    {xrc(Opcode::kRcAtomicAck), "xrc atomic ack",
     kOpResponse | kOpAtomic | kOnly | kOpAeth | kOpAtomicAckEth},
    {xrc(Opcode::kRcCmpSwap), "xrc compare swap", kAtomicRequest | kOpXrceth},
    {xrc(Opcode::kRcFetchAdd), "xrc fetch add", kAtomicRequest | kOpXrceth},
    {xrc(Opcode::kRcSendLastInv), "xrc send last inv", kSend | kLast | kOpIeth | kOpXrceth},
    {xrc(Opcode::kRcSendOnlyInv), "xrc send only inv", kSend | kOnly | kOpIeth | kOpXrceth},
    {Opcode::kQpReset, "qp reset", kOpControl | kOnly},
    {Opcode::kUcCredit, "uc credit", kOpControl | kOnly},
    {Opcode::kUcCreditRequest, "uc credit request", kOpControl | kOnly},
    {Opcode::kRcSack, "rc sack", kOpAeth | kOpControl | kOpPayload | kOnly},
};

constexpr std::array<OpcodeInfo, 256> make_table() {
  std::array<OpcodeInfo, 256> table{};
  for (const Row& row : kRows) {
    table[static_cast<uint8_t>(row.opcode)] = {row.name, row.flags, ext_bytes_of(row.flags)};
  }
  return table;
}

constexpr std::array<OpcodeInfo, 256> kTable = make_table();

}  // namespace

const OpcodeInfo& opcode_info(uint8_t opcode) noexcept { return kTable[opcode]; }

}  // namespace tbt::wire
