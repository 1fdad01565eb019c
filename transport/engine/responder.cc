// Responder of RC: what an arriving request does here (IBTA vol. 1, 9.7.5.1 and figure 84's order
// of checks).
//
// Steps: PSN -> opcode order -> length -> resources -> keys -> execute -> complete -> note what is
// owed. Nothing is sent from here; response.cc emits what is owed.
#include <atomic>
#include <optional>
#include <utility>

#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using wire::PacketHeaders;
using wire::psn_add;
using wire::psn_diff;

constexpr uint32_t kDmaLengthMax = 1u << 31;  // C-073

struct Request {
  Core& core;
  QueuePair& qp;
  const PacketHeaders& headers;
  std::span<const std::byte> payload;
};

void owe_nak(QueuePair& qp, uint8_t syndrome) noexcept {
  qp.resp.nak_owed = true;
  qp.resp.nak_syndrome = syndrome;
  qp.resp.nak_psn = qp.resp.expected_psn;
}

void refuse(Request& r, wire::NakCode code) { refuse_request(r.core, r.qp, code); }

// As refuse(), where a receive WQE carries the cause, so no event is needed.
void refuse_with_receive(Request& r, wire::NakCode code, WcStatus status, uint32_t vendor) {
  ++r.core.stats.naks_error_sent;
  r.qp.resp.refused = true;
  owe_nak(r.qp, wire::aeth_syndrome(wire::AethKind::kNak, static_cast<uint8_t>(code)));
  fail_recv(r.core, r.qp, status, vendor);
  enter_error(r.core, r.qp);
}

// No receive is posted: the peer shall come again (C-096: one NAK until it does).
void not_ready(Request& r) {
  ++r.core.stats.naks_rnr_sent;
  owe_nak(r.qp, wire::aeth_syndrome(wire::AethKind::kRnrNak, r.qp.attr.min_rnr_timer));
  r.qp.resp.sequence_nak_sent = true;
}

void accept(Request& r, uint32_t psns) noexcept {
  r.qp.resp.expected_psn = psn_add(r.qp.resp.expected_psn, psns);
  if (r.headers.ack_req) r.qp.resp.ack_owed = true;
}

bool in_order(const Request& r) noexcept {
  const MessageKind kind = r.qp.resp.kind;
  if (r.headers.is(wire::kOpStart) || r.headers.is(wire::kOpRead) ||
      r.headers.is(wire::kOpAtomic)) {
    return kind == MessageKind::kNone;
  }
  if (r.headers.is(wire::kOpSend)) return kind == MessageKind::kSend;
  return r.headers.is(wire::kOpWrite) && kind == MessageKind::kWrite;
}

// FIRST and MIDDLE carry a full MTU, LAST at least a byte, nothing more than an MTU (C-073).
bool length_fits(const Request& r) noexcept {
  if (!r.headers.is(wire::kOpPayload)) return r.payload.empty();
  if (!r.headers.is(wire::kOpEnd)) return r.payload.size() == r.qp.mtu;
  if (!r.headers.is(wire::kOpStart) && r.payload.empty()) return false;
  return r.payload.size() <= r.qp.mtu;
}

void finish_message(Request& r, WcOpcode opcode, uint32_t bytes) {
  RecvCompletion done;
  done.opcode = opcode;
  done.byte_len = bytes;
  done.has_imm = r.headers.is(wire::kOpImm);
  done.has_inv = r.headers.is(wire::kOpIeth);
  if (done.has_imm) done.imm_be = r.headers.imm_be;
  if (done.has_inv) done.imm_be = r.headers.rkey;
  done.solicited = r.headers.solicited;
  done.slid = r.headers.slid;
  done.sl = r.headers.sl;
  complete_recv(r.core, r.qp, done);
}

