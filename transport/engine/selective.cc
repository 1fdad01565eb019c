// Selective repeat between two of us (docs/wire.md, 2.1: the RC SACK).
//
// The responder keeps what comes after a gap and says what it has; the requester sends only what is
// missing. News are of two kinds: a SACK shows which requests were lost, and an answer which ones
// before it were. Each kind repairs every packet once (Repairs); a second repair waits until
// something that was sent after the first one has arrived, or for the measured timer. A walk is the
// ordinary sending from an earlier PSN, with the packets that the peer has stepped over.
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

// What a SACK said: one past the highest request that the peer has, and whether that is news.
struct Heard {
  uint32_t highest = 0;
  bool news = false;
};

// The peer has this packet of the WQE. Of a READ or atomic it is the request, wherever in its
// answer's PSNs that was said.
void note_here(QueuePair& qp, SendWqe& wqe, uint32_t psn, Heard& heard) noexcept {
  heard.highest = psn_add(psn, 1);
  if (wqe.wants_answer()) {
    heard.news |= !wqe.held;
    wqe.held = true;
    heard.highest = psn_add(wqe.first_psn, wqe.psn_count);
  } else if (psn_diff(psn, qp.req.una_psn) < static_cast<int32_t>(kReorderPackets)) {
    heard.news |= !sacked(qp, psn);
    mark_arrived(qp.req, psn);
  }
}

// Everything before `end` was taken. What waits for an answer has kept una_psn from passing it.
void mark_taken(QueuePair& qp, uint32_t end, Heard& heard) noexcept {
  const RequesterState& req = qp.req;
  if (!qp.sq.at(qp.sq.head).wants_answer()) return;
  uint32_t psn = req.una_psn;
  for (uint32_t at = qp.sq.head; psn_diff(end, psn) > 0; ++at) {
    SendWqe& wqe = qp.sq.at(at);
    const uint32_t next = psn_add(wqe.first_psn, wqe.psn_count);
    for (; psn != next && psn_diff(end, psn) > 0; psn = wqe.wants_answer() ? next : psn_add(psn, 1))
      note_here(qp, wqe, psn, heard);
  }
}

