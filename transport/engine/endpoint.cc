// Endpoint: creation and modification of queue pairs, the way of a packet in, and whose turn it is
// to send.
#include "engine/endpoint.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/assert.h"
#include "engine/core.h"
#include "verbs/qp_state.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

bool caps_allowed(const QpCaps& caps) noexcept {
  return caps.max_send_wr <= limits::kMaxQpWr && caps.max_recv_wr <= limits::kMaxQpWr &&
         caps.max_send_sge <= limits::kMaxSge && caps.max_recv_sge <= limits::kMaxSge &&
         caps.max_inline_data <= limits::kMaxInline;
}

QpCaps grant(const QpConfig& config) noexcept {
  QpCaps caps = config.caps;
  if (config.srq != nullptr || config.type == QpType::kXrcSend)
    caps.max_recv_wr = caps.max_recv_sge = 0;
  return config.type == QpType::kXrcRecv ? QpCaps{} : caps;
}

// What a queue pair of XRC lacks is replaced by something that is never used.
QpConfig complete(Core& core, QpConfig config) noexcept {
  if (config.type == QpType::kXrcSend) {
    config.recv_cq = &core.no_queue;
    config.srq = nullptr;
  } else if (config.type == QpType::kXrcRecv) {
    config.pd = &core.no_domain;
    config.send_cq = config.recv_cq = &core.no_queue;
    config.srq = &core.no_srq;
  }
  return config;
}

void reset(QueuePair& qp) noexcept {
  qp.send_cq->purge(&qp);
  qp.recv_cq->purge(&qp);
  qp.sq.clear();
  qp.rq.clear();
  qp.req = RequesterState{};
  auto sges = std::move(qp.resp.receive.sges);
  qp.resp = ResponderState{};
  qp.resp.receive.sges = std::move(sges);
  qp.uc = UcCreditState{};
  qp.state = QpState::kReset;
  qp.lost_deadline = Instant::never();
  qp.has_path = qp.established = qp.draining = qp.closing = false;
  const QpCaps caps = qp.attr.cap;
  qp.attr = QpAttr{};
  qp.attr.cap = caps;
}

// Copies the attributes that the mask names.
void take_attributes(QueuePair& qp, const QpAttr& attr, uint32_t mask) {
  QpAttr& mine = qp.attr;
  if (mask & kQpEnSqdAsyncNotify) mine.en_sqd_async_notify = attr.en_sqd_async_notify;
  if (mask & kQpAccessFlags) mine.access_flags = attr.access_flags;
  if (mask & kQpPkeyIndex) mine.pkey_index = attr.pkey_index;
  if (mask & kQpPort) mine.port_num = attr.port_num;
  if (mask & kQpQkey) mine.qkey = attr.qkey;
  if (mask & kQpAv) mine.av = attr.av;
  if (mask & kQpPathMtu) mine.path_mtu = attr.path_mtu;
  if (mask & kQpTimeout) mine.timeout = attr.timeout;
  if (mask & kQpRetryCnt) mine.retry_cnt = attr.retry_cnt;
  if (mask & kQpRnrRetry) mine.rnr_retry = attr.rnr_retry;
  if (mask & kQpRqPsn) mine.rq_psn = attr.rq_psn & wire::kPsnMask;
  if (mask & kQpMaxQpRdAtomic) mine.max_rd_atomic = attr.max_rd_atomic;
  if (mask & kQpMinRnrTimer) mine.min_rnr_timer = attr.min_rnr_timer;
  if (mask & kQpSqPsn) mine.sq_psn = attr.sq_psn & wire::kPsnMask;
  if (mask & kQpMaxDestRdAtomic) mine.max_dest_rd_atomic = attr.max_dest_rd_atomic;
  if (mask & kQpDestQpn) mine.dest_qpn = attr.dest_qpn;
}

// `resources`: as many as the peer may have READs and atomics that are not done.
void start_receiving(QueuePair& qp, std::vector<Resource> resources) noexcept {
  qp.mtu = qp.type == QpType::kUd ? limits::kMtuBytesMax : mtu_bytes(qp.attr.path_mtu);
  qp.resp.expected_psn = qp.attr.rq_psn;
  qp.resp.resources = std::move(resources);
}

void start_sending(const Core& core, QueuePair& qp,
                   std::unique_ptr<Repetitions> repetitions) noexcept {
  RequesterState& req = qp.req;
  req.window = core.options.window_packets;
  req.send_psn = req.next_psn = req.una_psn = req.sent_end = qp.attr.sq_psn;
  req.requests_to = req.answers_to = req.oldest_mark = req.loss_mark = qp.attr.sq_psn;
  req.repetitions = std::move(repetitions);
  req.retries_left = qp.attr.retry_cnt;
  req.rnr_retries_left = qp.attr.rnr_retry;
}

