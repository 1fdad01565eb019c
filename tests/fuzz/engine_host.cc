#include "engine_host.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "wire/packet.h"

namespace tbt::fuzz {

namespace {

constexpr uint32_t kDepth = 16;

bool allowed(std::initializer_list<WcStatus> list, WcStatus status) noexcept {
  return std::ranges::find(list, status) != list.end();
}

bool send_status_allowed(QpType type, WrOpcode opcode, WcStatus status) noexcept {
  using enum WcStatus;
  const bool of_window = opcode == WrOpcode::kBindMw || opcode == WrOpcode::kLocalInv;
  if (of_window && status == kMwBind) return true;
  if (type == QpType::kUd) return allowed({kSuccess, kLocProt, kWrFlush}, status);
  if (type == QpType::kUc) return allowed({kSuccess, kLocProt, kWrFlush, kRetryExc}, status);
  return allowed({kSuccess, kLocProt, kWrFlush, kBadResp, kRemInvReq, kRemAccess, kRemOp, kRetryExc,
                  kRnrRetryExc},
                 status);
}

bool receive_status_allowed(WcStatus status) noexcept {
  using enum WcStatus;
  return allowed({kSuccess, kLocLen, kLocProt, kLocAccess, kWrFlush}, status);
}

}  // namespace

Host::Host(uint32_t index, const Settings& settings)
    : srq(&pd, kDepth, kSqeMax, nullptr),
      endpoint(settings.options, *this, Rng(index + 1)),
      memory(endpoint, pd, other_pd),
      index_(index),
      settings_(settings) {
  constexpr QpType kTypes[kEnds] = {QpType::kRc, QpType::kUc, QpType::kUd, QpType::kRc};
  for (uint32_t i = 0; i < kEnds; ++i) ends[i].type = kTypes[i];
  for (uint32_t i = 0; i < kWindows; ++i) {
    windows_[i] = endpoint.add_window(i == 0 ? MwType::kType1 : MwType::kType2, &pd);
  }
}

std::optional<verbs::Path> Host::resolve(uint8_t, const AddressVector& address, uint32_t) const {
  if (!reachable) return std::nullopt;
  verbs::Path path;
  path.slid = lid();
  path.dlid = address.dlid;
  return path;
}

void Host::create(End& end) {
  const bool last = &end == &ends.back();
  verbs::CompletionQueue* queue = last && settings_.small_cq ? &small_cq : &cq;
  do {
    ++numbers_;
  } while (!endpoint.free_number((index_ + 1) << 18 | numbers_));
  engine::QpConfig config;
  config.number = (index_ + 1) << 18 | numbers_;
  config.type = end.type;
  config.caps = {kDepth, kDepth, kSqeMax, kSqeMax, 64};
  config.pd = &pd;
  config.send_cq = config.recv_cq = queue;
  config.srq = from_srq(end) ? &srq : nullptr;
  config.user = &end;
  end = End{end.type, *endpoint.create_qp(config), {}, {}, false};
}

void Host::destroy(Instant now, End& end) {
  endpoint.destroy_qp(now, *end.qp);
  end = End{end.type, nullptr, {}, {}, false};
}

Status Host::modify(Instant now, End& end, QpState state) {
  QpAttr attr;
  attr.qp_state = state;
  if (end.qp->state == QpState::kSqe) {
    poll();  // the failures of before, so that success may follow
    end.send_failed = false;
  }
  return endpoint.modify_qp(now, *end.qp, attr, kQpState);
}

void Host::reset(Instant now, End& end) {
  TBT_ASSERT(modify(now, end, QpState::kReset).ok());
  end.sends.clear();
  end.receives.clear();
  end.send_failed = false;
}

// Up to RTS, as far as there is a way to the peer.
void Host::connect(Instant now, End& end, const Host& peer, uint32_t dest_qpn) {
  const bool rc = end.type == QpType::kRc;
  const bool ud = end.type == QpType::kUd;
  QpAttr attr;
  auto to = [&](QpState state, uint32_t mask) {
    attr.qp_state = state;
    return endpoint.modify_qp(now, *end.qp, attr, kQpState | mask).ok();
  };
  attr.port_num = 1;
  attr.access_flags = settings_.access;
  attr.qkey = kQkey;
  attr.path_mtu = settings_.mtu;
  attr.dest_qpn = dest_qpn;
  attr.rq_psn = attr.sq_psn = settings_.psn;
  attr.av.dlid = peer.lid();
  attr.max_dest_rd_atomic = attr.max_rd_atomic = settings_.rd_atomic;
  attr.min_rnr_timer = 1;
  attr.timeout = settings_.timeout;
  attr.retry_cnt = settings_.retry_cnt;
  attr.rnr_retry = settings_.rnr_retry;
  const uint32_t rtr = ud ? 0 : kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn;
  const bool ready = to(QpState::kInit, kQpPkeyIndex | kQpPort | (ud ? kQpQkey : kQpAccessFlags)) &&
                     to(QpState::kRtr, rtr | (rc ? kQpMaxDestRdAtomic | kQpMinRnrTimer : 0));
  if (!ready) return TBT_ASSERT(!reachable);
  TBT_ASSERT(to(QpState::kRts,
                kQpSqPsn | (rc ? kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic : 0)));
}

bool Host::post_send(Instant now, End& end, SendWr wr, Posted posted,
                     const engine::AddressHandle* ah) {
  posted.wr_id = wr.wr_id = next_id();
  posted.opcode = wr.opcode;
  posted.signaled = (wr.flags & kSendSignaled) != 0;
  posted.writable = wr.opcode == WrOpcode::kRdmaRead || wr.opcode == WrOpcode::kCmpSwap ||
                    wr.opcode == WrOpcode::kFetchAdd;
  // Posting to a queue pair in error completes at once, so the book comes first.
  end.sends.push_back(posted);
  if (endpoint.post_send(now, *end.qp, wr, ah)) return true;
  end.sends.pop_back();
  return false;
}

bool Host::post_receive(Instant now, End& end, const RecvWr& wr, Posted posted) {
  posted.wr_id = wr.wr_id;
  posted.writable = true;
  auto& book = from_srq(end) ? srq_receives_ : end.receives;
  book.push_back(posted);
  const Status status =
      from_srq(end) ? endpoint.post_srq_recv(now, srq, wr) : endpoint.post_recv(now, *end.qp, wr);
  if (!status) book.pop_back();
  return status.ok();
}

// What the windows open that give such a right: to this end, or to any. Those of type 2 are open to
// the end that bound them only, which is also the one that may invalidate them.
std::vector<Range> Host::opened(uint32_t access, const End* end) {
  std::vector<Range> result;
  for (uint32_t i = 0; i < kWindows; ++i) {
    const verbs::MemoryRegion* const window = endpoint.regions().find(window_key(i));
    if (window == nullptr || (window->access & access) == 0) continue;
    TBT_ASSERT(memory.live(Area::kWindowed));  // a region with windows on it stays
    const Range all = memory.range(Area::kWindowed), range = memory.range(*window);
    TBT_ASSERT(range.begin >= all.begin && range.begin + range.bytes <= all.begin + all.bytes);
    const bool second = i != 0;
    const bool mine = end == nullptr || !second ||
                      endpoint.regions().may_invalidate(window_key(i), {&pd, end->qp->number});
    if (mine) result.push_back(range);
  }
  return result;
}

// What this packet may change: the data of its queue pair's requests while their key lives, and the
// open area and what windows open if the queue pair lets peers write.
std::vector<Range> Host::writable_by(const Packet& packet) {
  std::vector<Range> result;
  for (const End& end : ends) {
    if (end.qp == nullptr || end.qp->number != packet.headers.dest_qp) continue;
    const auto add = [&](const std::deque<Posted>& book) {
      for (const Posted& posted : book) {
        const bool valid = memory.live(posted.area) && posted.lkey == memory.key(posted.area);
        if (!posted.writable || !valid) continue;
        if (posted.area == Area::kLocal) result.push_back(memory.slot(posted.slot));
        if (posted.area == Area::kOpen) result.push_back(memory.range(Area::kOpen));
      }
    };
    add(end.sends);
    add(end.receives);
    if (from_srq(end)) add(srq_receives_);
    constexpr uint32_t kChange = kAccessRemoteWrite | kAccessRemoteAtomic;
    if (end.type == QpType::kUd || (end.qp->attr.access_flags & kChange) == 0) continue;
    if (memory.live(Area::kOpen)) result.push_back(memory.range(Area::kOpen));
    for (const Range& range : opened(kChange, &end)) result.push_back(range);
  }
  return result;
}

void Host::deliver(Instant now, const Packet& packet) {
  // Through bytes, so that the engine sees what the parser lets pass and nothing else.
  std::array<std::byte, wire::kMaxHeaderBytes> bytes{};
  const auto payload_bytes = static_cast<uint32_t>(packet.payload.size());
  const size_t used = wire::encode_headers(packet.headers, payload_bytes, bytes);
  const size_t whole = used + ((packet.payload.size() + 3) & ~size_t{3});
  wire::ParsedPacket parsed;
  TBT_ASSERT(wire::parse_packet(std::span(bytes).first(used), whole, parsed) ==
             wire::ParseError::kNone);
  const std::vector<Range> writable = writable_by(packet);
  endpoint.handle_packet(now, 0, parsed, packet.payload);
  ++delivered_;
  memory.settle(writable);
}

bool Host::transmit(Instant now, Packet& packet) {
  engine::TxPacket sent;
  const std::vector<Range> readable = opened(kAccessRemoteRead, nullptr);
  if (!endpoint.poll_transmit(now, 0, sent)) return false;
  ++transmitted_;
  packet.headers = sent.headers;
  packet.payload.clear();
  const bool response = sent.headers.is(wire::kOpResponse);
  for (uint32_t i = 0; i < sent.pieces; ++i) {
    memory.check_source(sent.payload[i], response, !response && sent.pieces == 1,
                        readable);
    packet.payload.insert(packet.payload.end(), sent.payload[i].begin(), sent.payload[i].end());
  }
  TBT_ASSERT(packet.payload.size() == sent.payload_bytes);
  TBT_ASSERT(sent.payload_bytes <= limits::kMtuBytesMax);
  return true;
}

void Host::time_passes(Instant now) { endpoint.handle_timeout(now); }

void Host::poll() {
  Wc wc;
  while (cq.pop({&wc, 1}) == 1) check_completion(wc);
  while (small_cq.pop({&wc, 1}) == 1) check_completion(wc);
  engine::Event event;
  while (endpoint.poll_event(event)) {
    const bool known = std::ranges::any_of(
        ends, [&](const End& end) { return static_cast<const void*>(&end) == event.object; });
    TBT_ASSERT(known || event.object == nullptr);
  }
}

void Host::check_completion(const Wc& wc) {
  const auto end = std::ranges::find_if(
      ends, [&](const End& e) { return e.qp != nullptr && e.qp->number == wc.qp_num; });
  TBT_ASSERT(end != ends.end());
  const auto is = [&](const Posted& posted) { return posted.wr_id == wc.wr_id; };
  if (std::ranges::any_of(end->sends, is)) return check_send(*end, wc);
  check_receive(*end, wc);
}

void Host::check_send(End& end, const Wc& wc) {
  // Unsignaled requests before this one are done too.
  while (end.sends.front().wr_id != wc.wr_id) {
    TBT_ASSERT(!end.sends.front().signaled || lossy(end));
    end.sends.pop_front();
  }
  const Posted posted = end.sends.front();
  end.sends.pop_front();
  TBT_ASSERT(send_status_allowed(end.type, posted.opcode, wc.status));
  if (wc.status == WcStatus::kSuccess) {
    TBT_ASSERT(posted.signaled && !end.send_failed);
    return;
  }
  TBT_ASSERT(!end.send_failed || wc.status == WcStatus::kWrFlush);
  end.send_failed = true;
}

void Host::check_receive(End& end, const Wc& wc) {
  auto& book = from_srq(end) ? srq_receives_ : end.receives;
  const auto found =
      std::ranges::find_if(book, [&](const Posted& posted) { return posted.wr_id == wc.wr_id; });
  TBT_ASSERT(found != book.end());  // never posted, or completed before
  TBT_ASSERT(from_srq(end) || found == book.begin() || lossy(end));
  TBT_ASSERT(receive_status_allowed(wc.status));
  if (wc.status == WcStatus::kSuccess && wc.opcode == WcOpcode::kRecv)
    TBT_ASSERT(wc.byte_len <= found->capacity);
  // Whoever resets a queue pair loses what it had taken from its SRQ.
  book.erase(from_srq(end) ? found : book.begin(), found + 1);
}

void Host::check() {
  memory.settle({});
  for (End& end : ends) {
    if (end.qp != nullptr) check_queue_pair(*end.qp);
  }
  const engine::Stats& stats = endpoint.stats();
  TBT_ASSERT(stats.rx_packets == delivered_ && stats.tx_packets == transmitted_);
  const uint64_t refused = stats.rx_unknown_qp + stats.rx_wrong_peer + stats.rx_wrong_service +
                           stats.rx_wrong_state + stats.rx_bad_qkey + stats.rx_ud_no_receive +
                           stats.rx_ud_too_long + stats.rx_duplicates + stats.rx_out_of_sequence +
                           stats.rx_ghost_acks + stats.rx_stale_responses;
  TBT_ASSERT(refused <= delivered_ && stats.rx_kept_early <= stats.rx_out_of_sequence);
}

void Host::check_all_flushed() const {
  for (const End& end : ends) {
    if (lossy(end)) continue;
    TBT_ASSERT(end.receives.empty());
    for (const Posted& posted : end.sends) TBT_ASSERT(!posted.signaled);
  }
}

}  // namespace tbt::fuzz
