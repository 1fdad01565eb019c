// Selective repeat between two of us (docs/wire.md, 2.1: the RC SACK).
//
// The responder keeps what comes after a gap and says what it has; the requester sends only what is
// missing. One walk over the missing packets repairs [repaired_to, repair_end), each once; a second
// repair of the same packet waits until something that was sent after the first one has arrived
// (`round_mark`), or for the measured timer. A walk is the ordinary sending from an earlier PSN,
// with the packets that the peer has stepped over.
#include <algorithm>
#include <bit>

#include "base/bytes.h"
#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using verbs::SendWqe;
using wire::psn_add;
using wire::psn_diff;

constexpr uint32_t kBitsOfWord = 32;

uint64_t& word_of(RequesterState& req, uint32_t psn) noexcept {
  return req.sacked[psn % kReorderPackets / 64];
}
uint64_t bit_of(uint32_t psn) noexcept { return uint64_t{1} << (psn % 64); }

// Word w of a SACK: the first ones are in its headers, the others behind them.
uint32_t sack_word(const wire::PacketHeaders& headers, std::span<const std::byte> tail,
                   uint32_t w) noexcept {
  const auto in_headers = static_cast<uint32_t>(headers.control.size());
  return w < in_headers ? headers.control[w]
                        : base::load_be<uint32_t>(tail.data() + size_t{4} * (w - in_headers));
}

// Marks what the peer has; returns one past the highest of it, or `end` if that is nothing.
uint32_t mark(RequesterState& req, const wire::PacketHeaders& headers,
              std::span<const std::byte> tail, uint32_t end) noexcept {
  const auto words = static_cast<uint32_t>(headers.control.size() + tail.size() / 4);
  uint32_t highest = end;
  for (uint32_t w = 0; w < std::min(words, kReorderPackets / kBitsOfWord); ++w) {
    for (uint32_t bits = sack_word(headers, tail, w); bits != 0; bits &= bits - 1) {
      const auto bit = static_cast<uint32_t>(std::countr_zero(bits));
      const uint32_t psn = psn_add(end, 1 + w * kBitsOfWord + bit);
      if (psn_diff(psn, req.sent_end) >= 0) return highest;  // never sent: a liar, or damage
      mark_arrived(req, psn);
      highest = psn_add(psn, 1);
    }
  }
  return highest;
}

// Puts the sending at `psn`, which has been sent before.
void seek(QueuePair& qp, uint32_t psn) noexcept {
  RequesterState& req = qp.req;
  req.send_psn = req.una_psn;
  req.cursor = qp.sq.head;
  while (psn_diff(psn, req.send_psn) > 0) {
    const SendWqe& wqe = qp.sq.at(req.cursor);
    const uint32_t next = psn_add(wqe.first_psn, wqe.psn_count);
    if (psn_diff(next, psn) > 0) {
      if (!wqe.is_atomic()) req.send_psn = psn;
      return;
    }
    req.send_psn = next;
    ++req.cursor;
  }
}

}  // namespace

bool sacked(const QueuePair& qp, uint32_t psn) noexcept {
  return (qp.req.sacked[psn % kReorderPackets / 64] & bit_of(psn)) != 0;
}

void forget_sacked(RequesterState& req, uint32_t before, uint32_t end) noexcept {
  if (req.sacked_count == 0) return;
  const auto count = static_cast<uint32_t>(psn_diff(end, before)) + 1;
  for (uint32_t i = 0; i < std::min(count, kReorderPackets); ++i) {
    const uint32_t psn = psn_add(end, 0u - i);  // `end` itself is what the peer waits for
    if ((word_of(req, psn) & bit_of(psn)) == 0) continue;
    word_of(req, psn) &= ~bit_of(psn);
    --req.sacked_count;
  }
}

void forget_all_sacked(QueuePair& qp) noexcept {
  qp.req.sacked.fill(0);
  qp.req.sacked_count = 0;
  qp.req.answers_whole = 0;
  for (uint32_t at = qp.sq.head; at != qp.sq.tail && qp.sq.at(at).started; ++at)
    qp.sq.at(at).read_early = 0;
}

// Left behind they would come to lie ahead of us, once half of the PSNs have passed.
void forget_repairs(RequesterState& req) noexcept {
  if (psn_diff(req.repaired_to, req.una_psn) < 0) req.repaired_to = req.una_psn;
  if (psn_diff(req.round_mark, req.una_psn) < 0) req.round_mark = req.una_psn;
}

void keep_place(QueuePair& qp) noexcept {
  if (qp.req.send_psn == qp.req.sent_end) qp.req.fresh_cursor = qp.req.cursor;
}

void resume_fresh(QueuePair& qp) noexcept {
  qp.req.repairing = false;
  qp.req.send_psn = qp.req.sent_end;
  qp.req.cursor = qp.req.fresh_cursor;
}