// Which headers say "from the peer of this connection" (C-076).
bool from_peer(const QueuePair& qp, const wire::PacketHeaders& headers) noexcept {
  return qp.has_path && headers.slid == qp.path.dlid && headers.dlid == qp.path.slid;
}

constexpr uint8_t kServiceBits = 0xe0;  // of an opcode

void set_path(Core& core, QueuePair& qp, const verbs::Path& path) noexcept {
  qp.path = path;
  qp.has_path = true;
  if (qp.ready_rail == path.rail) return;
  if (qp.ready) core.ready[qp.ready_rail].remove(qp);
  qp.ready_rail = path.rail;
  core.make_ready(qp);
}

// The peer process, or the last way to it, is gone: everything outstanding ends with the cause.
void lose_peer(Core& core, QueuePair& qp, uint32_t vendor) {
  if (!qp.may_receive()) return;
  if (!qp.sq.empty()) complete_send(core, qp, WcStatus::kRetryExc, vendor);
  enter_error(core, qp);
  core.raise(AsyncEventType::kQpFatal, qp.user);
}

// Nobody is left at the other end. After a farewell the application still has its grace.
void lose_process(Core& core, QueuePair& qp) {
  if (!qp.req.peer_gone) return lose_peer(core, qp, kVendorPeerProcess);
  qp.lost_deadline = core.now + core.options.farewell_grace;
  core.deadlines.update(qp, qp.deadline());
}

bool leads_to(const QueuePair& qp, std::span<const uint16_t> lids) noexcept {
  return qp.connected() && qp.has_path && std::ranges::count(lids, qp.path.dlid) != 0;
}

void handle_reset(Core& core, QueuePair& qp, const wire::PacketHeaders& headers) {
  if (!qp.connected() || headers.src_qp != qp.attr.dest_qpn || qp.req.peer_gone) return;
  qp.req.peer_gone = true;
  if (qp.reliable && qp.may_send() && has_outstanding(qp)) {
    qp.req.rnr_waiting = false;
    qp.req.rnr_deadline = Instant::never();
    arm_ack_timer(core, qp);
  }
  if (qp.uc.waiting) {
    qp.uc.request_deadline = core.now + core.options.farewell_grace;
    core.deadlines.update(qp, qp.deadline());
  }
}

// Somebody talks to a queue pair that is not here. Only what names its sender can be answered.
void answer_stray(Core& core, uint32_t rail, const wire::PacketHeaders& headers) {
  ++core.stats.rx_unknown_qp;
  if (headers.opcode != static_cast<uint8_t>(wire::Opcode::kUcCreditRequest)) return;
  if (core.now - core.stray_window > Duration::from_ms(1)) {
    core.stray_window = core.now;
    core.strays_answered = 0;
  }
  if (++core.strays_answered > core.options.stray_replies_per_ms) return;
  verbs::Path path;
  path.rail = static_cast<uint8_t>(rail);
  path.dlid = headers.slid;
  path.slid = headers.dlid;
  Core::Orphan orphan{rail, {}};
  address_packet(path, headers.src_qp, wire::Opcode::kQpReset, orphan.headers);
  orphan.headers.src_qp = headers.dest_qp;
  // The farewells of our own have their room.
  if (core.orphans.size() + core.qps.size() >= core.orphans.capacity()) {
    try {
      core.orphans.reserve(2 * (core.orphans.size() + core.qps.size() + 1));
    } catch (const std::bad_alloc&) {
      return;
    }
  }
  core.orphans.push_back(orphan);
  ++core.stats.resets_sent;
}

