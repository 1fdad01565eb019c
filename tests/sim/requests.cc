// Traffic: work requests, and what each must do.
#include <algorithm>
#include <bit>
#include <cstring>

#include "tests/sim/pattern.h"
#include "tests/sim/traffic.h"

namespace tbt::sim {

namespace {

// What a receive buffer holds before its message, so that neither an old message nor a byte too
// many goes unnoticed.
constexpr int kBlank = 0x5c;

bool is_answered(WrOpcode opcode) noexcept {
  return opcode == WrOpcode::kRdmaRead || opcode == WrOpcode::kCmpSwap ||
         opcode == WrOpcode::kFetchAdd;
}

template <typename Entries, size_t kSlots>
uint32_t free_slot(const Entries& entries, const std::array<std::byte*, kSlots>&) {
  uint32_t taken = 0;
  for (const auto& entry : entries) taken |= 1u << entry.slot;
  return static_cast<uint32_t>(std::countr_one(taken));
}

}  // namespace

uint32_t Traffic::free_send_slot(const Side& side) { return free_slot(side.sent, side.send_slots); }

uint32_t Traffic::draw_length() {
  const uint32_t least = reliable() ? 0 : 8;  // UC messages carry their id
  const uint32_t mtu = 128u << options_.mtu;
  switch (rng_.below(5)) {
    case 0:
      return least + rng_.below(16);
    case 1:
      return std::min(mtu * (1 + rng_.below(3)) - rng_.below(2), kMessageMax);
    case 2:
      return std::min(mtu + rng_.below(2), kMessageMax);
    default:
      return least + rng_.below(kMessageMax - least);
  }
}

bool Traffic::post_receive(Instant now, Side& side, const RecvWr& wr) {
  return side.srq ? side.node->endpoint.post_srq_recv(now, *side.srq, wr).ok()
                  : side.node->endpoint.post_recv(now, *side.qp, wr).ok();
}

void Traffic::post_receives(Instant now, Side& side) {
  while (side.receives.size() < kReceives) {
    const uint32_t slot = free_slot(side.receives, side.receive_slots);
    const uint64_t wr_id = side.next_id++;
    std::memset(side.receive_slots[slot], kBlank, kMessageMax);
    const auto at = reinterpret_cast<uint64_t>(side.receive_slots[slot]);
    const uint32_t cut = rng_.below(kMessageMax + 1);
    const bool second = options_.second_keys && rng_.below(4) == 0;
    const uint32_t key = second ? side.second_key : side.node->key;
    const Sge sges[2] = {{at, cut, key}, {at + cut, kMessageMax - cut, key}};
    const RecvWr wr{wr_id, sges, 2};
    if (!post_receive(now, side, wr))
      return fail(side, Checker::kSlots, "no place for a receive though one was given back");
    if (saboteur_.receive_twice()) (void)post_receive(now, side, wr);
    side.receives.push_back({wr_id, slot, second});
    if (rng_.below(4) == 0) return;
  }
}

void Traffic::draw_request(Side& side, SendWr& wr, Sent& sent) {
  Side& peer = peer_of(side);
  static constexpr WrOpcode kOpcodes[] = {
      WrOpcode::kSend,     WrOpcode::kSendImm, WrOpcode::kRdmaWrite, WrOpcode::kRdmaWriteImm,
      WrOpcode::kRdmaRead, WrOpcode::kCmpSwap, WrOpcode::kFetchAdd};
  wr.opcode = sent.opcode = kOpcodes[rng_.below(reliable() ? 7 : 2)];
  if (options_.type == QpType::kRc && rng_.below(10) == 0)
    wr.opcode = sent.opcode = rng_.below(2) == 0 ? WrOpcode::kAtomicWrite : WrOpcode::kFlush;
  sent.length = draw_length();
  wr.imm_be = static_cast<uint32_t>(rng_.next());
  if (xrc()) wr.remote_qpn = peer.srq->number;
  wr.rkey = peer.node->key;
  if (wr.opcode == WrOpcode::kCmpSwap || wr.opcode == WrOpcode::kFetchAdd) {
    sent.length = 8;
    wr.remote_addr = reinterpret_cast<uint64_t>(peer.counter);
    wr.compare_add =
        wr.opcode == WrOpcode::kFetchAdd || rng_.below(2) ? rng_.below(1000) : peer.counter_shadow;
    wr.swap = rng_.below(1000);
    return;
  }
  if (wr.opcode >= WrOpcode::kFlush) return draw_placed(side, wr, sent);
  sent.moving = wr.opcode == WrOpcode::kRdmaRead && rng_.below(2) == 0;
  sent.area_offset = rng_.below(kAreaBytes - sent.length);
  // Often over what was just asked for, so that it matters who is first.
  const bool over = wr.opcode == WrOpcode::kRdmaWrite && !side.sent.empty() &&
                    side.sent.back().moving && rng_.below(2) == 0;
  if (over) sent.area_offset = std::min(side.sent.back().area_offset, sent.area_offset);
  const bool still = wr.opcode == WrOpcode::kRdmaRead && !sent.moving;
  wr.remote_addr =
      reinterpret_cast<uint64_t>(still ? peer.read_area : peer.write_area) + sent.area_offset;
  if (options_.windows && !still) choose_window(side, wr, sent);
}

// An ATOMIC WRITE into the write area, or a FLUSH of it.
void Traffic::draw_placed(Side& side, SendWr& wr, Sent& sent) {
  const bool flush = wr.opcode == WrOpcode::kFlush;
  sent.length = flush ? 0 : 8;
  sent.area_offset = rng_.below(kAreaBytes / 8) * 8;
  wr.remote_addr = reinterpret_cast<uint64_t>(peer_of(side).write_area) + sent.area_offset;
  if (!flush) return;
  wr.compare_add = rng_.below(kAreaBytes - sent.area_offset);
  wr.swap = wire::feth(wire::kFlushGlobal, wire::FlushSelectivity{rng_.below(2) == 0});
}

// Which keys the request names; the local one is returned. A key that is gone must make it fail,
// and with it all that follows; an empty or inline request names none.
uint32_t Traffic::choose_keys(Side& side, SendWr& wr, Sent& sent) {
  const Side& peer = peer_of(side);
  if (!options_.second_keys || sent.length == 0) return side.node->key;
  sent.second_local = (wr.flags & kSendInline) == 0 && rng_.below(4) == 0;
  const bool takes_rkey = is_answered(wr.opcode) || is_write(wr.opcode);
  sent.second_remote = takes_rkey && sent.window < 0 && rng_.below(4) == 0;
  if (sent.second_remote) wr.rkey = peer.second_key;
  side.doomed = side.doomed || (sent.second_local && side.second_gone) ||
                (sent.second_remote && peer.second_gone);
  return sent.second_local ? side.second_key : side.node->key;
}

// A READ that is under way may show this WRITE already: the responder fetches its bytes late.
void Traffic::predict_write(Side& side, const SendWr& wr, const Sent& sent, const std::byte* data) {
  Side& peer = peer_of(side);
  std::copy_n(data, sent.length, peer.write_shadow.begin() + sent.area_offset);
  for (Sent& read : side.sent) {
    if (!read.moving || (wr.flags & kSendFence) != 0) continue;
    const uint32_t begin = std::max(read.area_offset, sent.area_offset);
    const uint32_t end = std::min(read.area_offset + read.length, sent.area_offset + sent.length);
    if (begin >= end) continue;
    const bool first = read.loose_begin == read.loose_end;
    read.loose_begin = std::min(first ? begin : read.loose_begin, begin);
    read.loose_end = std::max(read.loose_end, end);
  }
}

void Traffic::predict_read(Side& side, const Sent& sent) {
  const Side& peer = peer_of(side);
  auto& answer = side.answers[sent.slot];
  answer.resize(sent.length);
  const std::byte* from = sent.moving ? peer.write_shadow.data() : peer.read_area;
  std::copy_n(from + sent.area_offset, sent.length, answer.begin());
}

// Tells the oracle what this request will do at the peer.
void Traffic::predict(Side& side, const SendWr& wr, Sent& sent, const std::byte* data) {
  Side& peer = peer_of(side);
  switch (wr.opcode) {
    case WrOpcode::kSend:
    case WrOpcode::kSendImm:
      peer.expected.push_back(
          {sent.wr_id, sent.length, wr.opcode == WrOpcode::kSendImm, false, false, wr.imm_be});
      break;
    case WrOpcode::kSendInv:
      peer.expected.push_back({sent.wr_id, sent.length, false, true, false, wr.rkey});
      break;
    case WrOpcode::kRdmaWrite:
    case WrOpcode::kRdmaWriteImm:
      predict_write(side, wr, sent, data);
      if (wr.opcode == WrOpcode::kRdmaWriteImm)
        peer.expected.push_back({sent.wr_id, sent.length, true, false, true, wr.imm_be});
      break;
    case WrOpcode::kAtomicWrite:
      predict_write(side, wr, sent, data);
      break;
    case WrOpcode::kFetchAdd:
      sent.expect = peer.counter_shadow;
      peer.counter_shadow += wr.compare_add;
      break;
    case WrOpcode::kCmpSwap:
      sent.expect = peer.counter_shadow;
      if (peer.counter_shadow == wr.compare_add) peer.counter_shadow = wr.swap;
      break;
    case WrOpcode::kRdmaRead:
      predict_read(side, sent);
      break;
    case WrOpcode::kFlush:
    case WrOpcode::kLocalInv:
    case WrOpcode::kBindMw:
      break;
  }
}

void Traffic::post_send(Instant now, Side& side) {
  if (side.sent.size() == kSends || side.failed) return;
  if (options_.windows && rng_.below(8) == 0 && post_window_work(now, side)) return;
  Sent sent;
  sent.posted = now;
  SendWr wr;
  sent.slot = free_send_slot(side);
  sent.wr_id = wr.wr_id = side.next_id++ | uint64_t{&side == &sides_[1]} << 40;
  draw_request(side, wr, sent);
  std::byte* data = side.send_slots[sent.slot];
  const bool answered = is_answered(wr.opcode);
  fill(data, answered ? ~sent.wr_id : sent.wr_id, sent.length);
  const auto at = reinterpret_cast<uint64_t>(data);
  const uint32_t cut = answered && sent.length == 8 ? 8 : rng_.below(sent.length + 1);
  sent.signaled = ++side.posted >= 4 || rng_.below(3) != 0;
  if (sent.signaled) side.posted = 0;
  wr.flags = (sent.signaled ? kSendSignaled : 0u) | (rng_.below(6) == 0 ? kSendFence : 0u) |
             (wr.opcode == WrOpcode::kSendInv ? kSendFence : 0u);  // READs through it are done
  if (!answered && sent.length <= 64 && rng_.below(2) == 0) wr.flags |= kSendInline;
  const uint32_t key = choose_keys(side, wr, sent);
  const Sge sges[2] = {{at, cut, key}, {at + cut, sent.length - cut, key}};
  wr.sg_list = sges;
  wr.num_sge = wr.opcode == WrOpcode::kFlush ? 0 : 2;
  sent.doomed = side.doomed;
  if (!sent.doomed) predict(side, wr, sent, data);
  if (saboteur_.ignore_fence()) wr.flags &= ~uint32_t{kSendFence};
  if (!side.node->endpoint.post_send(now, *side.qp, wr, nullptr))
    return fail(side, Checker::kSlots, "no place for a send though one was given back");
  if ((wr.flags & kSendInline) != 0) fill(data, 0xdead, sent.length);  // may be reused at once
  side.sent.push_back(sent);
}

}  // namespace tbt::sim
