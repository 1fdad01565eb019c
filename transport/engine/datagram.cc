// Receiving on UC and UD: nothing is acknowledged, what does not fit the rules is dropped and
// counted (IBTA vol. 1, 9.8.2, 9.8.3, 11.4.1.2).
#include "base/bytes.h"
#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using wire::PacketHeaders;
using wire::psn_add;

void drop_uc(Core& core, QueuePair& qp) noexcept {
  ++core.stats.rx_uc_dropped;
  qp.resp.kind = MessageKind::kNone;  // a receive that was taken waits for the next message
}

RecvCompletion describe(const PacketHeaders& headers, WcOpcode opcode, uint32_t bytes) noexcept {
  RecvCompletion done;
  done.opcode = opcode;
  done.byte_len = bytes;
  done.has_imm = headers.is(wire::kOpImm);
  done.imm_be = done.has_imm ? headers.imm_be : 0;
  done.solicited = headers.solicited;
  done.slid = headers.slid;
  done.sl = headers.sl;
  return done;
}

bool start_uc(Core& core, QueuePair& qp, const PacketHeaders& headers) {
  ResponderState& resp = qp.resp;
  const bool write = headers.is(wire::kOpWrite);
  if (!write && !take_receive(core, qp)) return false;
  if (write) {
    if ((qp.attr.access_flags & kAccessRemoteWrite) == 0) return false;
    verbs::KeyError why{};
    if (headers.dma_length != 0 &&
        core.regions.translate(headers.rkey, qp.accessor(), headers.va, headers.dma_length,
                               kAccessRemoteWrite, why) == nullptr) {
      return false;
    }
    resp.write_va = headers.va;
    resp.write_rkey = headers.rkey;
    resp.write_length = headers.dma_length;
  }
  resp.kind = write ? MessageKind::kWrite : MessageKind::kSend;
  resp.placed = 0;
  return true;
}

bool place_uc(Core& core, QueuePair& qp, std::span<const std::byte> payload) {
  ResponderState& resp = qp.resp;
  if (payload.empty()) return true;
  if (resp.kind == MessageKind::kSend) {
    return scatter(core, qp.pd, {resp.receive.sges.data(), resp.receive.num_sge}, resp.placed,
                   payload);
  }
  if (resp.placed + payload.size() > resp.write_length) return false;
  verbs::KeyError why{};
  std::byte* to =
      core.regions.translate(resp.write_rkey, qp.accessor(), resp.write_va + resp.placed,
                             payload.size(), kAccessRemoteWrite, why);
  if (to != nullptr) copy_in_order(to, payload.data(), payload.size());
  return to != nullptr;
}

// A receive that cannot hold its message ends in error, and the queue pair with it.
void fail_uc_receive(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor) {
  ++core.stats.rx_uc_dropped;
  fail_recv(core, qp, status, vendor);
  enter_error(core, qp);
}

void finish_uc(Core& core, QueuePair& qp, const PacketHeaders& headers) {
  ResponderState& resp = qp.resp;
  const bool write = resp.kind == MessageKind::kWrite;
  if (write && resp.placed != resp.write_length) return drop_uc(core, qp);
  if (write && headers.is(wire::kOpImm) && !take_receive(core, qp)) return drop_uc(core, qp);
  resp.kind = MessageKind::kNone;
  if (!write || headers.is(wire::kOpImm)) {
    const WcOpcode opcode = write ? WcOpcode::kRecvRdmaImm : WcOpcode::kRecv;
    complete_recv(core, qp, describe(headers, opcode, static_cast<uint32_t>(resp.placed)));
    uc_message_seen(core, qp);
  }
}

bool uc_length_fits(const QueuePair& qp, const PacketHeaders& headers, size_t bytes) noexcept {
  return headers.is(wire::kOpEnd) ? bytes <= qp.mtu : bytes == qp.mtu;
}

