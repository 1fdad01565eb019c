// Requester: turns send WQEs into request packets (IBTA vol. 1, 9.7.3, 9.8.2, 9.8.3).
//
// A packet is made anew from its WQE each time it is sent, so going back costs nothing but the
// sending. Steps of one call: may the WQE at the cursor start -> give it PSNs -> is the window open
// -> make the packet.
#include <algorithm>

#include "base/assert.h"
#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using verbs::SendWqe;
using wire::Opcode;
using wire::psn_add;
using wire::psn_diff;

constexpr uint32_t kAtomicBytes = 8;
constexpr uint32_t kPsnSpanMax =
    0x7fffff;  // most PSNs outstanding, so that comparison stays sound (C-060)

// Cannot be sent: fails as soon as everything before it is done, so that the order of completions
// holds.
bool refuse(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor) {
  RequesterState& req = qp.req;
  req.failed = true;
  req.fail_status = status;
  req.fail_vendor = vendor;
  if (qp.sq.head == req.cursor) fail_send(core, qp, status, vendor);
  return false;
}

uint32_t packets_of(const QueuePair& qp, const SendWqe& wqe) noexcept {
  if (wqe.is_atomic() || wqe.length == 0) return 1;
  return (wqe.length - 1) / qp.mtu + 1;
}

// With credits known, a message beyond them may go only when nothing else is on its way: then its
// RNR NAK or acknowledge tells us more (IBTA vol. 1, 9.7.7.2.4).
bool credit_allows(const QueuePair& qp, const SendWqe& wqe) noexcept {
  const RequesterState& req = qp.req;
  if (!req.credits_known || !wqe.consumes_receive()) return true;
  return psn_diff(psn_add(req.ssn, 1), req.credit_limit) <= 0 || !has_outstanding(qp);
}

// READs behind a gap that are here make room for others (kAnswersPerAgreed). One more is asked for
// while less than a window is on its way, so that there is always one left whose answer shows that
// what was asked for again before it is lost again; and while it can be noted behind a gap, since
// what comes further behind would have to come again (of a READ larger than a window the end may).
bool order_allows(const Core& core, const QueuePair& qp, const SendWqe& wqe) noexcept {
  const RequesterState& req = qp.req;
  if (wqe.fence && req.answers_due > 0) return false;
  if (!wqe.wants_answer()) return true;
  if (req.answers_due == 0) return qp.attr.max_rd_atomic != 0;
  const uint32_t agreed = qp.attr.max_rd_atomic;
  if (req.answers_due - req.answers_whole >= agreed) return false;
  if (req.answers_due >= kAnswersPerAgreed * agreed) return false;
  const uint32_t window = core.options.window_packets;
  const auto ahead = static_cast<uint32_t>(psn_diff(req.next_psn, req.una_psn));
  if (ahead >= window + req.sacked_count) return false;
  return ahead + std::min(packets_of(qp, wqe), window) <= kReorderPackets;
}

bool start(Core& core, QueuePair& qp, SendWqe& wqe) {
  RequesterState& req = qp.req;
  if (qp.state == QpState::kSqd) return false;
  if (!order_allows(core, qp, wqe)) return false;
  const uint32_t access = wqe.brings_data() ? uint32_t{kAccessLocalWrite} : verbs::kAccessLocalRead;
  if (!check_sges(core, qp, req.cursor, access))
    return refuse(core, qp, WcStatus::kLocProt, kVendorLocalKey);
  if (qp.type == QpType::kUc && wqe.consumes_receive() && !uc_may_start(core, qp)) return false;
  if (qp.reliable && !credit_allows(qp, wqe)) return false;
  const uint32_t count = packets_of(qp, wqe);
  const uint32_t span = psn_add(req.next_psn - req.una_psn, count);
  if (qp.reliable && span > kPsnSpanMax) return false;
  wqe.started = true;
  wqe.first_psn = req.next_psn;
  wqe.psn_count = count;
  wqe.ssn = req.ssn = psn_add(req.ssn, 1);
  req.next_psn = psn_add(req.next_psn, count);
  if (wqe.wants_answer()) {
    ++req.answers_due;
    req.read_psns += count;
    if (!wqe.brings_data()) wqe.length = 0;  // of the answer
  }
  return true;
}

