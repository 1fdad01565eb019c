#include "tests/sim/sabotage.h"

#include <algorithm>
#include <utility>

#include "tests/sim/node.h"
#include "wire/psn.h"

namespace tbt::sim {

namespace {

using wire::AethKind;
using wire::Opcode;
using wire::psn_add;
using wire::psn_diff;

constexpr const char* kNames[] = {
    "nothing",
    "payload: a bit is flipped",
    "payload: shifted by one byte",
    "READ answered with old bytes",
    "atomic answered with a wrong value",
    "immediate: a bit is flipped",
    "WRITE one byte beyond its buffer",
    "UC credits never leave",
    "UC credits for receives that are not there",
    "RC credits for receives that are not there",
    "RNR NAK swallowed",
    "source QPN of a datagram wrong",
    "datagram lost on a clean cable",
    "packets never leave",
    "acknowledge taken for one packet more",
    "SEND acknowledged and not delivered",
    "WRITE acknowledged and not placed",
    "duplicate SEND delivered again",
    "duplicate atomic done again",
    "old WRITE placed again",
    "packet behind a gap taken as the next",
    "byte behind a message overwritten",
    "datagram delivered twice",
    "Q_Key ignored",
    "bit in the written memory flipped",
    "byte behind a written buffer overwritten",
    "completion lost",
    "completion twice",
    "completions out of order",
    "success reported as an error",
    "error reported as success",
    "flush completions missing",
    "byte_len wrong",
    "wr_id wrong",
    "opcode of a completion wrong",
    "QPN of a completion wrong",
    "completion event lost",
    "receive consumed twice",
    "place in the send queue not given back",
    "place in the receive queue not given back",
    "fence ignored",
    "unsignaled requests complete visibly",
    "UC drops instead of waiting",
    "deregistered key still works",
    "frame of an earlier incarnation taken",
    "connection outlives its peer's host",
    "invalidated window still works",
    "window one byte too wide",
    "timers never fire",
};
static_assert(std::size(kNames) == static_cast<size_t>(Bug::kCount));

bool is_opcode(const wire::PacketHeaders& headers, Opcode opcode) noexcept {
  return headers.opcode == static_cast<uint8_t>(opcode);
}

bool is_rc_request(const wire::PacketHeaders& headers) noexcept {
  return wire::opcode_service(headers.opcode) == 0 && headers.is(wire::kOpRequest);
}

bool is_send(const Wc& wc) noexcept { return static_cast<uint8_t>(wc.opcode) < 128; }

}  // namespace

const char* bug_name(Bug bug) noexcept { return kNames[static_cast<size_t>(bug)]; }

engine::Options Saboteur::options() noexcept {
  engine::Options options;
  options.uc_drop = bug_ == Bug::kUcDrop && always();
  return options;
}

bool Saboteur::spoil_payload(engine::TxPacket& packet) {
  const bool read = is_opcode(packet.headers, Opcode::kRcReadResponseOnly);
  if (packet.payload_bytes < 16 || (bug_ == Bug::kReadOld && !read)) return true;
  scratch_.clear();
  for (uint32_t i = 0; i < packet.pieces; ++i)
    scratch_.insert(scratch_.end(), packet.payload[i].begin(), packet.payload[i].end());
  if (bug_ == Bug::kReadOld && old_payload_.size() < scratch_.size()) {
    old_payload_ = scratch_;
    return true;
  }
  if (!strike()) return true;
  if (bug_ == Bug::kReadOld) {
    std::copy_n(old_payload_.begin(), scratch_.size(), scratch_.begin());
  } else if (bug_ == Bug::kPayloadShift) {
    std::rotate(scratch_.begin(), scratch_.begin() + 1, scratch_.end());
  } else {
    const auto byte = rng_.below(static_cast<uint32_t>(scratch_.size()));
    scratch_[byte] ^= std::byte(1u << rng_.below(8));
  }
  packet.pieces = 1;
  packet.payload[0] = scratch_;
  return true;
}

bool Saboteur::spoil_transmit(engine::TxPacket& packet) {
  wire::PacketHeaders& headers = packet.headers;
  switch (bug_) {
    case Bug::kPayloadBit:
    case Bug::kPayloadShift:
    case Bug::kReadOld:
      return spoil_payload(packet);
    case Bug::kAtomicResult:
      if (is_opcode(headers, Opcode::kRcAtomicAck) && strike()) headers.atomic_result ^= 1;
      return true;
    case Bug::kImmediate:
      if (headers.is(wire::kOpImm) && strike()) headers.imm_be ^= 1u << rng_.below(32);
      return true;
    case Bug::kUcCreditLost:
      return !is_opcode(headers, Opcode::kUcCredit) || !always();
    case Bug::kUcCreditInvented:
      if (is_opcode(headers, Opcode::kUcCredit) && strike()) ++headers.control[0];
      return true;
    case Bug::kRcCreditInvented:
      if (is_opcode(headers, Opcode::kRcAck) &&
          wire::aeth_kind(headers.syndrome) == AethKind::kAck &&
          wire::aeth_value(headers.syndrome) != wire::kAethNoCredits && strike()) {
        headers.syndrome = wire::aeth_syndrome(AethKind::kAck, 10);
      }
      return true;
    case Bug::kRnrSwallowed:
      return !is_opcode(headers, Opcode::kRcAck) ||
             wire::aeth_kind(headers.syndrome) != AethKind::kRnrNak || !always();
    case Bug::kDatagramSource:
      if (headers.is(wire::kOpDeth) && strike()) headers.src_qp ^= 1;
      return true;
    case Bug::kDatagramLost:
      return !headers.is(wire::kOpDeth) || !strike();
    case Bug::kStall:
      return !always();
    default:
      return true;
  }
}

bool Saboteur::spoil_arrival(Node& at, wire::ParsedPacket& packet) {
  wire::PacketHeaders& headers = packet.headers;
  if (bug_ == Bug::kQkeyIgnored && headers.is(wire::kOpDeth)) {
    const engine::QueuePair* to = at.find_pair(headers.dest_qp);
    if (to != nullptr && headers.qkey != to->attr.qkey && strike()) headers.qkey = to->attr.qkey;
  }
  engine::QueuePair* qp = at.find_pair(headers.dest_qp);
  if (qp == nullptr || wire::opcode_service(headers.opcode) != 0) return true;
  const bool whole = headers.is(wire::kOpStart | wire::kOpEnd);
  const bool next = is_rc_request(headers) && headers.psn == qp->resp.expected_psn;
  const bool skipped =
      (bug_ == Bug::kSendNotDelivered && headers.is(wire::kOpSend)) ||
      (bug_ == Bug::kWriteNotPlaced && headers.is(wire::kOpWrite) && !headers.is(wire::kOpImm));
  if (skipped && whole && next && strike()) {
    qp->resp.expected_psn = psn_add(headers.psn, 1);
    return false;
  }
  if (bug_ == Bug::kAckAhead && is_opcode(headers, Opcode::kRcAck) &&
      wire::aeth_kind(headers.syndrome) == AethKind::kAck &&
      psn_diff(qp->req.sent_end, headers.psn) > 1 && always()) {
    headers.psn = psn_add(headers.psn, 1);
  }
  if (bug_ == Bug::kWriteBeyond && next && headers.is(wire::kOpWrite | wire::kOpStart) &&
      headers.dma_length > 1 && strike()) {
    const auto* end = at.piece_end(reinterpret_cast<const std::byte*>(headers.va));
    headers.va = reinterpret_cast<uint64_t>(end) + 1 - headers.dma_length;
  }
  if (bug_ == Bug::kGapAccepted && is_rc_request(headers) && headers.is(wire::kOpStart) &&
      qp->resp.kind == engine::MessageKind::kNone &&
      psn_diff(headers.psn, qp->resp.expected_psn) > 0 && strike()) {
    qp->resp.expected_psn = headers.psn;
  }
  return true;
}

void Saboteur::spoil_effect(Node& at, Instant now, uint32_t rail, const wire::ParsedPacket& packet,
                            std::span<const std::byte> payload) {
  const wire::PacketHeaders& headers = packet.headers;
  if (bug_ == Bug::kDatagramTwice && headers.is(wire::kOpDeth) && strike())
    at.endpoint.handle_packet(now, rail, packet, payload);
  engine::QueuePair* qp = at.find_pair(headers.dest_qp);
  if (qp == nullptr || !is_rc_request(headers) ||
      psn_diff(qp->resp.expected_psn, headers.psn) != 1) {
    return;
  }
  const bool whole = headers.is(wire::kOpStart | wire::kOpEnd);
  const bool again = (bug_ == Bug::kSendTwice && headers.is(wire::kOpSend) && whole) ||
                     (bug_ == Bug::kAtomicTwice && headers.is(wire::kOpAtomic));
  if (again && strike()) {
    qp->resp.expected_psn = headers.psn;
    at.endpoint.handle_packet(now, rail, packet, payload);
  }
  if (bug_ == Bug::kByteBehindMessage && headers.is(wire::kOpSend | wire::kOpEnd)) {
    uint64_t offset = qp->resp.placed;
    for (const Sge& sge : std::span(qp->resp.receive.sges).first(qp->resp.receive.num_sge)) {
      if (offset < sge.length && strike())
        *reinterpret_cast<std::byte*>(sge.addr + offset) ^= std::byte{1};
      offset -= std::min<uint64_t>(offset, sge.length);
    }
  }
  if (!headers.is(wire::kOpWrite) || !whole || payload.empty()) return;
  if (bug_ == Bug::kMemoryBit && strike())
    *reinterpret_cast<std::byte*>(headers.va + rng_.below(packet.payload_bytes)) ^= std::byte{4};
  if (bug_ == Bug::kGuardByte && strike())
    *at.piece_end(reinterpret_cast<const std::byte*>(headers.va)) ^= std::byte{1};
  if (bug_ == Bug::kOldWriteAgain) repeat_old_write(at, now, rail, *qp, packet, payload);
}

void Saboteur::repeat_old_write(Node& at, Instant now, uint32_t rail, engine::QueuePair& qp,
                                const wire::ParsedPacket& packet,
                                std::span<const std::byte> payload) {
  if (packet.headers.is(wire::kOpImm)) return;
  if (old_payload_.empty()) {
    old_packet_ = packet;
    old_payload_.assign(payload.begin(), payload.end());
  } else if (old_packet_.headers.dest_qp == qp.number && strike()) {
    const uint32_t expected = std::exchange(qp.resp.expected_psn, old_packet_.headers.psn);
    at.endpoint.handle_packet(now, rail, old_packet_, old_payload_);
    qp.resp.expected_psn = expected;
  }
}

bool Saboteur::spoil_completion(Wc& wc) {
  const bool success = wc.status == WcStatus::kSuccess;
  switch (bug_) {
    case Bug::kStatus:
      if (success && strike()) wc.status = WcStatus::kRemOp;
      return true;
    case Bug::kErrorAsSuccess:
      if (!success && always()) wc.status = WcStatus::kSuccess;
      return true;
    case Bug::kFlushMissing:
      return wc.status != WcStatus::kWrFlush || !always();
    case Bug::kCompletionLost:
      return !strike();
    case Bug::kByteLen:
      if (success && strike()) wc.byte_len += 1;
      return true;
    case Bug::kWrId:
      if (strike()) wc.wr_id ^= 1;
      return true;
    case Bug::kWcOpcode:
      if (success && strike())
        wc.opcode = is_send(wc)                    ? WcOpcode::kRecv
                    : wc.opcode == WcOpcode::kRecv ? WcOpcode::kRecvRdmaImm
                                                   : WcOpcode::kRecv;
      return true;
    case Bug::kQpNumber:
      if (strike()) wc.qp_num ^= 1;
      return true;
    default:
      return true;
  }
}

uint32_t Saboteur::spoil_poll(engine::QueuePair* qp, std::span<Wc> wcs, uint32_t count) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Wc wc = wcs[i];
    if (spoil_completion(wc)) wcs[kept++] = wc;
  }
  if (bug_ == Bug::kCompletionTwice && kept != 0 && strike()) {
    wcs[kept] = wcs[kept - 1];
    ++kept;
  }
  for (uint32_t i = 0; bug_ == Bug::kCompletionOrder && i + 1 < kept; ++i) {
    if (is_send(wcs[i]) == is_send(wcs[i + 1]) && strike()) std::swap(wcs[i], wcs[i + 1]);
  }
  if (qp == nullptr) return kept;
  if (bug_ == Bug::kSendSlotLeak && qp->sq.released == qp->sq.head && qp->sq.head != 0 && always())
    --qp->sq.released;
  if (bug_ == Bug::kReceiveSlotLeak && qp->srq == nullptr && *qp->rq.release_counter() != 0 &&
      always()) {
    --*qp->rq.release_counter();
  }
  return kept;
}

}  // namespace tbt::sim