void dispatch(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
              std::span<const std::byte> payload) {
  const wire::PacketHeaders& headers = packet.headers;
  if (headers.is(wire::kOpControl)) {
    if (!from_peer(qp, headers)) return void(++core.stats.rx_wrong_peer);
    if (headers.opcode == static_cast<uint8_t>(wire::Opcode::kQpReset))
      return handle_reset(core, qp, headers);
    if (headers.opcode == static_cast<uint8_t>(wire::Opcode::kRcSack)) {
      if (!qp.reliable) return void(++core.stats.rx_wrong_service);
      if (!qp.may_send()) return void(++core.stats.rx_wrong_state);
      return handle_response(core, qp, packet, payload);
    }
    return handle_uc_control(core, qp, headers);
  }
  if ((headers.opcode & kServiceBits) != qp.opcode_base) return void(++core.stats.rx_wrong_service);
  if (qp.connected() && !from_peer(qp, headers)) return void(++core.stats.rx_wrong_peer);
  const bool response = headers.is(wire::kOpResponse);
  if (!response && qp.state == QpState::kErr && qp.resp.refused) return repeat_refusal(core, qp);
  if (response ? !qp.may_send() : !qp.may_receive()) return void(++core.stats.rx_wrong_state);
  if (response) return handle_response(core, qp, packet, payload);
  if (qp.state == QpState::kRtr && !qp.established) {
    qp.established = true;
    core.raise(AsyncEventType::kCommEst, qp.user);
  }
  if (qp.type == QpType::kRc) return handle_rc_request(core, qp, packet, payload);
  if (qp.type == QpType::kUc) return handle_uc_request(core, qp, packet, payload);
  if (qp.type == QpType::kUd) return handle_datagram(core, qp, packet, payload);
  handle_xrc_request(core, qp, packet, payload);
}

bool next_packet(Core& core, QueuePair& qp, TxPacket& packet) {
  if (qp.type == QpType::kUd) return next_datagram(core, qp, packet);
  const bool alive = qp.may_receive() || qp.closing;
  if (qp.reliable && alive && qp.has_path && next_response(core, qp, packet)) return true;
  if (qp.type == QpType::kUc && next_uc_control(core, qp, packet)) return true;
  if (next_request(core, qp, packet)) return true;
  return qp.type == QpType::kUc &&
         next_uc_control(core, qp, packet);  // the request may have found no credit
}

bool next_orphan(Core& core, uint32_t rail, TxPacket& packet) {
  const auto orphan = std::ranges::find(core.orphans, rail, &Core::Orphan::rail);
  if (orphan == core.orphans.end()) return false;
  packet.headers = orphan->headers;
  packet.pieces = 0;
  packet.payload_bytes = 0;
  core.orphans.erase(orphan);
  ++core.stats.tx_packets;
  return true;
}

}  // namespace

void address_packet(const verbs::Path& path, uint32_t dest_qp, wire::Opcode opcode,
                    wire::PacketHeaders& headers) noexcept {
  headers.sl = path.sl;
  headers.dlid = path.dlid;
  headers.slid = path.slid;
  headers.has_grh = path.has_grh;
  if (path.has_grh) {
    headers.grh = {path.traffic_class, path.flow_label, path.hop_limit, path.sgid.raw,
                   path.dgid.raw};
  }
  headers.opcode = static_cast<uint8_t>(opcode);
  headers.solicited = false;
  headers.ack_req = false;
  headers.dest_qp = dest_qp;
}

void send_reset(Core& core, const QueuePair& qp) {
  Core::Orphan orphan{qp.path.rail, {}};
  address_packet(qp.path, qp.attr.dest_qpn, wire::Opcode::kQpReset, orphan.headers);
  orphan.headers.src_qp = qp.number;
  core.orphans.push_back(orphan);
  ++core.stats.resets_sent;
}

Endpoint::Endpoint(const Options& options, const Router& router, Rng rng)
    : core_(std::make_unique<Core>(options, router, rng)) {}
Endpoint::~Endpoint() = default;

verbs::MrTable& Endpoint::regions() noexcept { return core_->regions; }
bool Endpoint::free_number(uint32_t number) const noexcept { return !core_->qps.occupied(number); }
const verbs::MemoryRegion* Endpoint::register_memory(const verbs::MemoryRegion& region) {
  return core_->regions.insert(region, core_->rng);
}
uint32_t Endpoint::add_window(MwType type, verbs::ProtectionDomain* pd) {
  return core_->regions.add_window(type, pd, core_->rng);
}
const Stats& Endpoint::stats() const noexcept { return core_->stats; }
uint32_t Endpoint::queue_pairs() const noexcept { return core_->qps.size(); }
bool Endpoint::has_farewells() const noexcept { return !core_->orphans.empty(); }
bool Endpoint::owes_answer(const QueuePair& qp) noexcept {
  const bool alive = qp.may_receive() || qp.closing;
  return qp.reliable && alive && qp.has_path && owes_response(qp);
}
Instant Endpoint::next_deadline() const noexcept {
  return std::min(core_->deadlines.next(), core_->probes.next());
}
Instant Endpoint::next_strict_deadline() const noexcept { return core_->deadlines.next(); }
Instant Endpoint::last_loss() const noexcept { return core_->last_loss; }

