// Selective repeat between two of us (docs/wire.md, 2.1: the RC SACK).
//
// The responder keeps what comes after a gap and says what it has; the requester sends only what is
// missing. News are of two kinds: a SACK shows which requests were lost, and an answer which ones
// before it were. What was sent again is so once more when something that was sent after that has
// arrived (Repetition), or by the measured timer. A walk is the ordinary sending from an earlier
// PSN, with the packets that are not due stepped over.
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

bool is_noted(const QueuePair& qp, uint32_t psn) noexcept {
  const int32_t ahead = psn_diff(psn, qp.req.una_psn);
  return qp.req.sacked_count != 0 && ahead != 0 && ahead < static_cast<int32_t>(kReorderPackets) &&
         sacked(qp, psn);
}

// How far the news reach that show `psn` of this WQE to be lost, unless it was sent again; `psn` if
// there are none. A request was taken if a SACK or an answer said so.
uint32_t news_of(const RequesterState& req, const SendWqe& wqe, uint32_t psn) noexcept {
  const bool answer = wqe.wants_answer();
  if (answer && psn_diff(req.answers_to, psn) > 0) return req.answers_to;
  const bool taken = answer && (wqe.held || wqe.read_packets != 0 || wqe.read_early != 0);
  return !taken && psn_diff(req.requests_to, psn) > 0 ? req.requests_to : psn;
}

// Whether it is to be sent again now.
bool due(RequesterState& req, const SendWqe& wqe, uint32_t psn) noexcept {
  const uint32_t news = news_of(req, wqe, psn);
  if (news == psn) return false;
  const Repetition& last = (*req.repetitions)[psn % kReorderPackets];
  if (last.psn != psn || psn_diff(news, last.mark) > 0) return true;
  if (psn_diff(last.mark, req.oldest_mark) < 0) req.oldest_mark = last.mark;
  return false;
}

// Where the walk looks next, after it has stepped over `psn`.
uint32_t next_look(const RequesterState& req, const SendWqe& wqe, uint32_t psn) noexcept {
  const bool rest = wqe.wants_answer() && psn_diff(req.answers_to, psn) <= 0;
  return rest ? psn_add(wqe.first_psn, wqe.psn_count) : psn_add(psn, 1);
}

// Walks from `start` to where the news end.
void walk(Core& core, QueuePair& qp, uint32_t start) noexcept {
  RequesterState& req = qp.req;
  keep_place(qp);
  const bool walking = req.repairing && req.send_psn != req.sent_end;
  if (!walking || psn_diff(req.send_psn, start) > 0) {
    seek(qp, start);
    ++core.stats.repairs;
  }
  const bool farther = psn_diff(req.answers_to, req.requests_to) > 0;
  req.repair_end = farther ? req.answers_to : req.requests_to;
  req.repairing = true;
  req.failed = false;  // found out again when its turn comes
  core.make_ready(qp);
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
  for (uint32_t* psn : {&req.requests_to, &req.answers_to, &req.oldest_mark, &req.loss_mark}) {
    if (psn_diff(*psn, req.una_psn) < 0) *psn = req.una_psn;
  }
}

void note_repetition(RequesterState& req, uint32_t first, uint32_t end) noexcept {
  const uint32_t limit = psn_add(req.una_psn, kReorderPackets);
  if (psn_diff(end, limit) > 0) end = limit;
  for (uint32_t psn = first; psn_diff(end, psn) > 0; psn = psn_add(psn, 1))
    (*req.repetitions)[psn % kReorderPackets] = {psn, req.sent_end};
}

void repair_beyond(Core& core, QueuePair& qp) noexcept {
  qp.req.beyond = false;
  if (has_outstanding(qp)) walk(core, qp, qp.req.una_psn);
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
  if (heard.news) note_news(core, qp);
  if (heard.highest != end) repair(core, qp, req.requests_to, heard.highest);
}

void mark_arrived(RequesterState& req, uint32_t psn) noexcept {
  if ((word_of(req, psn) & bit_of(psn)) != 0) return;
  word_of(req, psn) |= bit_of(psn);
  ++req.sacked_count;
}

uint32_t missing_end(QueuePair& qp, const SendWqe& wqe) noexcept {
  RequesterState& req = qp.req;
  const uint32_t whole = psn_add(wqe.first_psn, wqe.psn_count);
  if (req.send_psn == req.sent_end) return whole;
  const bool parts = req.repairing && psn_diff(req.answers_to, req.send_psn) > 0;
  if (!parts && req.sacked_count == 0) return whole;
  for (uint32_t psn = psn_add(req.send_psn, 1); psn_diff(whole, psn) > 0; psn = psn_add(psn, 1)) {
    if (psn_diff(psn, req.una_psn) >= static_cast<int32_t>(kReorderPackets))
      return parts ? psn : whole;
    if (sacked(qp, psn) || (parts && !due(req, wqe, psn))) return psn;
  }
  return whole;
}

void repair(Core& core, QueuePair& qp, uint32_t& to, uint32_t highest) noexcept {
  RequesterState& req = qp.req;
  note_arrival(core, qp, highest);
  const bool farther = psn_diff(highest, to) > 0;
  const bool again = psn_diff(highest, req.oldest_mark) > 0;
  if (!farther && !again) return;
  const uint32_t start = again ? req.una_psn : to;
  if (farther) to = highest;
  if (!again && psn_add(start, 1) == highest && is_noted(qp, start)) return;
  if (psn_diff(highest, req.loss_mark) > 0) {
    req.loss_mark = req.sent_end;
    core.last_loss = core.now;
    note_loss(core, qp);
  }
  if (again) req.oldest_mark = req.sent_end;
  walk(core, qp, start);
}

void skip_sacked(QueuePair& qp) noexcept {
  RequesterState& req = qp.req;
  while (req.send_psn != req.sent_end) {
    if (req.repairing && psn_diff(req.send_psn, req.repair_end) >= 0) return resume_fresh(qp);
    const SendWqe& wqe = qp.sq.at(req.cursor);
    const bool noted = is_noted(qp, req.send_psn);
    if (!noted && !req.repairing) return;
    if (!noted && psn_diff(req.send_psn, req.una_psn) >= static_cast<int32_t>(kReorderPackets)) {
      req.beyond = true;
      return resume_fresh(qp);
    }
    if (!noted && due(req, wqe, req.send_psn)) return;
    req.send_psn = noted ? psn_add(req.send_psn, 1) : next_look(req, wqe, req.send_psn);
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
