// What must hold of a queue pair between any two calls, whatever came from the cable: indices, PSN
// windows and counts agree, and timers run only where they have something to end.
#include <algorithm>
#include <bit>

#include "base/assert.h"
#include "engine/core.h"
#include "engine_host.h"
#include "wire/psn.h"

namespace tbt::fuzz {

namespace {

using engine::QueuePair;
using wire::psn_diff;

void check_indices(const QueuePair& qp) {
  const uint32_t taken = qp.sq.tail - qp.sq.released;
  TBT_ASSERT(taken <= qp.attr.cap.max_send_wr);
  TBT_ASSERT(qp.sq.head - qp.sq.released <= taken);
  TBT_ASSERT(qp.req.cursor - qp.sq.head <= qp.sq.tail - qp.sq.head);
  TBT_ASSERT(qp.rq.posted() <= qp.rq.capacity());
}

void check_numbers(const QueuePair& qp) {
  const engine::RequesterState& req = qp.req;
  TBT_ASSERT(psn_diff(req.send_psn, req.una_psn) >= 0);
  TBT_ASSERT(psn_diff(req.sent_end, req.send_psn) >= 0);
  TBT_ASSERT(psn_diff(req.next_psn, req.sent_end) >= 0);
  for (const uint32_t psn : {req.requests_to, req.answers_to, req.oldest_mark, req.loss_mark})
    TBT_ASSERT(psn_diff(psn, req.una_psn) >= 0);
  uint32_t marks = 0;
  for (uint64_t word : req.sacked) marks += static_cast<uint32_t>(std::popcount(word));
  TBT_ASSERT(marks == req.sacked_count);
  // The peer has nothing that was not sent.
  for (uint32_t i = 0; marks != 0 && i < engine::kReorderPackets; ++i) {
    const uint32_t psn = wire::psn_add(req.una_psn, i);
    TBT_ASSERT(!engine::sacked(qp, psn) || psn_diff(psn, req.sent_end) < 0);
  }
}

// READs and atomics that are counted are those in the queue.
void check_answers(QueuePair& qp) {
  uint32_t due = 0;
  uint32_t whole = 0;
  uint32_t psns = 0;
  for (uint32_t i = qp.sq.head; i != qp.sq.tail; ++i) {
    const verbs::SendWqe& wqe = qp.sq.at(i);
    if (!wqe.started || !wqe.wants_answer()) continue;
    ++due;
    whole += wqe.read_early == wqe.psn_count ? 1 : 0;
    psns += wqe.psn_count - wqe.read_packets;
  }
  TBT_ASSERT(due == qp.req.answers_due && psns == qp.req.read_psns);
  TBT_ASSERT(whole == qp.req.answers_whole);
}

void check_timers(const QueuePair& qp) {
  const engine::RequesterState& req = qp.req;
  if (!qp.may_send()) {
    TBT_ASSERT(req.ack_deadline.is_never() && req.probe_deadline.is_never());
    TBT_ASSERT(req.rnr_deadline.is_never() && qp.uc.request_deadline.is_never());
    return;
  }
  TBT_ASSERT(req.rnr_waiting != req.rnr_deadline.is_never());
  if (qp.type != QpType::kRc || req.rnr_waiting || qp.attr.timeout == 0) return;
  // Silence must have an end.
  TBT_ASSERT(!engine::has_outstanding(qp) || !req.ack_deadline.is_never());
}

void check_responder(const QueuePair& qp) {
  const auto pending = std::ranges::count_if(
      qp.resp.resources, [](const engine::Resource& slot) { return slot.pending; });
  TBT_ASSERT(pending == static_cast<ptrdiff_t>(qp.resp.pending));
  TBT_ASSERT(!qp.resp.early || qp.resp.early->count() <= engine::kReorderPackets);
  TBT_ASSERT(!qp.resp.early || qp.state != QpState::kErr);
}

}  // namespace

void check_queue_pair(QueuePair& qp) {
  check_indices(qp);
  if (qp.type == QpType::kUc && qp.sq.empty() && qp.state != QpState::kErr)
    TBT_ASSERT(qp.req.send_psn == qp.req.next_psn);
  check_timers(qp);
  check_responder(qp);
  if (qp.type != QpType::kRc || !qp.may_send()) return;
  check_numbers(qp);
  check_answers(qp);
}

}  // namespace tbt::fuzz
