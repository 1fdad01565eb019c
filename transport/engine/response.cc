// What the responder owes, as packets: READ responses and atomic answers in PSN order first, then a
// NAK or one acknowledge for everything before it (IBTA vol. 1, 9.7.5.1.9: responses are in order).
// A SACK goes before them all: the sooner the peer learns of a gap the less stands still.
#include <algorithm>
#include <bit>

#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using wire::Opcode;
using wire::psn_add;
using wire::psn_diff;

// The largest credit code that promises no more than `credits` (inverse of the table in
// completer.cc).
uint8_t credit_code(uint32_t credits) noexcept {
  if (credits < 4) return static_cast<uint8_t>(credits);
  const auto log2 = static_cast<uint32_t>(std::bit_width(credits)) - 1;
  const uint32_t half = (credits >> (log2 - 1)) & 1;
  return static_cast<uint8_t>(std::min(log2 * 2 + half, 30u));
}

uint8_t ack_syndrome(const QueuePair& qp) noexcept {
  const uint8_t code = qp.srq != nullptr ? wire::kAethNoCredits : credit_code(qp.rq.posted());
  return wire::aeth_syndrome(wire::AethKind::kAck, code);
}

// The pending resource that is first in PSN order: the ring is in that order.
Resource& first_pending(ResponderState& resp) noexcept {
  while (!resp.resource(resp.pending_from).pending) ++resp.pending_from;
  return resp.resource(resp.pending_from);
}

void no_longer_pending(ResponderState& resp, Resource& slot) noexcept {
  slot.pending = false;
  --resp.pending;
  if (slot.repeating) --resp.repeats;
}

void settled(ResponderState& resp, Resource& slot) noexcept {
  no_longer_pending(resp, slot);
  // The last response says all that an acknowledge would.
  const uint32_t end = psn_add(slot.first_psn, slot.psn_count);
  if (resp.pending == 0 && slot.run_end == end && end == resp.expected_psn) resp.ack_owed = false;
}

void make_atomic_answer(QueuePair& qp, Resource& slot, TxPacket& packet) noexcept {
  address_packet(qp.path, qp.attr.dest_qpn, opcode_of(qp, Opcode::kRcAtomicAck), packet.headers);
  packet.headers.psn = slot.first_psn;
  packet.headers.syndrome = ack_syndrome(qp);
  packet.headers.msn = slot.msn;
  packet.headers.atomic_result = slot.atomic_result;
  settled(qp.resp, slot);
}

Opcode read_opcode(bool first, bool last) noexcept {
  if (first) return last ? Opcode::kRcReadResponseOnly : Opcode::kRcReadResponseFirst;
  return last ? Opcode::kRcReadResponseLast : Opcode::kRcReadResponseMiddle;
}

// The region went away in the middle: nothing stale is sent (C-123).
void refuse_read(Core& core, QueuePair& qp, const Resource& slot) {
  ResponderState& resp = qp.resp;
  for (Resource& other : resp.resources) other.pending = false;
  resp.pending = resp.repeats = 0;
  ++core.stats.naks_error_sent;
  resp.nak_owed = resp.refused = true;
  resp.nak_psn = slot.cursor_psn;
  resp.nak_syndrome = wire::aeth_syndrome(wire::AethKind::kNak,
                                          static_cast<uint8_t>(wire::NakCode::kRemoteAccessError));
  core.raise(AsyncEventType::kQpAccessErr, qp.user);
  enter_error(core, qp);
}

// The same of a READ that was answered in full before. Most likely its peer has the answer, and the
// request is a late copy of one that was sent when the key was still good: no reason to end. A peer
// that waits for it is told.
void decline_repetition(Core& core, QueuePair& qp, Resource& slot) noexcept {
  ResponderState& resp = qp.resp;
  no_longer_pending(resp, slot);
  if (resp.nak_owed) return;  // it comes again
  ++core.stats.naks_error_sent;
  resp.nak_owed = true;
  resp.nak_psn = slot.cursor_psn;
  resp.nak_syndrome = wire::aeth_syndrome(wire::AethKind::kNak,
                                          static_cast<uint8_t>(wire::NakCode::kRemoteAccessError));
}

