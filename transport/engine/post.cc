// Posting work requests: what is wrong with the request itself is said here (C-025, C-026, C-115 to
// C-117).
#include <algorithm>
#include <cstring>

#include "engine/core.h"

namespace tbt::engine {

namespace {

using verbs::SendWqe;

constexpr Status invalid(const char* text) noexcept { return Status(EINVAL, text); }

bool opcode_fits(QpType type, WrOpcode opcode) noexcept {
  switch (opcode) {
    case WrOpcode::kSend:
    case WrOpcode::kSendImm:
      return type != QpType::kXrcRecv;
    case WrOpcode::kRdmaWrite:
    case WrOpcode::kRdmaWriteImm:
      return type != QpType::kUd && type != QpType::kXrcRecv;
    case WrOpcode::kRdmaRead:
    case WrOpcode::kCmpSwap:
    case WrOpcode::kFetchAdd:
      return type == QpType::kRc || type == QpType::kXrcSend;
    case WrOpcode::kSendInv:  // of a window of the queue pair: a TGT binds none
    case WrOpcode::kFlush:
    case WrOpcode::kAtomicWrite:
      return type == QpType::kRc;
    case WrOpcode::kLocalInv:
    case WrOpcode::kBindMw:
      return type == QpType::kRc || type == QpType::kUc || type == QpType::kXrcSend;
  }
  return false;
}

uint64_t total_bytes(const SendWr& wr) noexcept {
  uint64_t total = 0;
  for (uint32_t i = 0; i < wr.num_sge; ++i) total += wr.sg_list[i].length;
  return total;
}

Status check_answered(const QueuePair& qp, const SendWr& wr, uint64_t bytes) noexcept {
  if ((wr.flags & kSendInline) != 0) return invalid("READ and atomics cannot be inline");
  if (qp.attr.max_rd_atomic == 0) return invalid("max_rd_atomic is 0");
  if (wr.opcode == WrOpcode::kRdmaRead) return {};
  if (bytes != 8) return invalid("an atomic's result takes 8 bytes");
  return wr.remote_addr % 8 == 0 ? Status()
                                 : invalid("an atomic's remote address is not 8-byte aligned");
}

// An ATOMIC WRITE or a FLUSH.
Status check_placed(const QueuePair& qp, const SendWr& wr, uint64_t bytes) noexcept {
  if (qp.attr.max_rd_atomic == 0) return invalid("max_rd_atomic is 0");
  if (wr.opcode == WrOpcode::kAtomicWrite) {
    if (bytes != 8) return invalid("an atomic write has 8 bytes");
    return wr.remote_addr % 8 == 0 ? Status() : invalid("the remote address is not aligned");
  }
  if (wr.num_sge != 0) return invalid("a flush has no data");
  if (wr.swap > UINT32_MAX || !wire::feth_valid(static_cast<uint32_t>(wr.swap)))
    return invalid("no such kind of flush");
  return wr.compare_add <= limits::kMaxMessageBytes ? Status() : invalid("flush of too much");
}

Status check_datagram(const QueuePair& qp, const SendWr& wr, const AddressHandle* ah,
                      uint64_t bytes) noexcept {
  if (ah == nullptr || ah->pd != qp.pd)
    return invalid("no address handle of this protection domain");
  if (wr.remote_qpn > 0xffffff) return invalid("remote QPN has more than 24 bits");
  return bytes <= limits::kMtuBytesMax ? Status() : invalid("datagram exceeds the MTU");
}

constexpr uint32_t kWindowAccess = kAccessLocalWrite | kAccessRemoteWrite | kAccessRemoteRead |
                                   kAccessRemoteAtomic | kAccessZeroBased;

// Of a bind; whether the window and the region fit is seen when its turn comes.
Status check_local(const SendWr& wr) noexcept {
  if (wr.num_sge != 0) return invalid("a bind or an invalidation has no data");
  const bool known = (wr.swap & ~uint64_t{kWindowAccess}) == 0;
  return wr.opcode != WrOpcode::kBindMw || known ? Status()
                                                 : invalid("an access flag is not a window's");
}

Status check_request(const QueuePair& qp, const SendWr& wr, const AddressHandle* ah,
                     uint64_t bytes) noexcept {
  if (wr.num_sge > qp.attr.cap.max_send_sge && (wr.flags & kSendInline) == 0)
    return invalid("too many SGEs");
  if (qp.state == QpState::kReset || qp.state == QpState::kInit || qp.state == QpState::kRtr) {
    return invalid("queue pair cannot send in this state");
  }
  if (!opcode_fits(qp.type, wr.opcode)) return invalid("opcode not of this queue pair type");
  if (wr.opcode == WrOpcode::kBindMw || wr.opcode == WrOpcode::kLocalInv) return check_local(wr);
  if (bytes > limits::kMaxMessageBytes) return invalid("message exceeds the limit");
  if (wr.opcode >= WrOpcode::kFlush) return check_placed(qp, wr, bytes);
  const bool is_inline = (wr.flags & kSendInline) != 0;
  if (is_inline && bytes > qp.attr.cap.max_inline_data)
    return invalid("inline data exceeds max_inline_data");
  if (wr.opcode == WrOpcode::kRdmaRead || wr.opcode == WrOpcode::kCmpSwap ||
      wr.opcode == WrOpcode::kFetchAdd) {
    return check_answered(qp, wr, bytes);
  }
  return qp.type == QpType::kUd ? check_datagram(qp, wr, ah, bytes) : Status();
}

void copy_data(QueuePair& qp, const SendWr& wr, SendWqe& wqe) noexcept {
  if (!wqe.is_inline) {
    std::copy_n(wr.sg_list, wr.num_sge, qp.sq.sges(qp.sq.tail).begin());
    return;
  }
  std::byte* to = qp.sq.inline_data(qp.sq.tail).data();
  for (uint32_t i = 0; i < wr.num_sge; ++i) {
    if (wr.sg_list[i].length == 0) continue;
    std::memcpy(to, reinterpret_cast<const void*>(wr.sg_list[i].addr), wr.sg_list[i].length);
    to += wr.sg_list[i].length;
  }
}

void fill(QueuePair& qp, const SendWr& wr, const AddressHandle* ah, uint32_t bytes) noexcept {
  SendWqe& wqe = qp.sq.next_slot();
  wqe = SendWqe{};
  wqe.wr_id = wr.wr_id;
  wqe.opcode = wr.opcode;
  wqe.remote_addr = wr.remote_addr;
  wqe.rkey = wr.rkey;
  wqe.compare_add = wr.compare_add;
  wqe.swap = wr.swap;
  wqe.imm_be = wr.imm_be;
  wqe.length = bytes;
  wqe.num_sge = wr.num_sge;
  wqe.signaled = qp.sq_sig_all || (wr.flags & kSendSignaled) != 0;
  wqe.fence = (wr.flags & kSendFence) != 0;
  wqe.solicited = (wr.flags & kSendSolicited) != 0;
  wqe.is_inline = (wr.flags & kSendInline) != 0;
  if (qp.type == QpType::kXrcSend) {
    wqe.remote_qpn = wr.remote_qpn & 0xffffff;
  } else if (qp.type == QpType::kUd) {
    wqe.remote_qpn = wr.remote_qpn;
    // With the high bit set the queue pair's own Q_Key is meant (IBTA vol. 1, 10.2.5).
    wqe.remote_qkey = (wr.remote_qkey & 0x80000000u) != 0 ? qp.attr.qkey : wr.remote_qkey;
    qp.sq.path(qp.sq.tail) = ah->has_path ? ah->path : verbs::Path{};
  }
  copy_data(qp, wr, wqe);
  ++qp.sq.tail;
}

}  // namespace

Status Endpoint::check_send(const QueuePair& qp, const SendWr& wr,
                            const AddressHandle* ah) noexcept {
  return check_request(qp, wr, ah, total_bytes(wr));
}

Status Endpoint::post_send(Instant now, QueuePair& qp, const SendWr& wr, const AddressHandle* ah) {
  core_->now = now;
  const uint64_t bytes = total_bytes(wr);
  if (Status status = check_request(qp, wr, ah, bytes); !status) return status;
  if (qp.sq.full()) return Status(ENOMEM, "send queue is full");
  fill(qp, wr, ah, static_cast<uint32_t>(bytes));
  if (qp.state == QpState::kErr || qp.state == QpState::kSqe) {
    flush_posted(*core_, qp);
  } else {
    core_->make_ready(qp);
  }
  return {};
}

Status Endpoint::post_recv(Instant now, QueuePair& qp, const RecvWr& wr) {
  core_->now = now;
  if (qp.srq != nullptr) return invalid("receives of this queue pair come from its SRQ");
  if (qp.state == QpState::kReset) return invalid("queue pair is in the reset state");
  if (wr.num_sge > qp.attr.cap.max_recv_sge) return invalid("too many SGEs");
  if (qp.type == QpType::kXrcSend) return invalid("an XRC initiator receives nothing");
  if (!qp.rq.post(wr)) return Status(ENOMEM, "receive queue is full");
  if (qp.state == QpState::kErr) {
    flush_posted(*core_, qp);
  } else if (qp.type == QpType::kUc) {
    uc_receive_posted(*core_, qp);
  }
  return {};
}

Status Endpoint::post_srq_recv(Instant now, verbs::SharedReceiveQueue& srq, const RecvWr& wr) {
  core_->now = now;
  if (wr.num_sge > srq.queue.max_sge()) return invalid("too many SGEs");
  if (!srq.queue.post(wr)) return Status(ENOMEM, "shared receive queue is full");
  for (verbs::SrqListener* at = srq.listeners; at != nullptr; at = at->srq_next)
    uc_receive_posted(*core_, static_cast<QueuePair&>(*at));
  return {};
}

}  // namespace tbt::engine