void execute_send(Request& r) {
  ResponderState& resp = r.qp.resp;
  if (r.headers.is(wire::kOpStart)) {
    if (!take_receive(r.core, r.qp)) return not_ready(r);
    resp.kind = MessageKind::kSend;
    resp.placed = 0;
  }
  if (resp.placed + r.payload.size() > resp.receive.capacity) {
    return refuse_with_receive(r, wire::NakCode::kInvalidRequest, WcStatus::kLocLen,
                               kVendorLocalLength);
  }
  const bool invalidates = r.headers.is(wire::kOpIeth);
  if (invalidates && !r.core.regions.may_invalidate(r.headers.rkey, r.qp.accessor())) {
    return refuse_with_receive(r, wire::NakCode::kRemoteAccessError, WcStatus::kLocAccess,
                               kVendorRemoteKey);
  }
  const std::span<const Sge> sges(resp.receive.sges.data(), resp.receive.num_sge);
  if (!scatter(r.core, r.qp.pd, sges, resp.placed, r.payload)) {
    return refuse_with_receive(r, wire::NakCode::kRemoteOperationalError, WcStatus::kLocProt,
                               kVendorLocalKey);
  }
  resp.placed += r.payload.size();
  accept(r, 1);
  if (!r.headers.is(wire::kOpEnd)) return;
  if (invalidates) r.core.regions.invalidate(r.headers.rkey, r.qp.accessor());
  resp.kind = MessageKind::kNone;
  resp.msn = psn_add(resp.msn, 1);
  finish_message(r, WcOpcode::kRecv, static_cast<uint32_t>(resp.placed));
}

// No right to the memory. A packet with an immediate has a receive that can tell (C-111); the FIRST
// of a longer WRITE does not say that an immediate follows.
void refuse_write(Request& r) {
  if (r.headers.is(wire::kOpImm) && take_receive(r.core, r.qp)) {
    refuse_with_receive(r, wire::NakCode::kRemoteAccessError, WcStatus::kLocAccess,
                        kVendorRemoteKey);
  } else {
    refuse(r, wire::NakCode::kRemoteAccessError);
  }
}

// Range, right and domain of the whole WRITE, before its first byte is placed (C-101).
bool write_may_start(Request& r) {
  if ((r.qp.attr.access_flags & kAccessRemoteWrite) == 0 || r.headers.dma_length > kDmaLengthMax) {
    refuse(r, wire::NakCode::kInvalidRequest);
    return false;
  }
  if (r.headers.dma_length == 0) return true;
  verbs::KeyError why{};
  if (r.core.regions.translate(r.headers.rkey, r.qp.accessor(), r.headers.va, r.headers.dma_length,
                               kAccessRemoteWrite, why) != nullptr) {
    return true;
  }
  refuse_write(r);
  return false;
}

bool place_write(Request& r) {
  ResponderState& resp = r.qp.resp;
  if (r.payload.empty()) return true;
  verbs::KeyError why{};
  std::byte* to =
      r.core.regions.translate(resp.write_rkey, r.qp.accessor(), resp.write_va + resp.placed,
                               r.payload.size(), kAccessRemoteWrite, why);
  if (to == nullptr) return false;
  copy_in_order(to, r.payload.data(), r.payload.size());
  resp.placed += r.payload.size();
  return true;
}

void execute_write(Request& r) {
  ResponderState& resp = r.qp.resp;
  const bool with_imm = r.headers.is(wire::kOpImm);
  if (r.headers.is(wire::kOpStart)) {
    if (!write_may_start(r)) return;
    if (with_imm && !take_receive(r.core, r.qp)) return not_ready(r);
    resp.kind = MessageKind::kWrite;
    resp.placed = 0;
    resp.write_va = r.headers.va;
    resp.write_rkey = r.headers.rkey;
    resp.write_length = r.headers.dma_length;
  } else if (with_imm && !take_receive(r.core, r.qp)) {
    return not_ready(r);
  }
  const uint64_t after = resp.placed + r.payload.size();
  const bool last = r.headers.is(wire::kOpEnd);
  if (last ? after != resp.write_length : after >= resp.write_length) {
    return refuse(r, wire::NakCode::kInvalidRequest);
  }
  if (!place_write(r)) return refuse_write(r);
  accept(r, 1);
  if (!last) return;
  resp.kind = MessageKind::kNone;
  resp.msn = psn_add(resp.msn, 1);
  if (with_imm) finish_message(r, WcOpcode::kRecvRdmaImm, resp.write_length);
}

void stop_repeating(ResponderState& resp, Resource& slot) noexcept {
  if (!slot.pending || !slot.repeating) return;
  slot.pending = false;
  --resp.pending;
  --resp.repeats;
}

