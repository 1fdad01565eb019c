// Machine: everything that has an influence on what comes, in 64 bits. Times count from now; what
// was placed in memory follows from the rest, but for a READ's answer, whose bytes are all alike.
#include <type_traits>

#include "tests/model/end.h"
#include "wire/psn.h"

namespace tbt::model {

namespace {

class Digest {
 public:
  template <typename T>
  void add(T value) noexcept {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    state_ = (state_ ^ static_cast<uint64_t>(value)) * 0x9e3779b97f4a7c15ULL;
    state_ ^= state_ >> 29;
  }
  void add(Instant at, Instant now) noexcept { add(at.is_never() ? -1 : (at - now).ns); }
  [[nodiscard]] uint64_t value() const noexcept { return state_ * 0xbf58476d1ce4e5b9ULL; }

 private:
  uint64_t state_ = 0x243f6a8885a308d3ULL;
};

void add(Digest& d, const engine::RequesterState& req, Instant now) {
  for (const uint32_t word :
       {req.cursor, req.send_psn, req.next_psn, req.una_psn, req.sent_end, req.ssn, req.answers_due,
        req.answers_whole,
        req.read_psns, req.since_ack_req, req.credit_limit, req.timed_psn, req.window,
        req.window_acked, req.repair_end, req.requests_to, req.answers_to, req.oldest_mark,
        req.loss_mark, req.fresh_cursor}) {
    d.add(word);
  }
  for (const bool flag :
       {req.credits_known, req.rnr_waiting, req.rewound, req.failed, req.timing, req.repairing, req.heard,
        req.beyond}) {
    d.add(flag);
  }
  d.add(req.retries_left);
  d.add(req.rnr_retries_left);
  d.add(req.backoff);
  d.add(req.srtt_ns);
  d.add(req.rttvar_ns);
  d.add(req.probe_after.ns);
  if (req.timing) d.add(req.timed_at, now);
  d.add(req.ack_deadline, now);
  d.add(req.probe_deadline, now);
  d.add(req.rnr_deadline, now);
  for (const uint64_t word : req.sacked) d.add(word);
  for (uint32_t psn = req.una_psn; req.repetitions && psn != req.sent_end; psn = wire::psn_add(psn, 1)) {
    const engine::Repetition& last = (*req.repetitions)[psn % engine::kReorderPackets];
    d.add(last.psn == psn ? last.mark : UINT32_MAX);
  }
}

void add(Digest& d, const engine::ResponderState& resp) {
  for (const uint32_t word : {resp.expected_psn, resp.msn, resp.nak_psn, resp.pending,
                              resp.repeats, resp.write_length}) {
    d.add(word);
  }
  // Places are what counts, not how often the ring has gone round.
  const auto size = std::max<uint32_t>(static_cast<uint32_t>(resp.resources.size()), 1);
  d.add(resp.resource_tail % size);
  if (resp.pending != 0) d.add(resp.resource_tail - resp.pending_from);
  d.add(resp.kind);
  d.add(resp.placed);
  d.add(resp.nak_syndrome);
  for (const bool flag :
       {resp.have_receive, resp.ack_owed, resp.nak_owed, resp.sequence_nak_sent, resp.refused})
    d.add(flag);
  for (const engine::Resource& slot : resp.resources) {
    for (const uint32_t word : {slot.first_psn, slot.psn_count, slot.cursor_psn, slot.run_psn,
                                slot.run_end, slot.msn, slot.length}) {
      d.add(word);
    }
    d.add(slot.va);
    d.add(slot.atomic_result);
    for (const bool flag : {slot.atomic, slot.pending, slot.repeating}) d.add(flag);
  }
  for (uint32_t i = 1; resp.early && i < 16; ++i)
    d.add(resp.early->has(wire::psn_add(resp.expected_psn, i)));
}

void add(Digest& d, verbs::SendQueue& sq) {
  d.add(sq.head);
  d.add(sq.tail);
  for (uint32_t i = sq.head; i != sq.tail; ++i) {
    const verbs::SendWqe& wqe = sq.at(i);
    for (const bool flag : {wqe.started, wqe.done, wqe.restarted, wqe.held}) d.add(flag);
    for (const uint32_t word : {wqe.first_psn, wqe.psn_count, wqe.ssn, wqe.read_packets, wqe.read_early})
      d.add(word);
  }
}

void add(Digest& d, const wire::PacketHeaders& headers) {
  d.add(headers.opcode);
  d.add(headers.psn);
  d.add(headers.ack_req);
  d.add(headers.va);
  d.add(headers.dma_length);
  d.add(headers.syndrome);
  d.add(headers.msn);
  d.add(headers.atomic_result);
  for (const uint32_t word : headers.control) d.add(word);
}

}  // namespace

uint64_t Machine::digest() const {
  Digest d;
  d.add(losses_);
  d.add(copies_);
  d.add(timeouts_);
  for (uint32_t side = 0; side < 2; ++side) {
    const End& end = *ends_[side];
    d.add(end.qp->state);
    d.add(end.qp->ready);
    d.add(end.qp->rq.posted());
    d.add(end.unposted);
    d.add(end.completed);
    d.add(end.received);
    d.add(end.retries());
    add(d, end.qp->req, now_);
    add(d, end.qp->resp);
    add(d, end.qp->sq);
    d.add(network_[side].size());
    for (const Packet& packet : network_[side]) {
      add(d, packet.parsed.headers);
      d.add(packet.parsed.payload_bytes);
    }
  }
  return d.value();
}

}  // namespace tbt::model