bool window_open(const QueuePair& qp) noexcept {
  if (!qp.reliable) return true;
  const RequesterState& req = qp.req;
  const auto ahead = static_cast<uint32_t>(psn_diff(req.send_psn, req.una_psn));
  const uint32_t most = std::min(req.window + req.sacked_count, kReorderPackets);
  return ahead < most + req.read_psns;
}

Opcode request_opcode(const QueuePair& qp, const SendWqe& wqe, bool first, bool last) noexcept {
  // Offsets from SEND FIRST within a service's opcodes (IBTA vol. 1, table 35).
  uint8_t code = 0;
  if (first && last) {
    code = wqe.has_imm() ? 5 : 4;
  } else if (last) {
    code = wqe.has_imm() ? 3 : 2;
  } else {
    code = first ? 0 : 1;
  }
  if (wqe.is_write()) code = static_cast<uint8_t>(code + 6);
  if (wqe.invalidates() && last) return first ? Opcode::kRcSendOnlyInv : Opcode::kRcSendLastInv;
  return opcode_of(qp, static_cast<Opcode>(code));
}

void ask_for_ack(Core& core, QueuePair& qp, bool last, wire::PacketHeaders& headers) noexcept {
  if (!qp.reliable) return;
  RequesterState& req = qp.req;
  const uint32_t every = std::min(core.options.ack_req_every, req.window / 4);
  headers.ack_req = last || ++req.since_ack_req >= every || headers.psn != req.sent_end;
  if (!headers.ack_req) return;
  req.since_ack_req = 0;
  time_request(core, qp, headers.psn);
}

// Whether the controller may read the payload by itself. Until the acknowledgement memory is not
// the application's to change (IBTA vol. 1, 10.8.1), and what it changes all the same is found by
// the receiver's check. What is sent again is copied under its check, so that even memory which
// never stands still arrives. A packet that was sent before may still stand in a ring when its
// request is complete: changed by then it is dropped, else it is a duplicate.
bool may_leave_directly(const QueuePair& qp) noexcept {
  return qp.reliable && qp.req.send_psn == qp.req.sent_end;
}

bool make_message_packet(Core& core, QueuePair& qp, SendWqe& wqe, TxPacket& packet) {
  RequesterState& req = qp.req;
  const uint32_t index = psn_add(req.send_psn, 0u - wqe.first_psn);
  const uint32_t offset = index * qp.mtu;
  const bool first = index == 0;
  const bool last = index + 1 == wqe.psn_count;
  const uint32_t length = std::min(qp.mtu, wqe.length - offset);
  if (!gather(core, qp, req.cursor, offset, length, packet, may_leave_directly(qp))) {
    return refuse(core, qp, WcStatus::kLocProt, kVendorLocalKey);
  }
  wire::PacketHeaders& headers = packet.headers;
  address_packet(qp.path, qp.attr.dest_qpn, request_opcode(qp, wqe, first, last), headers);
  headers.psn = req.send_psn;
  headers.imm_be = wqe.imm_be;
  headers.va = wqe.remote_addr;
  headers.rkey = wqe.rkey;
  headers.dma_length = wqe.length;
  headers.solicited = last && wqe.solicited && wqe.consumes_receive();
  ask_for_ack(core, qp, last, headers);
  req.send_psn = psn_add(req.send_psn, 1);
  if (last) ++req.cursor;
  return true;
}

// A READ is asked for whole; again only as far as answers are missing (C-071).
void make_read_request(QueuePair& qp, SendWqe& wqe, TxPacket& packet) {
  const uint32_t begin = psn_add(qp.req.send_psn, 0u - wqe.first_psn);
  const uint32_t end = psn_add(missing_end(qp, wqe), 0u - wqe.first_psn);
  const uint32_t offset = begin * qp.mtu;
  wire::PacketHeaders& headers = packet.headers;
  address_packet(qp.path, qp.attr.dest_qpn, opcode_of(qp, Opcode::kRcReadRequest), headers);
  headers.psn = qp.req.send_psn;
  headers.va = wqe.remote_addr + offset;
  headers.rkey = wqe.rkey;
  headers.dma_length = (end == wqe.psn_count ? wqe.length : end * qp.mtu) - offset;
  if (qp.req.send_psn != qp.req.sent_end) wqe.restarted = true;
  qp.req.send_psn = psn_add(wqe.first_psn, end);
}