void handle_sack(Core& core, QueuePair& qp, const wire::PacketHeaders& headers,
                 std::span<const std::byte> tail) noexcept {
  const uint32_t end = psn_add(headers.psn, 1);
  if (end != qp.req.una_psn || !has_outstanding(qp)) return;
  const uint32_t known = qp.req.sacked_count;
  const uint32_t highest = mark(qp.req, headers, tail, end);
  if (qp.req.sacked_count != known) arm_probe(core, qp);
  if (highest != end) repair(core, qp, highest);
}

void mark_arrived(RequesterState& req, uint32_t psn) noexcept {
  if ((word_of(req, psn) & bit_of(psn)) != 0) return;
  word_of(req, psn) |= bit_of(psn);
  ++req.sacked_count;
}

uint32_t missing_end(const QueuePair& qp, const SendWqe& wqe) noexcept {
  const RequesterState& req = qp.req;
  const uint32_t whole = psn_add(wqe.first_psn, wqe.psn_count);
  if (req.send_psn == req.sent_end) return whole;
  uint32_t end = whole;
  if (req.repairing && psn_diff(req.repair_end, end) < 0) end = req.repair_end;
  if (req.sacked_count == 0) return end;
  for (uint32_t psn = psn_add(req.send_psn, 1); psn_diff(end, psn) > 0; psn = psn_add(psn, 1)) {
    if (psn_diff(psn, req.una_psn) >= static_cast<int32_t>(kReorderPackets)) return end;
    if (sacked(qp, psn)) return psn;
  }
  return end;
}

void repair(Core& core, QueuePair& qp, uint32_t highest) noexcept {
  RequesterState& req = qp.req;
  const uint32_t end = req.una_psn;
  note_arrival(core, qp, highest);
  if (psn_diff(highest, req.round_mark) > 0) req.repaired_to = end;
  if (psn_diff(highest, req.repaired_to) <= 0) return;
  if (req.repaired_to == end) {
    req.round_mark = req.sent_end;
    core.last_loss = core.now;
    note_loss(core, qp);
  }
  const bool walking = req.send_psn != req.sent_end;
  keep_place(qp);
  if (!walking || psn_diff(req.send_psn, req.repaired_to) > 0 || req.repaired_to == end) {
    seek(qp, req.repaired_to);
    ++core.stats.repairs;
  }
  req.repairing = true;
  req.failed = false;  // found out again when its turn comes
  req.repair_end = req.repaired_to = highest;
  core.make_ready(qp);
}

void skip_sacked(QueuePair& qp) noexcept {
  RequesterState& req = qp.req;
  while (req.send_psn != req.sent_end) {
    if (req.repairing && psn_diff(req.send_psn, req.repair_end) >= 0) return resume_fresh(qp);
    const int32_t ahead = psn_diff(req.send_psn, req.una_psn);
    if (req.sacked_count == 0 || ahead == 0 || ahead >= static_cast<int32_t>(kReorderPackets))
      return;
    if (!sacked(qp, req.send_psn)) return;
    const SendWqe& wqe = qp.sq.at(req.cursor);
    req.send_psn = psn_add(req.send_psn, 1);
    if (req.send_psn == psn_add(wqe.first_psn, wqe.psn_count)) ++req.cursor;
  }
  req.repairing = false;
}

bool keep_early(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                std::span<const std::byte> payload) {
  const wire::PacketHeaders& headers = packet.headers;
  if (core.options.go_back_n) return false;
  const int32_t distance = psn_diff(headers.psn, qp.resp.expected_psn);
  if (distance >= static_cast<int32_t>(kReorderPackets)) return false;
  if (!headers.is(wire::kOpSend) && !headers.is(wire::kOpWrite)) return false;
  if (payload.size() > qp.mtu) return false;
  try {
    if (!qp.resp.early) qp.resp.early = std::make_unique<ReorderBuffer>(core.store);
    return qp.resp.early->keep(packet, payload);
  } catch (const std::bad_alloc&) {
    return false;  // the sender goes back, as when the budget is used up
  }
}

void fill_sack(const QueuePair& qp, TxPacket& packet) noexcept {
  wire::PacketHeaders& headers = packet.headers;
  headers.opcode = static_cast<uint8_t>(wire::Opcode::kRcSack);
  headers.src_qp = qp.number;
  headers.control.fill(0);
  ReorderBuffer& early = *qp.resp.early;
  const uint32_t first = psn_add(qp.resp.expected_psn, 1);
  const auto in_headers = static_cast<uint32_t>(headers.control.size());
  uint32_t left = early.count();
  uint32_t words = 0;
  for (; words < kReorderPackets / kBitsOfWord && (left != 0 || words < in_headers); ++words) {
    const uint32_t kept = early.kept_from(psn_add(first, words * kBitsOfWord));
    left -= std::min(left, static_cast<uint32_t>(std::popcount(kept)));
    if (words < in_headers) {
      headers.control[words] = kept;
    } else {
      base::store_be<uint32_t>(early.sack_tail.data() + size_t{4} * (words - in_headers), kept);
    }
  }
  packet.payload_bytes = 4 * (words - in_headers);
  packet.pieces = packet.payload_bytes != 0 ? 1 : 0;
  packet.payload[0] = std::span(early.sack_tail).first(packet.payload_bytes);
}

}  // namespace tbt::engine