// A place for one more READ or atomic, or nullptr when the peer has more of them open than agreed
// (C-104).
Resource* new_resource(QueuePair& qp) noexcept {
  ResponderState& resp = qp.resp;
  // The attribute may have been raised since the ring was made.
  if (resp.resources.empty() || resp.pending - resp.repeats >= qp.attr.max_dest_rd_atomic)
    return nullptr;
  Resource& slot = resp.resource(resp.resource_tail);
  if (slot.pending && !slot.repeating) return nullptr;
  // So many requests later the peer has the answer: what is left of a repetition is not needed.
  stop_repeating(resp, slot);
  return &slot;
}

void keep(Request& r, Resource& slot, uint32_t psns) noexcept {
  ResponderState& resp = r.qp.resp;
  resp.msn = psn_add(resp.msn, 1);
  slot.first_psn = slot.cursor_psn = slot.run_psn = r.headers.psn;
  slot.psn_count = psns;
  slot.run_end = psn_add(slot.first_psn, psns);
  slot.msn = resp.msn;
  slot.rkey = r.headers.rkey;
  slot.va = r.headers.va;
  slot.pd = r.qp.pd;
  slot.pending = true;
  slot.repeating = false;
  if (resp.pending++ == 0) resp.pending_from = resp.resource_tail;
  const auto size = static_cast<uint32_t>(resp.resources.size());
  if (++resp.resource_tail - resp.pending_from > size)  // that one gave up its place
    resp.pending_from = resp.resource_tail - size;
  resp.expected_psn = psn_add(resp.expected_psn, psns);
}

void execute_read(Request& r) {
  Resource* slot = new_resource(r.qp);
  const uint32_t length = r.headers.dma_length;
  if ((r.qp.attr.access_flags & kAccessRemoteRead) == 0 || slot == nullptr ||
      length > kDmaLengthMax) {
    return refuse(r, wire::NakCode::kInvalidRequest);
  }
  verbs::KeyError why{};
  if (length != 0 && r.core.regions.translate(r.headers.rkey, r.qp.accessor(), r.headers.va, length,
                                              kAccessRemoteRead, why) == nullptr) {
    return refuse(r, wire::NakCode::kRemoteAccessError);
  }
  slot->atomic = false;
  slot->length = length;
  keep(r, *slot, length == 0 ? 1 : (length - 1) / r.qp.mtu + 1);
}

// What is answered like a READ of no bytes has been done.
void keep_placed(Request& r, Resource& slot) noexcept {
  slot.atomic = false;
  slot.length = 0;
  keep(r, slot, 1);
}

void execute_atomic_write(Request& r) {
  Resource* slot = new_resource(r.qp);
  if ((r.qp.attr.access_flags & kAccessRemoteWrite) == 0 || slot == nullptr ||
      r.payload.size() != sizeof(uint64_t) || r.headers.dma_length != sizeof(uint64_t) ||
      r.headers.va % sizeof(uint64_t) != 0) {
    return refuse(r, wire::NakCode::kInvalidRequest);
  }
  verbs::KeyError why{};
  std::byte* at = r.core.regions.translate(r.headers.rkey, r.qp.accessor(), r.headers.va,
                                           sizeof(uint64_t), kAccessRemoteWrite, why);
  if (at == nullptr) return refuse(r, wire::NakCode::kRemoteAccessError);
  if (reinterpret_cast<uintptr_t>(at) % sizeof(uint64_t) != 0)
    return refuse(r, wire::NakCode::kInvalidRequest);
  copy_in_order(at, r.payload.data(), sizeof(uint64_t));  // aligned: in one piece
  keep_placed(r, *slot);
}

// Whether the key allows it: of the whole region, or of the range that is named.
bool may_flush(const Request& r, uint32_t access) noexcept {
  const verbs::MemoryRegion* region = r.core.regions.find(r.headers.rkey);
  if (region == nullptr) return false;
  const bool whole = (r.headers.flush & 0x30) != 0;
  verbs::KeyError why{};
  return r.core.regions.translate(
             r.headers.rkey, r.qp.accessor(), whole ? region->iova : r.headers.va,
             whole ? region->length : r.headers.dma_length, access, why) != nullptr;
}

