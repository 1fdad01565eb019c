// Completions, flushing, and the ways into the error states (IBTA vol. 1, 10.3.1 and 10.7.3; C-040
// to C-049).
#include <utility>

#include "base/assert.h"
#include "engine/core.h"

namespace tbt::engine {

namespace {

WcOpcode completion_opcode(WrOpcode opcode) noexcept {
  switch (opcode) {
    case WrOpcode::kRdmaWrite:
    case WrOpcode::kRdmaWriteImm:
      return WcOpcode::kRdmaWrite;
    case WrOpcode::kRdmaRead:
      return WcOpcode::kRdmaRead;
    case WrOpcode::kCmpSwap:
      return WcOpcode::kCmpSwap;
    case WrOpcode::kFetchAdd:
      return WcOpcode::kFetchAdd;
    case WrOpcode::kBindMw:
      return WcOpcode::kBindMw;
    case WrOpcode::kLocalInv:
      return WcOpcode::kLocalInv;
    case WrOpcode::kFlush:
      return WcOpcode::kFlush;
    case WrOpcode::kAtomicWrite:
      return WcOpcode::kAtomicWrite;
    case WrOpcode::kSend:
    case WrOpcode::kSendImm:
    case WrOpcode::kSendInv:
      break;
  }
  return WcOpcode::kSend;
}

void notify(Core& core, verbs::CompletionQueue& cq) noexcept {
  if (cq.notify_queued) return;
  cq.notify_queued = true;
  cq.notify_next = core.notify_head;
  core.notify_head = &cq;
}

// A completion has come that the queue was armed for.
void announce(Core& core, verbs::CompletionQueue& cq, bool solicited) {
  if (cq.take_notification(solicited)) {
    cq.put_off_until = Instant::never();
    return notify(core, cq);
  }
  if (!cq.put_off_until.is_never()) return;
  cq.put_off_until = core.now + cq.moderation_period();
  if (std::exchange(cq.put_off_listed, true)) return;
  core.put_off.push_back(&cq);
  core.deadlines.add(kModerationTimer, cq.put_off_until);
  core.events.push_back({Event::Kind::kTimer, {}, nullptr});
}

// A completion that does not fit breaks the queue for good, and with it every queue pair that uses
// it (C-131).
void handle_overflow(Core& core, verbs::CompletionQueue& cq, bool first) {
  ++core.stats.cq_overflows;
  if (!first) return;
  core.raise(AsyncEventType::kCqErr, cq.user());
  core.qps.for_each([&](QueuePair& qp) {
    if (qp.send_cq == &cq || qp.recv_cq == &cq) enter_error(core, qp);
  });
}

void push(Core& core, QueuePair& qp, verbs::CompletionQueue& cq, Wc& wc,
          const verbs::SlotRelease& release, bool solicited) {
  wc.qp_num = qp.number;
  wc.timestamp_ns = static_cast<uint64_t>(core.now.ns);
  const bool was_broken = cq.overflowed();
  if (!cq.push(wc, release, &qp)) return handle_overflow(core, cq, !was_broken);
  const bool wakes = solicited || wc.status != WcStatus::kSuccess;
  if (cq.awaits(wakes)) announce(core, cq, wakes);
}

void push_recv(Core& core, QueuePair& qp, Wc& wc, uint32_t index, bool solicited) {
  verbs::SlotRelease release;
  if (qp.srq == nullptr) release = {qp.rq.release_counter(), index + 1};
  push(core, qp, *qp.recv_cq, wc, release, solicited);
}

void flush_send_queue(Core& core, QueuePair& qp) {
  while (!qp.sq.empty()) complete_send(core, qp, WcStatus::kWrFlush, kVendorNone);
  qp.req.cursor = qp.sq.head;
}

void flush_receive_queue(Core& core, QueuePair& qp) {
  if (qp.resp.have_receive) fail_recv(core, qp, WcStatus::kWrFlush, kVendorNone);
  Wc wc;
  wc.status = WcStatus::kWrFlush;
  wc.opcode = WcOpcode::kRecv;
  uint32_t index = 0;
  while (qp.rq.take_id(wc.wr_id, index)) push_recv(core, qp, wc, index, true);
}

void stop_requester(QueuePair& qp) noexcept {
  qp.req.ack_deadline = qp.req.probe_deadline = Instant::never();
  qp.req.rnr_deadline = Instant::never();
  qp.uc.request_deadline = Instant::never();
  qp.req.rnr_waiting = false;
  qp.req.failed = false;
  qp.draining = false;
  qp.uc.waiting = qp.uc.request_owed = false;
}

}  // namespace

void tell_put_off(Core& core, verbs::CompletionQueue& cq) {
  if (cq.put_off_until.is_never()) return;
  cq.put_off_until = Instant::never();
  cq.disarm();
  notify(core, cq);
}

// A queue stands in the list once, however often its event came before its time.
void handle_moderation_timer(Core& core) {
  std::erase_if(core.put_off, [&core](verbs::CompletionQueue* cq) {
    if (cq->put_off_until > core.now && !cq->put_off_until.is_never()) {
      core.deadlines.add(kModerationTimer, cq->put_off_until);
      return false;
    }
    tell_put_off(core, *cq);
    cq->put_off_listed = false;
    return true;
  });
}

void complete_send(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor) {
  const verbs::SendWqe& wqe = qp.sq.at(qp.sq.head);
  ++qp.sq.head;
  if (status == WcStatus::kSuccess && !wqe.signaled) return;
  Wc wc;
  wc.wr_id = wqe.wr_id;
  wc.status = status;
  wc.vendor_err = vendor;
  if (status == WcStatus::kSuccess) {
    wc.opcode = completion_opcode(wqe.opcode);
    wc.byte_len = wqe.wants_answer() ? wqe.length : 0;
  }
  push(core, qp, *qp.send_cq, wc, {&qp.sq.released, qp.sq.head}, false);
}

void complete_recv(Core& core, QueuePair& qp, const RecvCompletion& what) {
  Wc wc;
  wc.wr_id = qp.resp.receive.wr_id;
  wc.opcode = what.opcode;
  wc.byte_len = what.byte_len;
  wc.imm_be = what.imm_be;
  wc.src_qp = what.src_qp;
  wc.slid = what.slid;
  wc.sl = what.sl;
  wc.flags = (what.has_imm ? kWcWithImm : 0u) | (what.has_inv ? kWcWithInv : 0u) |
             (what.has_grh ? kWcGrh : 0u);
  qp.resp.have_receive = false;
  push_recv(core, qp, wc, qp.resp.receive.index, what.solicited);
}

void fail_recv(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor) {
  Wc wc;
  wc.wr_id = qp.resp.receive.wr_id;
  wc.status = status;
  wc.vendor_err = vendor;
  wc.opcode = WcOpcode::kRecv;
  qp.resp.have_receive = false;
  push_recv(core, qp, wc, qp.resp.receive.index, true);
}

void fail_send(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor) {
  TBT_DCHECK(!qp.sq.empty());
  complete_send(core, qp, status, vendor);
  if (qp.reliable) return enter_error(core, qp);
  if (qp.state != QpState::kRts && qp.state != QpState::kSqd) return;
  qp.state = QpState::kSqe;
  qp.req.next_psn = qp.req.send_psn;  // a message that broke off has used no more than it sent
  stop_requester(qp);
  flush_send_queue(core, qp);
}

void enter_error(Core& core, QueuePair& qp) {
  qp.resp.early.reset();
  if (qp.state == QpState::kErr || qp.state == QpState::kReset) return;
  qp.state = QpState::kErr;
  stop_requester(qp);
  // What the responder owes still goes out: the peer must learn of messages that we have already
  // delivered.
  qp.closing = owes_response(qp);
  if (qp.closing) core.make_ready(qp);
  qp.resp.kind = MessageKind::kNone;
  flush_send_queue(core, qp);
  flush_receive_queue(core, qp);
  if (qp.srq != nullptr) core.raise(AsyncEventType::kQpLastWqeReached, qp.user);
}

void flush_posted(Core& core, QueuePair& qp) {
  if (qp.state == QpState::kErr || qp.state == QpState::kSqe) flush_send_queue(core, qp);
  if (qp.state == QpState::kErr) flush_receive_queue(core, qp);
}

bool take_receive(Core& core, QueuePair& qp) {
  if (qp.resp.have_receive) return true;
  if (qp.srq == nullptr) return qp.resp.have_receive = qp.rq.take(qp.resp.receive);
  verbs::SharedReceiveQueue& srq = *qp.srq;
  if (!srq.queue.take(qp.resp.receive)) return false;
  srq.queue.release_all_taken();
  if (srq.limit != 0 && srq.queue.posted() < srq.limit) {
    srq.limit = 0;
    core.raise(AsyncEventType::kSrqLimitReached, srq.user);
  }
  return qp.resp.have_receive = true;
}

}  // namespace tbt::engine