bool continues(const QueuePair& qp, const PacketHeaders& headers, bool in_sequence) noexcept {
  const MessageKind kind = headers.is(wire::kOpWrite) ? MessageKind::kWrite : MessageKind::kSend;
  return in_sequence && qp.resp.kind == kind;
}

// The 40 bytes before a datagram's payload in the receive buffer, as they stand on the wire.
void make_grh(const PacketHeaders& headers, size_t payload,
              std::byte (&out)[wire::kGrhBytes]) noexcept {
  const wire::Grh& grh = headers.grh;
  base::store_be<uint32_t>(out, 6u << 28 | uint32_t{grh.traffic_class} << 20 | grh.flow_label);
  base::store_be<uint16_t>(out + 4, static_cast<uint16_t>(payload + wire::kBthBytes + 8 + 4));
  out[6] = std::byte{0x1b};
  out[7] = std::byte{grh.hop_limit};
  std::memcpy(out + 8, grh.sgid.data(), 16);
  std::memcpy(out + 24, grh.dgid.data(), 16);
}

}  // namespace

void handle_uc_request(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                       std::span<const std::byte> payload) {
  const PacketHeaders& headers = packet.headers;
  ResponderState& resp = qp.resp;
  const int32_t distance = wire::psn_diff(headers.psn, resp.expected_psn);
  if (distance < 0) {  // a repetition, or overtaken by what is already here
    ++core.stats.rx_duplicates;
    return;
  }
  if (headers.is(wire::kOpStart)) {
    if (resp.kind != MessageKind::kNone)
      drop_uc(core, qp);  // its end was lost; this one starts afresh
    resp.expected_psn = psn_add(headers.psn, 1);
    if (!uc_length_fits(qp, headers, payload.size()) || !start_uc(core, qp, headers))
      return drop_uc(core, qp);
  } else {
    if (resp.kind == MessageKind::kNone) return;  // the rest of a message that is already lost
    if (!continues(qp, headers, distance == 0) || !uc_length_fits(qp, headers, payload.size())) {
      return drop_uc(core, qp);
    }
    resp.expected_psn = psn_add(headers.psn, 1);
  }
  const bool send = resp.kind == MessageKind::kSend;
  if (send && resp.placed + payload.size() > resp.receive.capacity) {
    return fail_uc_receive(core, qp, WcStatus::kLocLen, kVendorLocalLength);
  }
  if (!place_uc(core, qp, payload)) {
    return send ? fail_uc_receive(core, qp, WcStatus::kLocProt, kVendorLocalKey)
                : drop_uc(core, qp);
  }
  resp.placed += payload.size();
  if (headers.is(wire::kOpEnd)) finish_uc(core, qp, headers);
}

void handle_datagram(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                     std::span<const std::byte> payload) {
  const PacketHeaders& headers = packet.headers;
  if (headers.qkey != qp.attr.qkey) {
    ++core.stats.rx_bad_qkey;
    return;
  }
  if (!take_receive(core, qp)) {
    ++core.stats.rx_ud_no_receive;
    return;
  }
  verbs::RecvWqe& receive = qp.resp.receive;
  if (payload.size() + wire::kGrhBytes > receive.capacity) {
    ++core.stats.rx_ud_too_long;  // the receive stays for the next datagram
    return;
  }
  std::byte grh[wire::kGrhBytes] = {};
  if (headers.has_grh) make_grh(headers, payload.size(), grh);
  const std::span<const Sge> sges(receive.sges.data(), receive.num_sge);
  if (!scatter(core, qp.pd, sges, 0, grh) ||
      !scatter(core, qp.pd, sges, wire::kGrhBytes, payload)) {
    fail_recv(core, qp, WcStatus::kLocProt, kVendorLocalKey);
    return enter_error(core, qp);
  }
  RecvCompletion done =
      describe(headers, WcOpcode::kRecv, static_cast<uint32_t>(payload.size() + wire::kGrhBytes));
  done.src_qp = headers.src_qp;
  done.has_grh = headers.has_grh;
  complete_recv(core, qp, done);
}

}  // namespace tbt::engine
