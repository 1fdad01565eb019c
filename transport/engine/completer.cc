// Completer: what acknowledges, responses and silence mean for the send queue (IBTA vol. 1, 9.7.4
// to 9.7.6).
#include <array>

#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using verbs::SendWqe;
using wire::psn_add;
using wire::psn_diff;

// Receiver-not-ready timer codes in units of 10 us (IBTA vol. 1, table 45; C-093).
constexpr std::array<uint32_t, 32> kRnrTimer = {
    65536, 1,    2,    3,    4,    6,     8,     12,    16,    24,   32,
    48,    64,   96,   128,  192,  256,   384,   512,   768,   1024, 1536,
    2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152};

// End-to-end credit codes (IBTA vol. 1, table 46): 0, 1, then 2^k and 1.5 * 2^k in turn.
uint32_t credits_of(uint8_t code) noexcept {
  if (code < 4) return code;
  const uint32_t power = 1u << (code / 2u);
  return code % 2 == 0 ? power : power + power / 2;
}

void progress(Core& core, QueuePair& qp, uint32_t before) noexcept {
  if (!qp.may_send()) return;  // a completion found its queue full, and that ended everything
  RequesterState& req = qp.req;
  forget_sacked(req, before, req.una_psn);
  forget_repairs(req);
  note_progress(core, qp, static_cast<uint32_t>(psn_diff(req.una_psn, before)));
  req.retries_left = qp.attr.retry_cnt;
  req.rnr_retries_left = qp.attr.rnr_retry;
  req.rewound = false;
  // Acknowledged beyond the point where a retransmission stands: it goes on from there.
  if (psn_diff(req.una_psn, req.send_psn) > 0) {
    req.send_psn = req.una_psn;
    req.cursor = qp.sq.head;
    req.failed = false;  // that was said of the WQE at the cursor
    if (req.repairing && psn_diff(req.una_psn, req.repair_end) >= 0) resume_fresh(qp);
  }
  if (req.beyond) repair_beyond(core, qp);
  req.ack_deadline = req.probe_deadline = Instant::never();
  if (has_outstanding(qp)) arm_ack_timer(core, qp);
  core.make_ready(qp);
}

void complete_oldest(Core& core, QueuePair& qp, const SendWqe& wqe) {
  qp.req.una_psn = psn_add(wqe.first_psn, wqe.psn_count);
  complete_send(core, qp, WcStatus::kSuccess, kVendorNone);
}

// What the requester may do once the WQEs before its cursor are done.
void settle(Core& core, QueuePair& qp) {
  if (qp.req.failed && qp.sq.head == qp.req.cursor) {
    fail_send(core, qp, qp.req.fail_status, qp.req.fail_vendor);
    return;
  }
  check_drained(core, qp);
}

// Everything before `end` is acknowledged. False if that would pass over a READ or atomic whose
// answer has not come: the answer was lost (C-066).
bool acknowledge(Core& core, QueuePair& qp, uint32_t end) {
  RequesterState& req = qp.req;
  bool complete = true;
  const uint32_t before = req.una_psn;
  while (!qp.sq.empty() && psn_diff(end, req.una_psn) > 0) {
    const SendWqe& wqe = qp.sq.at(qp.sq.head);
    if (!wqe.started) break;
    if (wqe.wants_answer()) {
      complete = false;
      break;
    }
    if (psn_diff(end, psn_add(wqe.first_psn, wqe.psn_count)) < 0) {
      req.una_psn = end;
      break;
    }
    complete_oldest(core, qp, wqe);
  }
  if (req.una_psn != before) progress(core, qp, before);
  return complete;
}

// Goes back unless it has just done so for the same gap; the timer covers what is lost then.
void go_back(Core& core, QueuePair& qp) {
  RequesterState& req = qp.req;
  if (req.rewound || !has_outstanding(qp)) return;
  if (req.retries_left == 0) return fail_send(core, qp, WcStatus::kRetryExc, kVendorPsnRetry);
  --req.retries_left;
  rewind(core, qp);
  arm_ack_timer(core, qp);
}