// Marks what was kept behind the gap at `end`.
void mark_kept(QueuePair& qp, const wire::PacketHeaders& headers, std::span<const std::byte> tail,
               uint32_t end, Heard& heard) noexcept {
  const auto words = static_cast<uint32_t>(headers.control.size() + tail.size() / 4);
  uint32_t at = qp.sq.head;
  for (uint32_t w = 0; w < std::min(words, kReorderPackets / kBitsOfWord); ++w) {
    for (uint32_t bits = sack_word(headers, tail, w); bits != 0; bits &= bits - 1) {
      const auto bit = static_cast<uint32_t>(std::countr_zero(bits));
      const uint32_t psn = psn_add(end, 1 + w * kBitsOfWord + bit);
      if (psn_diff(psn, qp.req.sent_end) >= 0) return;  // never sent: a liar, or damage
      while (psn_diff(psn, psn_add(qp.sq.at(at).first_psn, qp.sq.at(at).psn_count)) >= 0) ++at;
      note_here(qp, qp.sq.at(at), psn, heard);
    }
  }
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

bool within(const Repairs& of, uint32_t psn) noexcept {
  return psn_diff(psn, of.from) >= 0 && psn_diff(of.to, psn) > 0;
}

// Whether the walk sends again what is at send_psn.
bool due(const RequesterState& req, const SendWqe& wqe) noexcept {
  if (!wqe.wants_answer()) return within(req.requests, req.send_psn);
  const bool taken = wqe.held || wqe.read_packets != 0 || wqe.read_early != 0;
  return within(req.answers, req.send_psn) || (!taken && within(req.requests, req.send_psn));
}

// Where the walk looks next, after send_psn was stepped over.
uint32_t next_look(const RequesterState& req, const SendWqe& wqe) noexcept {
  if (!wqe.wants_answer() || within(req.answers, req.send_psn)) return psn_add(req.send_psn, 1);
  const uint32_t end = psn_add(wqe.first_psn, wqe.psn_count);
  const bool inside =
      psn_diff(req.answers.from, req.send_psn) > 0 && within(req.answers, req.answers.from);
  return inside && psn_diff(end, req.answers.from) > 0 ? req.answers.from : end;
}

// What the walk has done is not to be sent again by the next one. A walk that goes back altogether
// was to send everything.
void settle_walk(const RequesterState& req, Repairs& of) noexcept {
  const bool walking = req.send_psn != req.sent_end;
  if (!walking || psn_diff(req.send_psn, of.to) > 0) {
    of.from = of.to;
  } else if (!req.repairing || psn_diff(req.send_psn, of.from) > 0) {
    of.from = req.send_psn;
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
  for (uint32_t at = qp.sq.head; at != qp.sq.tail && qp.sq.at(at).started; ++at) {
    qp.sq.at(at).read_early = 0;
    qp.sq.at(at).held = false;
  }
}

// Left behind they would come to lie ahead of us, once half of the PSNs have passed.
void forget_repairs(RequesterState& req) noexcept {
  for (Repairs* of : {&req.requests, &req.answers}) {
    for (uint32_t* psn : {&of->from, &of->to, &of->mark}) {
      if (psn_diff(*psn, req.una_psn) < 0) *psn = req.una_psn;
    }
  }
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
  RequesterState& req = qp.req;
  const uint32_t end = psn_add(headers.psn, 1);
  if (psn_diff(end, req.una_psn) < 0 || psn_diff(end, req.sent_end) >= 0) return;
  Heard heard{.highest = end};
  mark_taken(qp, end, heard);
  heard.highest = end;
  mark_kept(qp, headers, tail, end, heard);
  if (heard.news) arm_probe(core, qp);
  if (heard.highest != end) repair(core, qp, req.requests, heard.highest);
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
  if (req.repairing && within(req.answers, req.send_psn) && psn_diff(req.answers.to, end) < 0)
    end = req.answers.to;
  if (req.sacked_count == 0) return end;
  for (uint32_t psn = psn_add(req.send_psn, 1); psn_diff(end, psn) > 0; psn = psn_add(psn, 1)) {
    if (psn_diff(psn, req.una_psn) >= static_cast<int32_t>(kReorderPackets)) return end;
    if (sacked(qp, psn)) return psn;
  }
  return end;
}

void repair(Core& core, QueuePair& qp, Repairs& of, uint32_t highest) noexcept {
  RequesterState& req = qp.req;
  note_arrival(core, qp, highest);
  if (psn_diff(highest, of.mark) > 0) of.from = of.to = req.una_psn;
  if (psn_diff(highest, of.to) <= 0) return;
  const bool begins = of.to == req.una_psn;
  const bool walking = req.send_psn != req.sent_end;
  if (begins) {
    of.mark = req.sent_end;
    core.last_loss = core.now;
    note_loss(core, qp);
  }
  keep_place(qp);
  if (!begins) settle_walk(req, of);
  Repairs& other = &of == &req.requests ? req.answers : req.requests;
  settle_walk(req, other);
  of.to = highest;
  uint32_t start = of.from;
  req.repair_end = highest;
  if (other.from != other.to) {
    if (psn_diff(other.from, start) < 0) start = other.from;
    if (psn_diff(other.to, highest) > 0) req.repair_end = other.to;
  }
  if (!walking || psn_diff(req.send_psn, start) > 0) {
    seek(qp, start);
    ++core.stats.repairs;
  }
  req.repairing = true;
  req.failed = false;  // found out again when its turn comes
  core.make_ready(qp);
}

void skip_sacked(QueuePair& qp) noexcept {
  RequesterState& req = qp.req;
  while (req.send_psn != req.sent_end) {
    if (req.repairing && psn_diff(req.send_psn, req.repair_end) >= 0) return resume_fresh(qp);
    const SendWqe& wqe = qp.sq.at(req.cursor);
    const int32_t ahead = psn_diff(req.send_psn, req.una_psn);
    const bool noted = req.sacked_count != 0 && ahead != 0 &&
                       ahead < static_cast<int32_t>(kReorderPackets) && sacked(qp, req.send_psn);
    if (!noted && (!req.repairing || due(req, wqe))) return;
    req.send_psn = noted ? psn_add(req.send_psn, 1) : next_look(req, wqe);
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