void make_atomic_request(QueuePair& qp, const SendWqe& wqe, TxPacket& packet) {
  const bool swap = wqe.opcode == WrOpcode::kCmpSwap;
  wire::PacketHeaders& headers = packet.headers;
  address_packet(qp.path, qp.attr.dest_qpn,
                 opcode_of(qp, swap ? Opcode::kRcCmpSwap : Opcode::kRcFetchAdd), headers);
  headers.psn = wqe.first_psn;
  qp.req.send_psn = psn_add(wqe.first_psn, 1);
  headers.va = wqe.remote_addr;
  headers.rkey = wqe.rkey;
  headers.swap_add = swap ? wqe.swap : wqe.compare_add;
  headers.compare = swap ? wqe.compare_add : 0;
}

// ATOMIC WRITE and FLUSH.
bool make_placed_request(Core& core, QueuePair& qp, const SendWqe& wqe, TxPacket& packet) {
  const bool flush = wqe.opcode == WrOpcode::kFlush;
  if (!flush && !gather(core, qp, qp.req.cursor, 0, kAtomicBytes, packet))
    return refuse(core, qp, WcStatus::kLocProt, kVendorLocalKey);
  wire::PacketHeaders& headers = packet.headers;
  address_packet(qp.path, qp.attr.dest_qpn, flush ? Opcode::kRcFlush : Opcode::kRcAtomicWrite,
                 headers);
  headers.psn = wqe.first_psn;
  qp.req.send_psn = psn_add(wqe.first_psn, 1);
  headers.va = wqe.remote_addr;
  headers.rkey = wqe.rkey;
  headers.dma_length = flush ? static_cast<uint32_t>(wqe.compare_add) : kAtomicBytes;
  headers.flush = static_cast<uint32_t>(wqe.swap);
  return true;
}

bool make_answered_request(Core& core, QueuePair& qp, SendWqe& wqe, TxPacket& packet) {
  packet.pieces = 0;
  packet.payload_bytes = 0;
  if (wqe.is_read()) {
    make_read_request(qp, wqe, packet);
  } else if (wqe.is_atomic()) {
    make_atomic_request(qp, wqe, packet);
  } else if (!make_placed_request(core, qp, wqe, packet)) {
    return false;
  }
  packet.headers.ack_req = true;
  if (packet.headers.psn == qp.req.sent_end) time_request(core, qp, packet.headers.psn);
  qp.req.since_ack_req = 0;
  if (qp.req.send_psn == psn_add(wqe.first_psn, wqe.psn_count)) ++qp.req.cursor;
  return true;
}

// A bind or an invalidation waits until everything before it is complete, and what is behind it
// waits for it: stronger than IBTA vol. 1, 10.8.3.3 asks for, and no packet is ever made from such
// a WQE. False if it has to wait, or has failed.
bool run_local(Core& core, QueuePair& qp) {
  if (qp.state == QpState::kSqd || qp.sq.head != qp.req.cursor) return false;
  const SendWqe& wqe = qp.sq.at(qp.req.cursor++);
  const bool done = wqe.opcode == WrOpcode::kLocalInv
                        ? core.regions.invalidate(wqe.rkey, qp.accessor())
                        : core.regions.bind({.key = wqe.rkey,
                                             .region_key = wqe.imm_be,
                                             .addr = wqe.remote_addr,
                                             .length = wqe.compare_add,
                                             .access = static_cast<uint32_t>(wqe.swap)},
                                            qp.accessor());
  if (done) {
    complete_send(core, qp, WcStatus::kSuccess, kVendorNone);
  } else {
    fail_send(core, qp, WcStatus::kMwBind, kVendorWindow);
  }
  return done;
}