Result<QueuePair*> Endpoint::create_qp(const QpConfig& wanted) {
  const QpConfig config = complete(*core_, wanted);
  if (config.type == QpType::kXrcRecv && config.xrcd == nullptr)
    return Status(EINVAL, "an XRC domain is missing");
  if (!caps_allowed(config.caps))
    return Status(EINVAL, "a queue pair capability exceeds the device's limit");
  if (config.send_cq == nullptr || config.recv_cq == nullptr)
    return Status(EINVAL, "a completion queue is missing");
  if (core_->qps.size() >= limits::kMaxQp) return Status(ENOMEM, "no queue pair left");
  TBT_ASSERT(free_number(config.number));
  core_->make_room_for_pair();
  auto qp = std::make_unique<QueuePair>(grant(config), config.type);
  qp->number = config.number;
  qp->port = config.port;
  qp->sq_sig_all = config.sq_sig_all;
  qp->pd = config.pd;
  qp->send_cq = config.send_cq;
  qp->recv_cq = config.recv_cq;
  qp->srq = config.srq;
  qp->xrcd = config.xrcd;
  qp->user = config.user;
  qp->resp.receive.sges.resize(config.type == QpType::kXrcRecv ? limits::kMaxSge
                               : config.srq != nullptr         ? config.srq->queue.max_sge()
                                                               : config.caps.max_recv_sge);
  ++config.pd->users;
  ++config.send_cq->users;
  ++config.recv_cq->users;
  if (config.srq != nullptr) ++config.srq->users;
  if (config.srq != nullptr && config.type == QpType::kUc) config.srq->add(*qp);
  return &core_->qps.insert(std::move(qp));
}

void Endpoint::destroy_qp(Instant now, QueuePair& qp) {
  core_->now = now;
  if (qp.connected() && qp.has_path && qp.state != QpState::kErr) send_reset(*core_, qp);
  if (qp.ready) core_->ready[qp.ready_rail].remove(qp);
  if (qp.type == QpType::kXrcRecv) leave_srqs(*core_, qp);
  qp.send_cq->purge(&qp);
  qp.recv_cq->purge(&qp);
  --qp.pd->users;
  --qp.send_cq->users;
  --qp.recv_cq->users;
  if (qp.srq != nullptr) --qp.srq->users;
  verbs::SharedReceiveQueue::remove(qp);
  core_->regions.unbind_all_of(qp.number);
  core_->qps.erase(qp);
}

Status Endpoint::modify_qp(Instant now, QueuePair& qp, const QpAttr& attr, uint32_t mask) {
  Core& core = *core_;
  core.now = now;
  if (Status status = verbs::check_modify(qp.type, qp.state, attr, mask); !status) return status;
  const QpState target = verbs::target_state(qp.state, attr, mask);
  if (qp.state == QpState::kSqd && target == QpState::kRts && qp.draining) {
    return Status(EINVAL, "the send queue is still draining");
  }
  std::optional<verbs::Path> path;
  if ((mask & kQpAv) != 0) {
    path = core.router.resolve(qp.port, attr.av, qp.number);
    if (!path) return Status(ENETUNREACH, "no peer has the address of the address vector");
  }
  if (target == QpState::kReset) {
    if (qp.type == QpType::kXrcRecv) leave_srqs(core, qp);
    reset(qp);
    core.regions.unbind_all_of(qp.number);
    return {};
  }
  const bool to_receive = qp.state == QpState::kInit && target == QpState::kRtr;
  const bool to_send = qp.state == QpState::kRtr && target == QpState::kRts;
  // Before anything is changed: this may throw.
  std::vector<Resource> resources;
  std::unique_ptr<Repetitions> repetitions;
  if (to_send && qp.reliable) repetitions = std::make_unique<Repetitions>();
  if (to_receive) {
    const bool told = (mask & kQpMaxDestRdAtomic) != 0;
    const uint32_t agreed = told ? attr.max_dest_rd_atomic : qp.attr.max_dest_rd_atomic;
    if (agreed != 0) resources.resize(std::bit_ceil(kAnswersPerAgreed * agreed));
  }
  take_attributes(qp, attr, mask);
  if (target == QpState::kErr) {
    enter_error(core, qp);
    return {};
  }
  const QpState before = std::exchange(qp.state, target);
  if (path) set_path(core, qp, *path);
  if (to_receive) start_receiving(qp, std::move(resources));
  if (to_send) start_sending(core, qp, std::move(repetitions));
  if (before == QpState::kRts && target == QpState::kSqd) {
    qp.draining = true;
    check_drained(core, qp);
  }
  core.make_ready(qp);
  return {};
}

void Endpoint::moderate(Instant now, verbs::CompletionQueue& cq, uint32_t count, Duration period) {
  core_->now = now;
  cq.moderate(count, period);
  tell_put_off(*core_, cq);
}