// What came before is in this machine's coherent memory already, so there is nothing left to do but
// to order it before the answer. Nobody can register memory with the right to make it persistent.
void execute_flush(Request& r) {
  Resource* slot = new_resource(r.qp);
  const uint32_t access =
      ((r.headers.flush & wire::kFlushGlobal) != 0 ? uint32_t{kAccessFlushGlobal} : 0) |
      ((r.headers.flush & wire::kFlushPersistent) != 0 ? uint32_t{kAccessFlushPersistent} : 0);
  if (!wire::feth_valid(r.headers.flush) || (r.qp.attr.access_flags & access) != access ||
      slot == nullptr || r.headers.dma_length > kDmaLengthMax) {
    return refuse(r, wire::NakCode::kInvalidRequest);
  }
  if (!may_flush(r, access)) return refuse(r, wire::NakCode::kRemoteAccessError);
  std::atomic<uint32_t> order{0};  // not a fence: ThreadSanitizer knows none
  order.fetch_add(1, std::memory_order_seq_cst);
  keep_placed(r, *slot);
}

uint64_t apply_atomic(std::byte* at, const PacketHeaders& headers) noexcept {
  std::atomic_ref<uint64_t> word(*reinterpret_cast<uint64_t*>(at));
  constexpr uint8_t kOfService = 0x1f;
  if ((headers.opcode & kOfService) == static_cast<uint8_t>(wire::Opcode::kRcFetchAdd))
    return word.fetch_add(headers.swap_add);
  uint64_t expected = headers.compare;
  word.compare_exchange_strong(expected, headers.swap_add);
  return expected;
}

void execute_atomic(Request& r) {
  Resource* slot = new_resource(r.qp);
  if ((r.qp.attr.access_flags & kAccessRemoteAtomic) == 0 || slot == nullptr ||
      r.headers.va % 8 != 0) {
    return refuse(r, wire::NakCode::kInvalidRequest);
  }
  verbs::KeyError why{};
  std::byte* at = r.core.regions.translate(r.headers.rkey, r.qp.accessor(), r.headers.va, 8,
                                           kAccessRemoteAtomic, why);
  if (at == nullptr) return refuse(r, wire::NakCode::kRemoteAccessError);
  if (reinterpret_cast<uintptr_t>(at) % 8 != 0) return refuse(r, wire::NakCode::kInvalidRequest);
  slot->atomic = true;
  slot->length = 8;
  slot->atomic_result = apply_atomic(at, r.headers);
  keep(r, *slot, 1);
}

// Its place, or nullopt.
std::optional<uint32_t> find_resource(QueuePair& qp, uint32_t psn) noexcept {
  ResponderState& resp = qp.resp;
  // The newest first: PSNs come round, and an old one may have had the same.
  for (uint32_t i = 1; i <= resp.resources.size(); ++i) {
    const Resource& slot = resp.resource(resp.resource_tail - i);
    const int32_t offset = psn_diff(psn, slot.first_psn);
    if (slot.psn_count != 0 && offset >= 0 && static_cast<uint32_t>(offset) < slot.psn_count)
      return resp.resource_tail - i;
  }
  return std::nullopt;
}

// Answers [psn, end) again. What is being answered already and this become one run.
void replay(QueuePair& qp, uint32_t at, uint32_t psn, uint32_t end) noexcept {
  ResponderState& resp = qp.resp;
  Resource& slot = resp.resource(at);
  if (slot.pending) {
    if (psn_diff(end, slot.run_end) > 0) slot.run_end = end;
    if (psn_diff(psn, slot.cursor_psn) >= 0) return;
  } else {
    if (resp.pending++ == 0 || static_cast<int32_t>(resp.pending_from - at) > 0)
      resp.pending_from = at;
    ++resp.repeats;
    slot.repeating = true;
    slot.run_end = end;
  }
  slot.pending = true;
  slot.cursor_psn = slot.run_psn = psn;
}

// A repeated READ must lie inside the first one, on its packets (C-062): it asks for the rest, or
// for what is missing in the middle. Where it ends, or nullopt.
std::optional<uint32_t> repeated_end(const QueuePair& qp, const Resource& slot,
                                     const PacketHeaders& headers) noexcept {
  if (slot.atomic || headers.rkey != slot.rkey) return std::nullopt;
  const uint64_t skipped = uint64_t{psn_add(headers.psn, 0u - slot.first_psn)} * qp.mtu;
  const uint64_t end = skipped + headers.dma_length;
  if (headers.va != slot.va + skipped || end > slot.length) return std::nullopt;
  if (end == slot.length) return psn_add(slot.first_psn, slot.psn_count);
  if (headers.dma_length == 0 || end % qp.mtu != 0) return std::nullopt;
  return psn_add(slot.first_psn, static_cast<uint32_t>(end / qp.mtu));
}