// `psn` is that of the packet.
void after_send(Core& core, QueuePair& qp, uint32_t psn) {
  RequesterState& req = qp.req;
  if (qp.reliable) {
    if (psn == req.sent_end) {
      req.sent_end = req.send_psn;
    } else {
      note_repetition(req, psn, req.send_psn);
    }
    if (req.ack_deadline.is_never() && req.probe_deadline.is_never()) arm_ack_timer(core, qp);
    return;
  }
  // UC: nothing will come back, so a message is complete when its last packet has left.
  req.una_psn = req.sent_end = req.send_psn;
  if (qp.sq.head != req.cursor) complete_send(core, qp, WcStatus::kSuccess, kVendorNone);
  check_drained(core, qp);
}

}  // namespace

bool has_outstanding(const QueuePair& qp) noexcept { return qp.req.una_psn != qp.req.sent_end; }

void rewind(Core& core, QueuePair& qp) noexcept {
  ++core.stats.retries;
  keep_place(qp);
  qp.req.repairing = false;
  qp.req.failed = false;  // found out again when its turn comes
  qp.req.cursor = qp.sq.head;
  qp.req.send_psn = qp.req.una_psn;
  qp.req.rewound = true;
  qp.req.timing = false;
  note_loss(core, qp);
  core.make_ready(qp);
}

void check_drained(Core& core, QueuePair& qp) {
  if (qp.state != QpState::kSqd || !qp.draining) return;
  if (qp.sq.head != qp.sq.tail && qp.sq.at(qp.sq.head).started) return;
  qp.draining = false;
  if (qp.attr.en_sqd_async_notify) core.raise(AsyncEventType::kSqDrained, qp.user);
}

bool next_request(Core& core, QueuePair& qp, TxPacket& packet) {
  RequesterState& req = qp.req;
  if (!qp.may_send() || req.rnr_waiting || req.failed || !qp.has_path) return false;
  if (req.send_psn != req.sent_end) skip_sacked(qp);
  while (req.cursor != qp.sq.tail && qp.sq.at(req.cursor).is_local()) {
    if (!run_local(core, qp)) return false;
  }
  if (req.cursor == qp.sq.tail) return false;
  SendWqe& wqe = qp.sq.at(req.cursor);
  if (!wqe.started && !start(core, qp, wqe)) return false;
  if (!window_open(qp)) return false;
  const bool made = wqe.wants_answer() ? make_answered_request(core, qp, wqe, packet)
                                       : make_message_packet(core, qp, wqe, packet);
  if (!made) return false;
  if (qp.type == QpType::kXrcSend) packet.headers.srq_number = wqe.remote_qpn;
  after_send(core, qp, packet.headers.psn);
  return true;
}

bool next_datagram(Core& core, QueuePair& qp, TxPacket& packet) {
  RequesterState& req = qp.req;
  while (qp.may_send() && qp.state != QpState::kSqd && req.cursor != qp.sq.tail) {
    SendWqe& wqe = qp.sq.at(req.cursor);
    const verbs::Path path = qp.sq.path(req.cursor);
    if (!check_sges(core, qp, req.cursor, verbs::kAccessLocalRead))
      return refuse(core, qp, WcStatus::kLocProt, kVendorLocalKey);
    // A packet leaves by the rail of its destination, so the pair moves to that rail's list first.
    if (path.rail != qp.ready_rail) {
      qp.ready_rail = path.rail;
      return false;
    }
    gather(core, qp, req.cursor, 0, wqe.length, packet);
    address_packet(path, wqe.remote_qpn,
                   wqe.has_imm() ? Opcode::kUdSendOnlyImm : Opcode::kUdSendOnly, packet.headers);
    packet.headers.psn = req.send_psn;
    packet.headers.imm_be = wqe.imm_be;
    packet.headers.solicited = wqe.solicited;
    packet.headers.qkey = wqe.remote_qkey;
    packet.headers.src_qp = qp.number;
    req.send_psn = psn_add(req.send_psn, 1);
    ++req.cursor;
    const bool reachable = path.dlid != 0;
    complete_send(core, qp, WcStatus::kSuccess, kVendorNone);
    if (reachable) return true;  // a datagram without a way is lost, as on any wire
  }
  return false;
}

}  // namespace tbt::engine