void Endpoint::forget(verbs::CompletionQueue& cq) noexcept { std::erase(core_->put_off, &cq); }

void Endpoint::handle_packet(Instant now, uint32_t rail, const wire::ParsedPacket& packet,
                             std::span<const std::byte> payload) {
  core_->now = now;
  ++core_->stats.rx_packets;
  QueuePair* qp = core_->qps.find(packet.headers.dest_qp);
  if (qp == nullptr) return answer_stray(*core_, rail, packet.headers);
  dispatch(*core_, *qp, packet, payload);
}

bool Endpoint::handle_timeout(Instant now) {
  Core& core = *core_;
  core.now = now;
  bool ran_out = false;
  while (const uint32_t number = core.deadlines.pop_due(now)) {
    if (number == kModerationTimer) {
      handle_moderation_timer(core);
      ran_out = true;
      continue;
    }
    QueuePair* qp = core.qps.find(number);
    if (qp == nullptr) continue;
    qp->deadline_queued = Instant::never();
    ran_out |= qp->deadline() <= now;
    handle_requester_timers(core, *qp);
    handle_uc_timer(core, *qp);
    if (qp->lost_deadline <= now) {
      qp->lost_deadline = Instant::never();
      lose_peer(core, *qp, kVendorPeerProcess);
    }
    core.deadlines.update(*qp, qp->deadline());
  }
  while (const uint32_t number = core.probes.pop_due(now)) {
    QueuePair* qp = core.qps.find(number);
    if (qp == nullptr) continue;
    qp->probe_queued = Instant::never();
    ran_out |= qp->req.probe_deadline <= now;
    handle_probe_timeout(core, *qp);
  }
  return ran_out;
}

void Endpoint::handle_routes_changed(Instant now) {
  Core& core = *core_;
  core.now = now;
  core.qps.for_each([&](QueuePair& qp) {
    if (!qp.has_path || qp.type == QpType::kUd) return;
    if (auto path = core.router.resolve(qp.port, qp.attr.av, qp.number)) {
      set_path(core, qp, *path);
    } else if (!core.router.lasts(qp.path)) {
      lose_peer(core, qp, kVendorLinkDown);
    }  // else its own timers decide
  });
}

void Endpoint::handle_process_gone(Instant now, const GoneProcess& gone) {
  Core& core = *core_;
  core.now = now;
  core.qps.for_each([&](QueuePair& qp) {
    const uint32_t local = qp.attr.dest_qpn & 0x3ffff;
    const bool its = qp.attr.dest_qpn >> 18 == gone.slot &&
                     ((local - gone.first) & 0x3ffff) < gone.count && leads_to(qp, gone.lids);
    if (its) lose_process(core, qp);
  });
}

void Endpoint::handle_host_gone(Instant now, std::span<const uint16_t> lids) {
  Core& core = *core_;
  core.now = now;
  core.qps.for_each([&](QueuePair& qp) {
    if (leads_to(qp, lids)) lose_process(core, qp);
  });
}

bool Endpoint::has_transmit(uint32_t rail) const noexcept {
  if (!core_->ready[rail].empty()) return true;
  return std::ranges::any_of(core_->orphans,
                             [rail](const Core::Orphan& orphan) { return orphan.rail == rail; });
}

// Farewells go first: they are few, and a full ring must not keep a process from ending.
bool Endpoint::poll_transmit(Instant now, uint32_t rail, TxPacket& packet) {
  Core& core = *core_;
  core.now = now;
  packet.dma = 0;
  if (!core.orphans.empty() && next_orphan(core, rail, packet)) return true;
  ReadyList& list = core.ready[rail];
  while (QueuePair* qp = list.front()) {
    if (core.turn[rail] < core.options.packets_per_turn) {
      packet.dma = 0;
      if (next_packet(core, *qp, packet)) {
        ++core.turn[rail];
        ++core.stats.tx_packets;
        return true;
      }
      list.pop();
      if (qp->ready_rail != rail) core.make_ready(*qp);  // a datagram for another rail
    } else {
      list.rotate();
    }
    core.turn[rail] = 0;
  }
  return false;
}

bool Endpoint::poll_event(Event& event) {
  Core& core = *core_;
  if (verbs::CompletionQueue* cq = core.notify_head) {
    core.notify_head = cq->notify_next;
    cq->notify_queued = false;
    event = {Event::Kind::kCompletion, {}, cq->user()};
    return true;
  }
  if (core.events_taken == core.events.size()) {
    core.events.clear();
    core.events_taken = 0;
    return false;
  }
  event = core.events[core.events_taken++];
  return true;
}

}  // namespace tbt::engine