void handle_duplicate(Request& r) {
  ++r.core.stats.rx_duplicates;
  const bool read = r.headers.is(wire::kOpRead);
  const bool atomic = r.headers.is(wire::kOpAtomic);
  const bool placed = r.headers.is(wire::kOpFeth) || r.headers.is(wire::kOpAtomicWrite);
  if (!read && !atomic && !placed) {
    r.qp.resp.ack_owed = true;  // C-061: once more, the newest
    return;
  }
  const auto at = find_resource(r.qp, r.headers.psn);
  if (!at) return;  // older than what is kept: dropped (C-063)
  const Resource& slot = r.qp.resp.resource(*at);
  if (placed ? slot.placed() : atomic && slot.atomic)
    return replay(r.qp, *at, slot.first_psn, slot.run_end);
  if (!read) return;
  if (const auto end = repeated_end(r.qp, slot, r.headers)) replay(r.qp, *at, r.headers.psn, *end);
}

// What can be kept is; a SACK tells the peer so. Else one NAK per gap (C-064).
void handle_gap(Request& r, const wire::ParsedPacket& packet) {
  ++r.core.stats.rx_out_of_sequence;
  if (keep_early(r.core, r.qp, packet, r.payload)) {
    ++r.core.stats.rx_kept_early;
    r.qp.resp.ack_owed = true;
    return;
  }
  if (r.qp.resp.sequence_nak_sent) return;
  r.qp.resp.sequence_nak_sent = true;
  ++r.core.stats.naks_sequence_sent;
  owe_nak(r.qp, wire::aeth_syndrome(wire::AethKind::kNak,
                                    static_cast<uint8_t>(wire::NakCode::kPsnSequenceError)));
}

void execute(Request& r) {
  if (!in_order(r) || !length_fits(r)) return refuse(r, wire::NakCode::kInvalidRequest);
  if (r.headers.is(wire::kOpSend)) return execute_send(r);
  if (r.headers.is(wire::kOpWrite)) return execute_write(r);
  if (r.headers.is(wire::kOpRead)) return execute_read(r);
  if (r.headers.is(wire::kOpAtomic)) return execute_atomic(r);
  if (r.headers.is(wire::kOpFeth)) return execute_flush(r);
  execute_atomic_write(r);
}

// A gap was filled: what was kept behind it has its turn.
void execute_early(Core& core, QueuePair& qp) {
  while (qp.may_receive()) {
    const uint32_t psn = qp.resp.expected_psn;
    auto kept = qp.resp.early ? qp.resp.early->take(psn) : nullptr;
    if (!kept) return;
    Request request{core, qp, kept->packet.headers,
                    std::span(kept->payload).first(kept->packet.payload_bytes)};
    if (qp.type != QpType::kXrcRecv || bind_request(core, qp, request.headers)) execute(request);
    core.store.give_back(std::move(kept));
    if (qp.resp.expected_psn == psn) return;  // not ready: it comes again
  }
}

}  // namespace

void refuse_request(Core& core, QueuePair& qp, wire::NakCode code) {
  ++core.stats.naks_error_sent;
  qp.resp.refused = true;
  owe_nak(qp, wire::aeth_syndrome(wire::AethKind::kNak, static_cast<uint8_t>(code)));
  const bool access = code == wire::NakCode::kRemoteAccessError;
  core.raise(access ? AsyncEventType::kQpAccessErr : AsyncEventType::kQpReqErr, qp.user);
  enter_error(core, qp);
}

void handle_rc_request(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                       std::span<const std::byte> payload) {
  Request request{core, qp, packet.headers, payload};
  const int32_t distance = psn_diff(packet.headers.psn, qp.resp.expected_psn);
  if (distance < 0) {
    handle_duplicate(request);
  } else if (distance > 0) {
    handle_gap(request, packet);
  } else {
    qp.resp.sequence_nak_sent = false;
    execute(request);
    if (qp.resp.early && qp.resp.early->count() != 0) execute_early(core, qp);
  }
  if (owes_response(qp)) core.make_ready(qp);
}

}  // namespace tbt::engine