bool make_read_response(Core& core, QueuePair& qp, Resource& slot, TxPacket& packet) {
  const uint32_t index = psn_add(slot.cursor_psn, 0u - slot.first_psn);
  const uint32_t offset = index * qp.mtu;
  const uint32_t bytes = std::min(qp.mtu, slot.length - offset);
  verbs::KeyError why{};
  const std::byte* from = nullptr;
  if (bytes != 0)
    from = core.regions.translate(slot.rkey, {slot.pd, qp.number}, slot.va + offset, bytes,
                                  kAccessRemoteRead, why);
  if (bytes != 0 && from == nullptr) {
    slot.repeating ? decline_repetition(core, qp, slot) : refuse_read(core, qp, slot);
    return false;
  }
  packet.pieces = bytes != 0 ? 1 : 0;
  packet.payload[0] = {from, bytes};
  packet.payload_bytes = bytes;
  const bool last = psn_add(slot.cursor_psn, 1) == slot.run_end;
  address_packet(qp.path, qp.attr.dest_qpn,
                 opcode_of(qp, read_opcode(slot.cursor_psn == slot.run_psn, last)), packet.headers);
  packet.headers.psn = slot.cursor_psn;
  packet.headers.syndrome = ack_syndrome(qp);
  packet.headers.msn = slot.msn;
  slot.cursor_psn = psn_add(slot.cursor_psn, 1);
  if (last) settled(qp.resp, slot);
  return true;
}

void make_ack(QueuePair& qp, uint32_t psn, uint8_t syndrome, TxPacket& packet) noexcept {
  address_packet(qp.path, qp.attr.dest_qpn, opcode_of(qp, Opcode::kRcAck), packet.headers);
  packet.headers.psn = psn;
  packet.headers.syndrome = syndrome;
  packet.headers.msn = qp.resp.msn;
}

// For everything that was taken.
void make_newest_ack(QueuePair& qp, TxPacket& packet) noexcept {
  qp.resp.ack_owed = false;
  make_ack(qp, psn_add(qp.resp.expected_psn, wire::kPsnMask), ack_syndrome(qp), packet);
}

void make_sack(QueuePair& qp, TxPacket& packet) noexcept {
  make_newest_ack(qp, packet);
  fill_sack(qp, packet);
}

}  // namespace

bool owes_response(const QueuePair& qp) noexcept {
  return qp.resp.pending != 0 || qp.resp.nak_owed || qp.resp.ack_owed;
}

// The NAK that ended the connection may have been lost: a peer that comes again hears it again,
// and so learns the cause instead of running into its time-out.
void repeat_refusal(Core& core, QueuePair& qp) noexcept {
  qp.resp.nak_owed = true;
  core.make_ready(qp);
}

bool next_response(Core& core, QueuePair& qp, TxPacket& packet) {
  ResponderState& resp = qp.resp;
  packet.pieces = 0;
  packet.payload_bytes = 0;
  const bool gap = resp.early && resp.early->count() != 0;
  if (gap && resp.ack_owed && !resp.nak_owed) return make_sack(qp, packet), true;
  if (resp.pending != 0) {
    Resource& slot = first_pending(resp);
    if (slot.atomic) return make_atomic_answer(qp, slot, packet), true;
    if (make_read_response(core, qp, slot, packet)) return true;
  }
  if (resp.nak_owed) {
    resp.nak_owed = false;
    // A NAK acknowledges everything before it (C-065), and more may have been taken.
    if (resp.refused || resp.nak_psn == resp.expected_psn) resp.ack_owed = false;
    make_ack(qp, resp.nak_psn, resp.nak_syndrome, packet);
    return true;
  }
  if (!resp.ack_owed) return false;
  make_newest_ack(qp, packet);
  return true;
}

}  // namespace tbt::engine
