#include "tests/sim/traffic.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/bytes.h"

namespace tbt::sim {

namespace {

// The bytes of message `id`, the same wherever they are computed. The first eight are the id
// itself.
std::byte pattern(uint64_t id, uint32_t at) noexcept {
  if (at < 8) return static_cast<std::byte>(id >> (8 * at));
  return static_cast<std::byte>((id * 0x9e3779b97f4a7c15ULL >> (8 * (at % 7))) + at * 31);
}

void fill(std::byte* to, uint64_t id, uint32_t bytes) noexcept {
  for (uint32_t i = 0; i < bytes; ++i) to[i] = pattern(id, i);
}

bool holds(const std::byte* at, uint64_t id, uint32_t bytes) noexcept {
  for (uint32_t i = 0; i < bytes; ++i) {
    if (at[i] != pattern(id, i)) return false;
  }
  return true;
}

constexpr uint32_t kMask24 = 0xffffff;

}  // namespace

Traffic::Traffic(std::array<Node*, 2> nodes, const TrafficOptions& options, Rng rng,
                 uint32_t number)
    : options_(options), rng_(rng), number_(number) {
  for (uint32_t i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    side.node = nodes[i];
    side.cq = std::make_unique<verbs::CompletionQueue>(512, nullptr);
    for (auto& slot : side.send_slots) slot = side.node->carve(kMessageMax);
    for (auto& slot : side.receive_slots) slot = side.node->carve(kMessageMax);
    side.write_area = side.node->carve(kAreaBytes);
    side.read_area = side.node->carve(kAreaBytes);
    side.counter = side.node->carve(8);
    fill(side.read_area, 77 + i, kAreaBytes);
    side.write_shadow.assign(side.write_area, side.write_area + kAreaBytes);
    side.read_shadow.assign(side.read_area, side.read_area + kAreaBytes);
    std::memset(side.counter, 0, 8);
  }
  connect(Instant{0}, number);
}

void Traffic::connect(Instant now, uint32_t number) {
  for (uint32_t i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    if (options_.shared_receive_queue) {
      side.srq = std::make_unique<verbs::SharedReceiveQueue>(&side.node->pd, kReceives, 2, nullptr);
    }
    engine::QpConfig config;
    config.number = (1u << 18) + 10 + number * 2 + i;
    config.type = options_.type;
    config.caps = {kSends, kReceives, 4, 2, 64};
    config.pd = &side.node->pd;
    config.send_cq = config.recv_cq = side.cq.get();
    config.srq = side.srq.get();
    side.qp = *side.node->endpoint.create_qp(config);
  }
  for (uint32_t i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    QpAttr attr;
    attr.qp_state = QpState::kInit;
    attr.port_num = 1;
    attr.access_flags =
        kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic;
    uint32_t mask = kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags;
    if (!side.node->endpoint.modify_qp(now, *side.qp, attr, mask)) fail(side, "to INIT");
    attr.qp_state = QpState::kRtr;
    attr.path_mtu = options_.mtu;
    attr.dest_qpn = sides_[1 - i].qp->number;
    attr.rq_psn = options_.first_psn[1 - i];
    attr.max_dest_rd_atomic = options_.rd_atomic;
    attr.min_rnr_timer = 1 + rng_.below(8);
    attr.av.dlid = sides_[1 - i].node->lid();
    mask = kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn;
    if (options_.type == QpType::kRc) mask |= kQpMaxDestRdAtomic | kQpMinRnrTimer;
    if (!side.node->endpoint.modify_qp(now, *side.qp, attr, mask)) fail(side, "to RTR");
    attr.qp_state = QpState::kRts;
    attr.sq_psn = options_.first_psn[i];
    attr.timeout = 8;  // about 1 ms
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = options_.rd_atomic;
    mask = kQpState | kQpSqPsn;
    if (options_.type == QpType::kRc)
      mask |= kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic;
    if (!side.node->endpoint.modify_qp(now, *side.qp, attr, mask)) fail(side, "to RTS");
  }
}

void Traffic::fail(const Side& side, const std::string& text) {
  if (!failure_.empty()) return;
  failure_ = "pair " + std::to_string(number_) + " side " + (&side == &sides_[0] ? "0" : "1") +
             ": " + text;
}

uint32_t Traffic::draw_length() {
  const uint32_t least = options_.type == QpType::kRc ? 0 : 8;  // UC messages carry their id
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

void Traffic::post_receives(Instant now, Side& side) {
  while (side.receives.size() < kReceives) {
    std::array<bool, kReceives> taken{};
    for (const Receive& receive : side.receives) taken[receive.slot] = true;
    const auto slot = static_cast<uint32_t>(std::ranges::find(taken, false) - taken.begin());
    const uint64_t wr_id = side.next_id++;
    const auto at = reinterpret_cast<uint64_t>(side.receive_slots[slot]);
    const uint32_t cut = rng_.below(kMessageMax + 1);
    const Sge sges[2] = {{at, cut, side.node->key}, {at + cut, kMessageMax - cut, side.node->key}};
    const RecvWr wr{wr_id, sges, 2};
    const Status status = side.srq ? side.node->endpoint.post_srq_recv(now, *side.srq, wr)
                                   : side.node->endpoint.post_recv(now, *side.qp, wr);
    if (!status) return;  // the slots of polled completions come back with the next poll
    side.receives.push_back({wr_id, slot});
    if (rng_.below(4) == 0) return;
  }
}

void Traffic::fill_request(Side& peer, SendWr& wr, Sent& sent) {
  const bool rc = options_.type == QpType::kRc;
  static constexpr WrOpcode kOpcodes[] = {
      WrOpcode::kSend,     WrOpcode::kSendImm, WrOpcode::kRdmaWrite, WrOpcode::kRdmaWriteImm,
      WrOpcode::kRdmaRead, WrOpcode::kCmpSwap, WrOpcode::kFetchAdd};
  wr.opcode = kOpcodes[rng_.below(rc ? 7 : 2)];
  sent.length = draw_length();
  wr.imm_be = static_cast<uint32_t>(rng_.next());
  wr.rkey = peer.node->key;
  if (wr.opcode == WrOpcode::kRdmaWrite || wr.opcode == WrOpcode::kRdmaWriteImm) {
    wr.remote_addr =
        reinterpret_cast<uint64_t>(peer.write_area) + rng_.below(kAreaBytes - sent.length);
  } else if (wr.opcode == WrOpcode::kRdmaRead) {
    sent.area_offset = rng_.below(kAreaBytes - sent.length);
    wr.remote_addr = reinterpret_cast<uint64_t>(peer.read_area) + sent.area_offset;
  } else if (wr.opcode == WrOpcode::kCmpSwap || wr.opcode == WrOpcode::kFetchAdd) {
    sent.length = 8;
    wr.remote_addr = reinterpret_cast<uint64_t>(peer.counter);
    wr.compare_add =
        wr.opcode == WrOpcode::kFetchAdd || rng_.below(2) ? rng_.below(1000) : peer.counter_shadow;
    wr.swap = rng_.below(1000);
  }
}

// Tells the oracle what this request will do at the peer.
void Traffic::predict(Side& peer, const SendWr& wr, Sent& sent, const std::byte* data) {
  switch (wr.opcode) {
    case WrOpcode::kSend:
    case WrOpcode::kSendImm:
      peer.expected.push_back(
          {sent.wr_id, sent.length, wr.opcode == WrOpcode::kSendImm, false, wr.imm_be});
      break;
    case WrOpcode::kRdmaWrite:
    case WrOpcode::kRdmaWriteImm:
      std::copy_n(data, sent.length,
                  peer.write_shadow.begin() +
                      (wr.remote_addr - reinterpret_cast<uint64_t>(peer.write_area)));
      if (wr.opcode == WrOpcode::kRdmaWriteImm)
        peer.expected.push_back({sent.wr_id, sent.length, true, true, wr.imm_be});
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
    case WrOpcode::kLocalInv:  // these three are not drawn
    case WrOpcode::kBindMw:
    case WrOpcode::kSendInv:
      break;
  }
}

void Traffic::post_send(Instant now, Side& side, Side& peer) {
  std::array<bool, kSends> taken{};
  for (const Sent& sent : side.sent) taken[sent.slot] = true;
  const auto free_slot = std::ranges::find(taken, false);
  if (free_slot == taken.end() || side.failed) return;
  Sent sent{};
  SendWr wr;
  sent.slot = static_cast<uint32_t>(free_slot - taken.begin());
  sent.wr_id = wr.wr_id = side.next_id++ | uint64_t{&side == &sides_[1]} << 40;
  fill_request(peer, wr, sent);
  sent.opcode = wr.opcode;
  std::byte* data = side.send_slots[sent.slot];
  const bool answered = wr.opcode == WrOpcode::kRdmaRead || wr.opcode == WrOpcode::kCmpSwap ||
                        wr.opcode == WrOpcode::kFetchAdd;
  fill(data, answered ? ~sent.wr_id : sent.wr_id, sent.length);
  const auto at = reinterpret_cast<uint64_t>(data);
  const uint32_t cut = answered && sent.length == 8 ? 8 : rng_.below(sent.length + 1);
  const Sge sges[2] = {{at, cut, side.node->key}, {at + cut, sent.length - cut, side.node->key}};
  wr.sg_list = sges;
  wr.num_sge = 2;
  sent.signaled = ++side.posted >= 4 || rng_.below(3) != 0;
  if (sent.signaled) side.posted = 0;
  wr.flags = (sent.signaled ? kSendSignaled : 0u) | (rng_.below(8) == 0 ? kSendFence : 0u);
  if (!answered && sent.length <= 64 && rng_.below(2) == 0) wr.flags |= kSendInline;
  if (!side.node->endpoint.post_send(now, *side.qp, wr, nullptr)) {
    if (sent.signaled) side.posted = 4;
    return;
  }
  predict(peer, wr, sent, data);
  if ((wr.flags & kSendInline) != 0) fill(data, 0xdead, sent.length);  // may be reused at once
  side.sent.push_back(sent);
}

void Traffic::check_send(Side& side, const Wc& wc) {
  // Unsignaled requests before this one are done too.
  while (!side.sent.empty() && side.sent.front().wr_id != wc.wr_id && !side.sent.front().signaled) {
    side.sent.pop_front();
    ++completed_;
  }
  if (side.sent.empty() || side.sent.front().wr_id != wc.wr_id)
    return fail(side, "send completion out of order, twice or never posted");
  const Sent sent = side.sent.front();
  side.sent.pop_front();
  ++completed_;
  if (!sent.signaled) return fail(side, "completion of an unsignaled request");
  const std::byte* data = side.send_slots[sent.slot];
  if (sent.opcode == WrOpcode::kRdmaRead) {
    const Side& peer = sides_[&side == &sides_[0] ? 1 : 0];
    if (std::memcmp(data, peer.read_shadow.data() + sent.area_offset, sent.length) != 0)
      fail(side, "READ returned wrong bytes");
  } else if (sent.opcode == WrOpcode::kFetchAdd || sent.opcode == WrOpcode::kCmpSwap) {
    if (base::load<uint64_t>(data) != sent.expect) fail(side, "atomic returned a wrong value");
  }
}

void Traffic::check_receive(Side& side, const Wc& wc) {
  if (side.receives.empty() || side.receives.front().wr_id != wc.wr_id)
    return fail(side, "receive completion out of order, twice or never posted");
  const Receive receive = side.receives.front();
  side.receives.pop_front();
  const std::byte* data = side.receive_slots[receive.slot];
  if (options_.type != QpType::kRc) {
    // Messages may be lost, but what comes is whole and in order.
    const uint64_t id = base::load_le<uint64_t>(data);
    while (!side.expected.empty() && side.expected.front().id != id) side.expected.pop_front();
  }
  if (side.expected.empty()) return fail(side, "a message that was not sent, or out of order");
  const Message message = side.expected.front();
  side.expected.pop_front();
  if (wc.byte_len != message.length) return fail(side, "byte_len");
  if (message.has_imm != ((wc.flags & kWcWithImm) != 0) ||
      (message.has_imm && wc.imm_be != message.imm))
    return fail(side, "immediate");
  if ((wc.opcode == WcOpcode::kRecvRdmaImm) != message.is_write) return fail(side, "opcode");
  if (!message.is_write && !holds(data, message.id, message.length)) fail(side, "message bytes");
}

// After the first error everything else is flushed, in order.
void Traffic::check_failed(Side& side, const Wc& wc) {
  const bool send = !side.sent.empty() && std::ranges::any_of(side.sent, [&](const Sent& s) {
    return s.wr_id == wc.wr_id;
  });
  if (!options_.may_fail)
    return fail(side, std::string("unexpected status: ") + wc_status_name(wc.status));
  if (!side.failed && wc.status == WcStatus::kWrFlush && send)
    return fail(side, "flushed without a cause");
  if (wc.status != WcStatus::kWrFlush && wc.status != WcStatus::kRetryExc)
    return fail(side, std::string("status: ") + wc_status_name(wc.status));
  side.failed = true;
  if (send) {
    while (side.sent.front().wr_id != wc.wr_id)
      side.sent.pop_front();  // unsignaled and done, or already failed first
    side.sent.pop_front();
  } else if (!side.receives.empty() && side.receives.front().wr_id == wc.wr_id) {
    side.receives.pop_front();
  } else {
    fail(side, "error completion of nothing posted");
  }
}

void Traffic::poll(Side& side) {
  Wc wcs[16];
  const uint32_t count = side.cq->pop(std::span(wcs).first(1 + rng_.below(16)));
  for (uint32_t i = 0; i < count; ++i) {
    Wc& wc = wcs[i];
    if (sabotage_ == World::Sabotage::kLoseCompletion && wc.opcode == WcOpcode::kSend) {
      sabotage_ = World::Sabotage::kNone;
      continue;
    }
    const int times = sabotage_ == World::Sabotage::kRepeatCompletion ? 2 : 1;
    for (int k = 0; k < times; ++k) {
      if (wc.status != WcStatus::kSuccess) {
        check_failed(side, wc);
      } else if (static_cast<uint8_t>(wc.opcode) >= 128) {
        check_receive(side, wc);
      } else {
        check_send(side, wc);
      }
    }
  }
}

void Traffic::act(Instant now, bool new_work) {
  for (uint32_t i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    Side& peer = sides_[1 - i];
    if (side.qp->state == QpState::kErr) side.failed = true;
    if (peer.failed && !side.failed && side.cq->queued() == 0) {
      // As an application that learns of its peer's failure by other means.
      QpAttr attr;
      attr.qp_state = QpState::kErr;
      (void)side.node->endpoint.modify_qp(now, *side.qp, attr, kQpState);
    }
    if (!side.failed && (!options_.slow_receiver || !new_work || rng_.below(20) == 0))
      post_receives(now, side);
    if (new_work) {
      for (uint32_t n = rng_.below(4); n > 0; --n) post_send(now, side, peer);
    } else if (side.posted != 0 && !side.failed) {
      side.posted = 4;  // the last one is signaled, so that all complete
      post_send(now, side, peer);
    }
    if (sabotage_ == World::Sabotage::kFlipMemory) side.write_area[5] ^= std::byte{1};
    poll(side);
  }
  if (sabotage_ == World::Sabotage::kFlipMemory) sabotage_ = World::Sabotage::kNone;
}

bool Traffic::quiet() const {
  return std::ranges::all_of(sides_, [](const Side& side) {
    return (side.sent.empty() || side.failed) && side.cq->queued() == 0;
  });
}

void Traffic::check_end() {
  for (Side& side : sides_) {
    if (sides_[0].failed || sides_[1].failed) {
      if (!side.sent.empty() && side.sent.back().signaled && side.failed)
        fail(side, "not everything was flushed");
      continue;
    }
    if (options_.type == QpType::kRc && !side.expected.empty())
      fail(side, "messages were acknowledged and not delivered");
    if (options_.type == QpType::kRc &&
        !std::equal(side.write_shadow.begin(), side.write_shadow.end(), side.write_area))
      fail(side, "the write area differs from its shadow");
    if (base::load<uint64_t>(side.counter) != side.counter_shadow)
      fail(side, "the counter differs from its shadow");
  }
}

std::string Traffic::describe() const {
  std::string text =
      "pair " + std::to_string(number_) + (options_.type == QpType::kRc ? " rc" : " uc") + " mtu " +
      std::to_string(128u << options_.mtu) + (options_.shared_receive_queue ? " srq" : "");
  for (const Side& side : sides_) {
    char part[240];
    const engine::RequesterState& req = side.qp->req;
    std::snprintf(part, sizeof part,
                  "; %s sent %zu receives %zu expected %zu, una %06x send %06x next %06x cursor %u "
                  "head %u tail %u%s%s credit %u of %u seen %u",
                  qp_state_name(side.qp->state), side.sent.size(), side.receives.size(),
                  side.expected.size(), req.una_psn, req.send_psn, req.next_psn, req.cursor,
                  side.qp->sq.head, side.qp->sq.tail, req.rnr_waiting ? " rnr" : "",
                  side.qp->uc.waiting ? " uc-wait" : "", side.qp->uc.sent, side.qp->uc.limit,
                  side.qp->uc.seen);
    text += part;
  }
  return text;
}

void Traffic::sabotage(World::Sabotage what) { sabotage_ = what; }

}  // namespace tbt::sim
