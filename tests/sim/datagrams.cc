#include "tests/sim/datagrams.h"

#include <algorithm>

#include "base/bytes.h"
#include "tests/sim/pattern.h"

namespace tbt::sim {

namespace {

constexpr uint32_t kQkey = 0x1234567;
constexpr uint32_t kNumber = (1u << 18) + 5;  // the same on each host

constexpr uint64_t kReceiveId = uint64_t{1} << 48;  // of a receive's wr_id

}  // namespace

Datagrams::Datagrams(const std::vector<std::unique_ptr<Node>>& nodes,
                     const DatagramOptions& options, Rng rng, Saboteur& saboteur)
    : options_(options), rng_(rng), saboteur_(saboteur), hosts_(nodes.size()) {
  for (uint32_t i = 0; i < hosts_.size(); ++i) {
    Host& host = hosts_[i];
    host.index = i;
    host.node = nodes[i].get();
    host.last_id.assign(nodes.size(), 0);
    host.cq =
        std::make_unique<verbs::CompletionQueue>(kSends + kReceives, static_cast<Sleeper*>(&host));
    for (auto& slot : host.send_slots) slot = host.node->carve(limits::kMtuBytesMax);
    for (auto& slot : host.receive_slots) slot = host.node->carve(kSlotBytes);
    open(host, kNumber + i);
  }
  datagrams_.push_back({});  // ids begin at 1
}

void Datagrams::open(Host& host, uint32_t number) {
  engine::QpConfig config;
  config.number = number;
  config.type = QpType::kUd;
  config.caps = {kSends, kReceives, 2, 1, 64};
  config.pd = &host.node->pd;
  config.send_cq = config.recv_cq = host.cq.get();
  config.sq_sig_all = true;
  config.user = static_cast<Sleeper*>(&host);
  host.qp = *host.node->endpoint.create_qp(config);
  host.node->adopt(*host.qp);
  QpAttr attr;
  attr.port_num = 1;
  attr.qkey = kQkey;
  attr.sq_psn = rng_.below(1 << 24);
  const uint32_t masks[] = {kQpState | kQpPkeyIndex | kQpPort | kQpQkey, kQpState,
                            kQpState | kQpSqPsn};
  const QpState states[] = {QpState::kInit, QpState::kRtr, QpState::kRts};
  for (size_t i = 0; i < 3; ++i) {
    attr.qp_state = states[i];
    if (!host.node->endpoint.modify_qp(Instant{0}, *host.qp, attr, masks[i]))
      fail(host, Checker::kStatus, "modify_qp was refused");
  }
}

void Datagrams::fail(const Host& host, Checker checker, const std::string& text) {
  failure_.note(checker, "datagrams of host " + std::to_string(host.index) + ": " + text);
}

void Datagrams::post_receives(Instant now, Host& host) {
  while (host.receives.size() < kReceives) {
    uint32_t slot = 0;
    while (std::ranges::count(host.receives, slot) != 0) ++slot;
    const Sge sge{reinterpret_cast<uint64_t>(host.receive_slots[slot]), kSlotBytes, host.node->key};
    if (!host.node->endpoint.post_recv(now, *host.qp, {kReceiveId | slot, &sge, 1}))
      return fail(host, Checker::kSlots, "no place for a receive though one was given back");
    host.receives.push_back(slot);
  }
}

void Datagrams::post_send(Instant now, Host& host) {
  if (host.sent.size() == kSends) return;
  Datagram datagram;
  datagram.from = host.index;
  const auto others = static_cast<uint32_t>(hosts_.size()) - 1;
  datagram.to = (host.index + 1 + rng_.below(others)) % static_cast<uint32_t>(hosts_.size());
  datagram.length = rng_.below(16) == 0 ? limits::kMtuBytesMax : 8 + rng_.below(600);
  datagram.has_imm = rng_.below(2) == 0;
  datagram.imm = static_cast<uint32_t>(rng_.next());
  datagram.wrong_key = rng_.below(16) == 0;
  const uint64_t id = datagrams_.size();
  std::byte* data = host.send_slots[host.next_send % kSends];
  fill(data, id, datagram.length);
  const Host& peer = hosts_[datagram.to];
  engine::AddressHandle ah;
  ah.pd = &host.node->pd;
  ah.path = host.node->path_to(peer.node->lid());
  ah.has_path = true;
  const Sge sge{reinterpret_cast<uint64_t>(data), datagram.length, host.node->key};
  SendWr wr;
  wr.wr_id = host.next_send++;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = datagram.has_imm ? WrOpcode::kSendImm : WrOpcode::kSend;
  wr.imm_be = datagram.imm;
  wr.remote_qpn = peer.qp->number;
  wr.remote_qkey = datagram.wrong_key ? kQkey + 1 : kQkey;
  if (!host.node->endpoint.post_send(now, *host.qp, wr, &ah))
    return fail(host, Checker::kSlots, "no place for a send though one was given back");
  host.sent.push_back(wr.wr_id);
  datagrams_.push_back(datagram);
}

void Datagrams::poll(Host& host) {
  Wc wcs[9];
  uint32_t count = host.cq->pop(std::span(wcs).first(8));
  count = saboteur_.on_poll(nullptr, wcs, count);
  for (uint32_t i = 0; i < count; ++i) check(host, wcs[i]);
}

void Datagrams::check(Host& host, const Wc& wc) {
  if (wc.status != WcStatus::kSuccess)
    return fail(host, Checker::kStatus, wc_status_name(wc.status));
  if (wc.qp_num != host.qp->number) return fail(host, Checker::kFields, "QPN of a completion");
  if ((wc.wr_id & kReceiveId) == 0) {
    if (host.sent.empty() || host.sent.front() != wc.wr_id || wc.opcode != WcOpcode::kSend)
      return fail(host, Checker::kOrder, "send completion out of order, twice or never posted");
    return host.sent.pop_front();
  }
  if (host.receives.empty() || (kReceiveId | host.receives.front()) != wc.wr_id)
    return fail(host, Checker::kOrder, "receive completion out of order, twice or never posted");
  const uint32_t slot = host.receives.front();
  host.receives.pop_front();
  check_receive(host, wc, slot);
}

void Datagrams::check_receive(Host& host, const Wc& wc, uint32_t slot) {
  constexpr uint32_t kGrh = 40;
  const std::byte* data = host.receive_slots[slot] + kGrh;
  const auto id = base::load<uint64_t>(data);
  if (id == 0 || id >= datagrams_.size())
    return fail(host, Checker::kPayload, "a datagram that nobody sent");
  Datagram& datagram = datagrams_[id];
  const Host& from = hosts_[datagram.from];
  if (datagram.to != host.index || datagram.wrong_key)
    return fail(host, Checker::kDelivery, "a datagram that was not for this queue pair");
  if (wc.byte_len != kGrh + datagram.length) return fail(host, Checker::kFields, "byte_len");
  if (wc.opcode != WcOpcode::kRecv || wc.src_qp != from.qp->number || wc.slid != from.node->lid())
    return fail(host, Checker::kFields, "opcode or source of a datagram");
  if (wc.flags != (datagram.has_imm ? uint32_t{kWcWithImm} : 0) ||
      (datagram.has_imm && wc.imm_be != datagram.imm))
    return fail(host, Checker::kFields, "immediate");
  if (!holds(data, id, datagram.length)) return fail(host, Checker::kPayload, "datagram bytes");
  if (++datagram.times > 1 && options_.once)
    return fail(host, Checker::kDelivery, "a datagram was delivered twice");
  if (options_.in_order && host.last_id[datagram.from] > id)
    return fail(host, Checker::kOrder, "datagrams out of order");
  host.last_id[datagram.from] = id;
  ++delivered_;
}

void Datagrams::act(Instant now, bool new_work) {
  for (Host& host : hosts_) {
    if (host.access_error || host.other_error) fail(host, Checker::kStatus, "asynchronous error");
    if (!new_work || rng_.below(4) == 0) post_receives(now, host);
    if (new_work) {
      for (uint32_t n = rng_.below(3); n > 0; --n) post_send(now, host);
    }
    if (!new_work || rng_.below(2) == 0) poll(host);
  }
}

bool Datagrams::quiet() const {
  return std::ranges::all_of(
      hosts_, [](const Host& host) { return host.sent.empty() && host.cq->queued() == 0; });
}

void Datagrams::check_end() {
  for (Host& host : hosts_) {
    if (host.qp->rq.posted() + (host.qp->resp.have_receive ? 1 : 0) != host.receives.size())
      fail(host, Checker::kSlots, "the receive queue lost or invented receives");
    if (!options_.lossless) continue;
    uint64_t sent = 0;
    uint64_t here = 0;
    for (const Datagram& datagram : datagrams_) {
      if (datagram.to != host.index || datagram.length == 0) continue;
      ++sent;
      here += datagram.times;
    }
    const engine::Stats& stats = host.node->endpoint.stats();
    if (sent != here + stats.rx_ud_no_receive + stats.rx_bad_qkey)
      fail(host, Checker::kDelivery, "a datagram was neither delivered nor counted as dropped");
  }
}

std::string Datagrams::describe() const {
  std::string text = std::to_string(datagrams_.size() - 1) + " datagrams";
  for (const Host& host : hosts_) {
    text += "; host " + std::to_string(host.index) + " " + qp_state_name(host.qp->state) +
            " sent " + std::to_string(host.sent.size()) + " queued " +
            std::to_string(host.cq->queued()) + " rail " + std::to_string(host.qp->ready_rail) +
            (host.qp->ready ? " ready" : "");
  }
  return text;
}

}  // namespace tbt::sim