void update_credits(QueuePair& qp, uint8_t syndrome, uint32_t msn) noexcept {
  RequesterState& req = qp.req;
  const uint8_t code = wire::aeth_value(syndrome);
  req.credits_known = code != wire::kAethNoCredits;
  if (req.credits_known) req.credit_limit = psn_add(msn, credits_of(code));
}

// retry_cnt is for a peer that does not answer, and this is an answer: were the retries not
// restored, then now and then a lost NAK would use them up, however rnr_retry is set (C-092,
// C-095). A finite rnr_retry still ends the waiting; only progress restores that.
void handle_rnr(Core& core, QueuePair& qp, uint8_t code) {
  RequesterState& req = qp.req;
  if (req.rnr_waiting || !has_outstanding(qp)) return;
  req.retries_left = qp.attr.retry_cnt;
  req.backoff = 0;
  if (qp.attr.rnr_retry != 7) {  // 7: for ever
    if (req.rnr_retries_left == 0) return fail_send(core, qp, WcStatus::kRnrRetryExc, kVendorRnr);
    --req.rnr_retries_left;
  }
  ++core.stats.rnr_waits;
  req.rnr_waiting = true;
  req.ack_deadline = req.probe_deadline = Instant::never();  // C-092: waiting is not silence
  req.rnr_deadline = core.now + Duration::from_us(int64_t{kRnrTimer[code]} * 10);
  core.deadlines.update(qp, qp.deadline());
}

void handle_nak(Core& core, QueuePair& qp, uint8_t code) {
  ++core.stats.naks_received;
  switch (static_cast<wire::NakCode>(code)) {
    case wire::NakCode::kPsnSequenceError:
      return go_back(core, qp);
    case wire::NakCode::kInvalidRequest:
      return fail_send(core, qp, WcStatus::kRemInvReq, kVendorRemoteNak);
    case wire::NakCode::kRemoteAccessError:
      return fail_send(core, qp, WcStatus::kRemAccess, kVendorRemoteNak);
    case wire::NakCode::kRemoteOperationalError:
      return fail_send(core, qp, WcStatus::kRemOp, kVendorRemoteNak);
  }
  fail_send(core, qp, WcStatus::kBadResp, kVendorBadResponse);
}

// A SACK overtakes the answers that are owed, so of READs it says only that they were taken.
void handle_ack(Core& core, QueuePair& qp, const wire::PacketHeaders& headers) {
  const wire::AethKind kind = wire::aeth_kind(headers.syndrome);
  // An ACK covers its PSN, a NAK everything before it.
  const uint32_t end = kind == wire::AethKind::kAck ? psn_add(headers.psn, 1) : headers.psn;
  const bool ahead = psn_diff(end, qp.req.sent_end) > 0;
  const bool behind = psn_diff(end, qp.req.una_psn) < 0;
  if (ahead || behind || (kind != wire::AethKind::kAck && end == qp.req.sent_end)) {
    ++core.stats.rx_ghost_acks;
    return;
  }
  if (kind == wire::AethKind::kAck) update_credits(qp, headers.syndrome, headers.msn);
  const bool answered = acknowledge(core, qp, end);
  if (qp.state == QpState::kErr) return;
  if (!answered && !headers.is(wire::kOpControl)) {
    go_back(core, qp);
  } else if (kind == wire::AethKind::kRnrNak) {
    handle_rnr(core, qp, wire::aeth_value(headers.syndrome));
  } else if (kind == wire::AethKind::kNak) {
    handle_nak(core, qp, wire::aeth_value(headers.syndrome));
  } else if (kind == wire::AethKind::kReserved) {
    fail_send(core, qp, WcStatus::kBadResp, kVendorBadResponse);
  } else {
    core.make_ready(qp);  // credits may have come
  }
}

// The oldest WQE, if it waits for an answer that begins at `psn`; nullptr if the packet is stale or
// early.
SendWqe* awaited(Core& core, QueuePair& qp, uint32_t psn) {
  RequesterState& req = qp.req;
  if (psn_diff(psn, req.una_psn) < 0 || psn_diff(psn, req.sent_end) >= 0) {
    ++core.stats.rx_stale_responses;
    return nullptr;
  }
  if (!acknowledge(core, qp, psn)) {
    go_back(core, qp);
    return nullptr;
  }
  if (qp.sq.empty() || req.una_psn != psn) return nullptr;
  SendWqe& wqe = qp.sq.at(qp.sq.head);
  return wqe.started && wqe.wants_answer() ? &wqe : nullptr;
}

