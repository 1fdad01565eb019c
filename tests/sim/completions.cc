// Traffic: completions against what was predicted.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "tests/sim/pattern.h"
#include "tests/sim/traffic.h"

namespace tbt::sim {

namespace {

constexpr std::byte kBlank{0x5c};       // see requests.cc
constexpr uint32_t kWatchedBytes = 64;  // behind a message

WcOpcode opcode_due(WrOpcode opcode) noexcept {
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
    case WrOpcode::kLocalInv:
      return WcOpcode::kLocalInv;
    case WrOpcode::kBindMw:
      return WcOpcode::kBindMw;
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

}  // namespace

void Traffic::check(Side& side, const Wc& wc) {
  const bool receive = std::ranges::find(side.sent, wc.wr_id, &Sent::wr_id) == side.sent.end();
  if (wc.qp_num != (receive ? side.target : side.qp)->number)
    return fail(side, Checker::kFields, "QPN of a completion");
  if (wc.status != WcStatus::kSuccess) return check_failed(side, wc);
  if (wc.vendor_err != kVendorNone) return fail(side, Checker::kFields, "cause of a success");
  if (static_cast<uint8_t>(wc.opcode) >= 128) return check_receive(side, wc);
  check_send(side, wc);
}

void Traffic::check_send(Side& side, const Wc& wc) {
  // Unsignaled requests before this one are done too.
  while (!side.sent.empty() && side.sent.front().wr_id != wc.wr_id && !side.sent.front().signaled) {
    const Sent sent = side.sent.front();
    side.sent.pop_front();
    note_done(side, sent);
    ++completed_;
  }
  if (side.sent.empty() || side.sent.front().wr_id != wc.wr_id)
    return fail(side, Checker::kOrder, "send completion out of order, twice or never posted");
  const Sent sent = side.sent.front();
  side.sent.pop_front();
  ++completed_;
  if (!sent.signaled) return fail(side, Checker::kOrder, "completion of an unsignaled request");
  if (side.flushing) return fail(side, Checker::kStatus, "success after an error");
  if (sent.doomed) return fail(side, Checker::kStatus, "success with a key that is gone");
  if (wc.opcode != opcode_due(sent.opcode)) return fail(side, Checker::kFields, "opcode of a send");
  note_done(side, sent);
  check_answer(side, sent, wc);
}

void Traffic::check_answer(Side& side, const Sent& sent, const Wc& wc) {
  const bool read = sent.opcode == WrOpcode::kRdmaRead;
  const bool atomic = sent.opcode == WrOpcode::kFetchAdd || sent.opcode == WrOpcode::kCmpSwap;
  if (wc.byte_len != (read || atomic ? sent.length : 0))
    return fail(side, Checker::kFields, "byte_len of a send");
  const std::byte* data = side.send_slots[sent.slot];
  if (atomic && base::load<uint64_t>(data) != sent.expect)
    return fail(side, Checker::kPayload, "atomic returned a wrong value");
  if (!read) return;
  const auto& answer = side.answers[sent.slot];
  auto equal = [&](uint32_t begin, uint32_t end) {
    return begin >= end || std::memcmp(data + begin, answer.data() + begin, end - begin) == 0;
  };
  const bool loose = sent.loose_begin != sent.loose_end;
  const uint32_t begin = loose ? sent.loose_begin - sent.area_offset : sent.length;
  const uint32_t end = loose ? sent.loose_end - sent.area_offset : sent.length;
  if (!equal(0, begin) || !equal(end, sent.length))
    fail(side, Checker::kPayload, "READ returned wrong bytes");
}

// An RC request that is done has done its work: its message is polled, or waits in the queue, and
// its bytes are where they belong. `sent` has left side.sent.
void Traffic::note_done(Side& side, const Sent& sent) {
  if (!reliable()) return;
  note_window_work(side, sent);
  Side& peer = peer_of(side);
  if (is_write(sent.opcode)) check_written(side, peer, sent);
  const auto message = std::ranges::find(peer.expected, sent.wr_id, &Message::id);
  if (message == peer.expected.end()) return;
  message->acknowledged = true;
  if (peer.cq->queued() <= static_cast<uint32_t>(message - peer.expected.begin()))
    fail(peer, Checker::kDelivery, "a message was acknowledged and is not here");
}

// All but what a later WRITE that is still under way may have changed.
void Traffic::check_written(const Side& side, const Side& peer, const Sent& sent) {
  uint32_t begin = sent.area_offset + sent.length;
  uint32_t end = begin;
  for (const Sent& later : side.sent) {
    if (!is_write(later.opcode)) continue;
    if (later.area_offset + later.length <= sent.area_offset || later.area_offset >= end) continue;
    begin = std::min(begin, std::max(later.area_offset, sent.area_offset));
  }
  const uint32_t bytes = begin - sent.area_offset;
  if (std::memcmp(peer.write_area + sent.area_offset, peer.write_shadow.data() + sent.area_offset,
                  bytes) != 0)
    fail(peer, Checker::kMemory, "a WRITE was acknowledged and is not here");
}

void Traffic::check_receive(Side& side, const Wc& wc) {
  if (side.receives.empty() || side.receives.front().wr_id != wc.wr_id)
    return fail(side, Checker::kOrder, "receive completion out of order, twice or never posted");
  const Receive receive = side.receives.front();
  side.receives.pop_front();
  if (side.ended) return fail(side, Checker::kStatus, "success after an error");
  if (!reliable()) {
    // Messages may be lost, but what comes is whole and in order.
    const uint64_t id = base::load<uint64_t>(side.receive_slots[receive.slot]);
    while (!side.expected.empty() && side.expected.front().id != id) {
      if (options_.lossless)
        return fail(side, Checker::kDelivery, "a message was lost and need not have been");
      side.expected.pop_front();
    }
  }
  if (side.expected.empty())
    return fail(side, Checker::kOrder, "a message that was not sent, or out of order");
  const Message message = side.expected.front();
  side.expected.pop_front();
  check_message(side, message, receive, wc);
}

void Traffic::check_message(Side& side, const Message& message, const Receive& receive,
                            const Wc& wc) {
  const std::byte* data = side.receive_slots[receive.slot];
  if (wc.byte_len != message.length) return fail(side, Checker::kFields, "byte_len of a receive");
  if (wc.flags != (message.has_imm ? kWcWithImm : 0u) + (message.has_inv ? kWcWithInv : 0u) ||
      (wc.flags != 0 && wc.imm_be != message.imm))
    return fail(side, Checker::kFields, "immediate or invalidated key");
  if (message.has_inv) note_invalidated(side, message.imm);
  if (wc.opcode != (message.is_write ? WcOpcode::kRecvRdmaImm : WcOpcode::kRecv))
    return fail(side, Checker::kFields, "opcode of a receive");
  const uint32_t placed = message.is_write ? 0 : message.length;
  if (!holds(data, message.id, placed)) return fail(side, Checker::kPayload, "message bytes");
  if (options_.type == QpType::kUc && !options_.lossless) return;  // of a message that broke off
  const uint32_t watched = std::min(kWatchedBytes, kMessageMax - placed);
  if (!std::all_of(data + placed, data + placed + watched, [](auto b) { return b == kBlank; }))
    fail(side, Checker::kGuard, "bytes behind a message were written");
}

// Only the first error has a reason of its own, and only one that the faults can give.
bool Traffic::send_may_fail(const Side& side, const Side& peer, const Wc& wc) const {
  if (wc.status == WcStatus::kWrFlush) return side.cause && wc.vendor_err == kVendorNone;
  if (side.flushing) return false;
  const Sent& sent = *std::ranges::find(side.sent, wc.wr_id, &Sent::wr_id);
  switch (wc.status) {
    case WcStatus::kRetryExc:  // also of a peer that failed for its own reason; its NAK was lost
      if (wc.vendor_err == kVendorPeerProcess || wc.vendor_err == kVendorLinkDown) return side.told;
      return (options_.may_fail || peer.dead || in_error(peer)) &&
             (wc.vendor_err == kVendorRetryTimeout || wc.vendor_err == kVendorPsnRetry);
    case WcStatus::kRnrRetryExc:
      return options_.rnr_retry < 7 && wc.vendor_err == kVendorRnr;
    case WcStatus::kLocProt:
      return sent.second_local && side.second_gone && wc.vendor_err == kVendorLocalKey;
    case WcStatus::kRemAccess:
      return (sent.bad_window || (sent.second_remote && peer.second_gone)) &&
             wc.vendor_err == kVendorRemoteNak;
    case WcStatus::kRemOp:  // the peer's receive names a key that is gone
      return peer.second_gone && wc.vendor_err == kVendorRemoteNak;
    default:
      return false;
  }
}

bool Traffic::receive_may_fail(const Side& side, const Wc& wc) const {
  if (wc.status == WcStatus::kWrFlush) return side.cause && wc.vendor_err == kVendorNone;
  if (side.ended || !side.second_gone || side.receives.empty()) return false;
  if (wc.status == WcStatus::kLocProt)
    return side.receives.front().second && wc.vendor_err == kVendorLocalKey;
  return wc.status == WcStatus::kLocAccess && wc.vendor_err == kVendorRemoteKey;
}

// After the first error everything else is flushed, in order.
void Traffic::check_failed(Side& side, const Wc& wc) {
  const bool send = std::ranges::find(side.sent, wc.wr_id, &Sent::wr_id) != side.sent.end();
  if (!(send ? send_may_fail(side, peer_of(side), wc) : receive_may_fail(side, wc))) {
    return fail(side, Checker::kStatus,
                std::string(send ? "send" : "receive") + " ended with " +
                    wc_status_name(wc.status) + ", cause " + std::to_string(wc.vendor_err) +
                    (side.cause ? " after an error" : ""));
  }
  // What went before the first error and was not signaled is done.
  while (send && !side.flushing && side.sent.front().wr_id != wc.wr_id &&
         !side.sent.front().signaled) {
    const Sent sent = side.sent.front();
    side.sent.pop_front();
    note_done(side, sent);
  }
  side.failed = side.cause = true;
  (send ? side.flushing : side.ended) = true;
  if (send && side.sent.front().wr_id == wc.wr_id) {
    give_up(side, side.sent.front());
    side.sent.pop_front();
  } else if (!side.receives.empty() && side.receives.front().wr_id == wc.wr_id) {
    side.receives.pop_front();
  } else {
    fail(side, Checker::kOrder,
         "error completion " + std::to_string(wc.wr_id) + " out of order, twice or never posted");
  }
}

// Whether a failed request has done its work nobody knows.
void Traffic::give_up(Side& side, const Sent& sent) {
  Side& peer = peer_of(side);
  if (is_write(sent.opcode))
    std::fill_n(peer.unknown.begin() + sent.area_offset, sent.length, std::byte{1});
  if (sent.opcode == WrOpcode::kFetchAdd || sent.opcode == WrOpcode::kCmpSwap)
    peer.counter_may.push_back(sent.expect);
}

}  // namespace tbt::sim
