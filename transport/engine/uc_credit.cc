// UC in wait mode: a message that needs a receive is held back until the receiver has one
// (docs/wire.md).
//
// Both sides count messages that consume a receive. The receiver tells the absolute limit = seen +
// posted, the sender asks with its absolute count of messages sent, so a lost message or a lost
// credit corrects itself with the next exchange. Each packet carries the sending direction's first
// PSN, which tells connections apart.
#include <algorithm>

#include "engine/core.h"

namespace tbt::engine {

namespace {

int32_t ahead(uint32_t a, uint32_t b) noexcept { return static_cast<int32_t>(a - b); }

uint32_t present_limit(const QueuePair& qp) noexcept {
  const uint32_t posted = qp.srq != nullptr ? qp.srq->queue.posted() : qp.rq.posted();
  return qp.uc.seen + posted + (qp.resp.have_receive ? 1 : 0);
}

void offer_credit(Core& core, QueuePair& qp) noexcept {
  UcCreditState& uc = qp.uc;
  if (!uc.peer_asked || ahead(present_limit(qp), uc.told_limit) <= 0) return;
  uc.credit_owed = true;
  core.make_ready(qp);
}

void schedule_request(Core& core, QueuePair& qp) noexcept {
  const Duration wait =
      qp.req.peer_gone ? core.options.farewell_grace : Duration{qp.uc.interval_ns};
  qp.uc.request_deadline = core.now + wait;
  core.deadlines.update(qp, qp.deadline());
}

void grant(Core& core, QueuePair& qp, uint32_t limit) noexcept {
  UcCreditState& uc = qp.uc;
  if (ahead(limit, uc.limit) <= 0) return;
  uc.limit = limit;
  uc.waiting = uc.request_owed = false;
  uc.request_deadline = Instant::never();
  core.make_ready(qp);
}

void answer_request(Core& core, QueuePair& qp, uint32_t sent) noexcept {
  UcCreditState& uc = qp.uc;
  // Packets of one rail are in order, so what was sent before the request and is not here is lost,
  // also the message whose packets have been arriving.
  if (qp.resp.kind != MessageKind::kNone && ahead(sent, uc.seen) > 0) {
    ++core.stats.rx_uc_dropped;
    qp.resp.kind = MessageKind::kNone;
  }
  if (qp.resp.kind == MessageKind::kNone) uc.seen = sent;
  uc.peer_asked = true;
  if (ahead(present_limit(qp), sent) <= 0) return;  // told when a receive is posted
  uc.credit_owed = true;
  core.make_ready(qp);
}

void make_control(const QueuePair& qp, wire::Opcode opcode, uint32_t first, uint32_t second,
                  uint32_t third, TxPacket& packet) noexcept {
  address_packet(qp.path, qp.attr.dest_qpn, opcode, packet.headers);
  packet.headers.psn = 0;
  packet.headers.src_qp = qp.number;
  packet.headers.control = {first, second, third};
  packet.pieces = 0;
  packet.payload_bytes = 0;
}

}  // namespace

bool uc_may_start(Core& core, QueuePair& qp) {
  UcCreditState& uc = qp.uc;
  if (core.options.uc_drop) return true;
  if (ahead(uc.limit, uc.sent) > 0) {
    ++uc.sent;
    return true;
  }
  if (!uc.waiting) {
    uc.waiting = uc.request_owed = true;
    uc.interval_ns = core.options.uc_request_first.ns;
    schedule_request(core, qp);
  }
  return false;
}

void uc_message_seen(Core& core, QueuePair& qp) {
  ++qp.uc.seen;
  offer_credit(core, qp);
}

void uc_receive_posted(Core& core, QueuePair& qp) { offer_credit(core, qp); }

void handle_uc_control(Core& core, QueuePair& qp, const wire::PacketHeaders& headers) {
  if (headers.src_qp != qp.attr.dest_qpn) {
    ++core.stats.rx_wrong_peer;
    return;
  }
  const bool credit = headers.opcode == static_cast<uint8_t>(wire::Opcode::kUcCredit);
  const uint32_t connection = credit ? qp.attr.sq_psn : qp.attr.rq_psn;
  if (headers.control[2] != connection) return;  // of an earlier life of this queue pair
  if (credit) {
    grant(core, qp, headers.control[0]);
  } else {
    answer_request(core, qp, headers.control[0]);
  }
}

bool next_uc_control(Core& core, QueuePair& qp, TxPacket& packet) {
  UcCreditState& uc = qp.uc;
  if (!qp.has_path) return false;
  if (uc.credit_owed && qp.may_receive()) {
    uc.credit_owed = false;
    uc.told_limit = present_limit(qp);
    make_control(qp, wire::Opcode::kUcCredit, uc.told_limit, uc.seen, qp.attr.rq_psn, packet);
    return true;
  }
  if (uc.request_owed && qp.may_send()) {
    uc.request_owed = false;
    schedule_request(core, qp);
    make_control(qp, wire::Opcode::kUcCreditRequest, uc.sent, 0, qp.attr.sq_psn, packet);
    return true;
  }
  return false;
}

void handle_uc_timer(Core& core, QueuePair& qp) {
  UcCreditState& uc = qp.uc;
  if (uc.request_deadline > core.now) return;
  uc.request_deadline = Instant::never();
  if (!uc.waiting) return;
  if (qp.req.peer_gone) return fail_send(core, qp, WcStatus::kRetryExc, kVendorPeerProcess);
  uc.request_owed = true;
  uc.interval_ns = std::min(uc.interval_ns * 2, core.options.uc_request_most.ns);
  schedule_request(core, qp);
  core.make_ready(qp);
}

}  // namespace tbt::engine