void finish_answer(Core& core, QueuePair& qp, SendWqe& wqe) {
  wqe.done = true;
  --qp.req.answers_due;
  if (wqe.read_early == wqe.psn_count) --qp.req.answers_whole;
  complete_oldest(core, qp, wqe);
}

bool read_response_fits(const QueuePair& qp, const SendWqe& wqe, const wire::PacketHeaders& headers,
                        size_t bytes) {
  const uint32_t index = psn_add(headers.psn, 0u - wqe.first_psn);
  const bool last = index + 1 == wqe.psn_count;
  const size_t due = last ? wqe.length - index * qp.mtu : qp.mtu;
  if (bytes != due) return false;
  const bool begins = headers.is(wire::kOpStart);
  const bool ends = headers.is(wire::kOpEnd);
  if ((index == 0 && !begins) || (last && !ends)) return false;
  // Once a part was asked for again, responses of several runs may be on their way: any may begin
  // or end a run.
  return wqe.restarted || (begins == (index == 0) && ends == last);
}

// False if it was not taken. Only the oldest WQE may fail, so the answer of a later one whose
// memory is gone is as good as lost: it comes again in its turn.
bool place_answer(Core& core, QueuePair& qp, uint32_t at, const wire::PacketHeaders& headers,
                  std::span<const std::byte> payload) {
  const SendWqe& wqe = qp.sq.at(at);
  if (!wqe.answered_as_read() || !read_response_fits(qp, wqe, headers, payload.size())) {
    fail_send(core, qp, WcStatus::kBadResp, kVendorBadResponse);
    return false;
  }
  const uint64_t offset = uint64_t{psn_add(headers.psn, 0u - wqe.first_psn)} * qp.mtu;
  if (scatter(core, qp.pd, qp.sq.sges(at).first(wqe.num_sge), offset, payload)) return true;
  if (at == qp.sq.head) fail_send(core, qp, WcStatus::kLocProt, kVendorLocalKey);
  return false;
}

// One response more is in place; those that came early may follow it.
void advance_read(Core& core, QueuePair& qp) {
  RequesterState& req = qp.req;
  do {
    SendWqe& wqe = qp.sq.at(qp.sq.head);
    req.una_psn = psn_add(req.una_psn, 1);
    --req.read_psns;
    if (++wqe.read_packets == wqe.psn_count) finish_answer(core, qp, wqe);
  } while (!qp.sq.empty() && qp.sq.at(qp.sq.head).started &&
           qp.sq.at(qp.sq.head).answered_as_read() && req.una_psn != req.sent_end &&
           sacked(qp, req.una_psn));
}

// The WQE that this PSN was given to; the first one without PSNs, or the tail, if there is none.
uint32_t request_of(QueuePair& qp, uint32_t psn) noexcept {
  uint32_t first = 0;
  uint32_t count = qp.sq.tail - qp.sq.head;
  while (count != 0) {
    const uint32_t half = count / 2;
    const SendWqe& wqe = qp.sq.at(qp.sq.head + first + half);
    if (wqe.started && psn_diff(psn, psn_add(wqe.first_psn, wqe.psn_count)) >= 0) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return qp.sq.head + first;
}

// A response after a gap: it goes where it belongs, and what is missing is asked for again.
void early_answer(Core& core, QueuePair& qp, const wire::PacketHeaders& headers,
                  std::span<const std::byte> payload) {
  if (core.options.go_back_n) return go_back(core, qp);
  RequesterState& req = qp.req;
  const uint32_t at = request_of(qp, headers.psn);
  if (at == qp.sq.tail || !qp.sq.at(at).started) return;
  if (psn_diff(headers.psn, req.una_psn) < static_cast<int32_t>(kReorderPackets)) {
    if (sacked(qp, headers.psn)) return void(++core.stats.rx_stale_responses);
    if (!place_answer(core, qp, at, headers, payload)) {
      if (qp.may_send()) repair(core, qp, req.answers_to, headers.psn);
      return;
    }
    mark_arrived(req, headers.psn);
    note_news(core, qp);
    SendWqe& wqe = qp.sq.at(at);
    if (++wqe.read_early == wqe.psn_count) ++req.answers_whole;
    core.make_ready(qp);  // another READ may have its turn
  }
  repair(core, qp, req.answers_to, psn_add(headers.psn, 1));
}

void handle_read_response(Core& core, QueuePair& qp, const wire::PacketHeaders& headers,
                          std::span<const std::byte> payload) {
  const RequesterState& req = qp.req;
  if (psn_diff(headers.psn, req.una_psn) < 0 || psn_diff(headers.psn, req.sent_end) >= 0)
    return void(++core.stats.rx_stale_responses);
  if (!acknowledge(core, qp, headers.psn)) return early_answer(core, qp, headers, payload);
  if (qp.sq.empty() || req.una_psn != headers.psn || !qp.sq.at(qp.sq.head).started) return;
  if (!place_answer(core, qp, qp.sq.head, headers, payload)) return;
  advance_read(core, qp);
  progress(core, qp, headers.psn);
  settle(core, qp);
}

void handle_atomic_answer(Core& core, QueuePair& qp, const wire::PacketHeaders& headers) {
  SendWqe* wqe = awaited(core, qp, headers.psn);
  if (wqe == nullptr) return;
  if (!wqe->is_atomic()) return fail_send(core, qp, WcStatus::kBadResp, kVendorBadResponse);
  const uint64_t result = headers.atomic_result;
  const auto bytes = std::as_bytes(std::span(&result, 1));
  if (!scatter(core, qp.pd, qp.sq.sges(qp.sq.head).first(wqe->num_sge), 0, bytes)) {
    return fail_send(core, qp, WcStatus::kLocProt, kVendorLocalKey);
  }
  --qp.req.read_psns;
  finish_answer(core, qp, *wqe);
  progress(core, qp, headers.psn);
  settle(core, qp);
}

void handle_ack_timeout(Core& core, QueuePair& qp) {
  RequesterState& req = qp.req;
  req.ack_deadline = req.probe_deadline = Instant::never();
  if (!has_outstanding(qp)) return;
  ++core.stats.timeouts;
  if (req.peer_gone) return fail_send(core, qp, WcStatus::kRetryExc, kVendorPeerProcess);
  if (!req.heard) {
    if (req.retries_left == 0) return fail_send(core, qp, WcStatus::kRetryExc, kVendorRetryTimeout);
    --req.retries_left;
    forget_all_sacked(qp);  // a peer that lost what it had kept must not keep us from sending it
  }
  req.backoff = 0;
  rewind(core, qp);
  arm_ack_timer(core, qp);
}

}  // namespace

void arm_ack_timer(Core& core, QueuePair& qp) noexcept {
  RequesterState& req = qp.req;
  req.heard = false;
  if (req.peer_gone) {
    req.ack_deadline = core.now + core.options.farewell_grace;
  } else if (qp.attr.timeout != 0) {  // C-090: 0 is never
    req.ack_deadline = core.now + Duration{int64_t{4096} << qp.attr.timeout};
  }
  core.deadlines.update(qp, qp.deadline());
  arm_probe(core, qp);
}

void handle_response(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                     std::span<const std::byte> payload) {
  const wire::PacketHeaders& headers = packet.headers;
  if (headers.is(wire::kOpRead)) return handle_read_response(core, qp, headers, payload);
  if (headers.is(wire::kOpAtomic)) return handle_atomic_answer(core, qp, headers);
  handle_ack(core, qp, headers);
  if (!qp.may_send()) return;
  if (headers.is(wire::kOpControl)) handle_sack(core, qp, headers, payload);
  settle(core, qp);
}

void handle_requester_timers(Core& core, QueuePair& qp) {
  RequesterState& req = qp.req;
  if (req.rnr_waiting && req.rnr_deadline <= core.now) {
    req.rnr_waiting = false;
    req.rnr_deadline = Instant::never();
    rewind(core, qp);
    arm_ack_timer(core, qp);
  }
  if (req.ack_deadline <= core.now) handle_ack_timeout(core, qp);
}

}  // namespace tbt::engine
