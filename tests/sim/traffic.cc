#include "tests/sim/traffic.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/bytes.h"
#include "tests/sim/pattern.h"
#include "wire/psn.h"

namespace tbt::sim {

Traffic::Traffic(std::array<Node*, 2> nodes, const TrafficOptions& options, Rng rng,
                 uint32_t number, Saboteur& saboteur)
    : options_(options), rng_(rng), number_(number), saboteur_(saboteur) {
  for (uint32_t i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    side.node = nodes[i];
    side.cq =
        std::make_unique<verbs::CompletionQueue>(kSends + kReceives, static_cast<Sleeper*>(&side));
    for (auto& slot : side.send_slots) slot = side.node->carve(kMessageMax);
    for (auto& slot : side.receive_slots) slot = side.node->carve(kMessageMax);
    side.write_area = side.node->carve(kAreaBytes);
    side.read_area = side.node->carve(kAreaBytes);
    side.counter = side.node->carve(8);
    fill(side.read_area, 77 + i, kAreaBytes);
    side.write_shadow.assign(kAreaBytes, std::byte{0});
    side.unknown.assign(kAreaBytes, std::byte{0});
    if (options_.windows) make_windows(side);
    if (options_.second_keys) side.second_key = side.node->register_all();
    if (options_.by_event) side.cq->arm(false);
  }
  connect(Instant{0});
}

void Traffic::make_pair(Side& side, uint32_t number) {
  if (options_.shared_receive_queue || xrc())
    side.srq = std::make_unique<verbs::SharedReceiveQueue>(&side.node->pd, kReceives, 2, nullptr);
  engine::QpConfig config;
  config.number = number;
  config.type = options_.type;
  config.caps = {kSends, kReceives, 4, 2, 64};
  config.sq_sig_all = saboteur_.signal_all();
  config.pd = &side.node->pd;
  config.send_cq = config.recv_cq = side.cq.get();
  config.srq = side.srq.get();
  config.user = static_cast<Sleeper*>(&side);
  side.qp = side.target = *side.node->endpoint.create_qp(config);
  side.node->adopt(*side.qp);
  if (xrc()) make_target(side, number + 1);
}

// With the SRQ that the peer names: its number is that of the target.
void Traffic::make_target(Side& side, uint32_t number) {
  side.srq->number = number & 0xffff;
  side.srq->xrcd = &side.xrcd;
  side.srq->cq = side.cq.get();
  side.node->endpoint.add_xrc_srq(*side.srq);
  engine::QpConfig config;
  config.number = number;
  config.type = QpType::kXrcRecv;
  config.xrcd = &side.xrcd;
  config.user = static_cast<Sleeper*>(&side);
  side.target = *side.node->endpoint.create_qp(config);
  side.node->adopt(*side.target);
}

void Traffic::modify(Instant now, Side& side, engine::QueuePair& qp, const QpAttr& attr,
                     uint32_t mask) {
  if (!side.node->endpoint.modify_qp(now, qp, attr, mask))
    fail(side, Checker::kStatus, "modify_qp was refused");
}

void Traffic::connect(Instant now) {
  for (uint32_t i = 0; i < 2; ++i) make_pair(sides_[i], options_.numbers[i]);
  for (uint32_t i = 0; i < 2; ++i) {
    connect_pair(now, sides_[i], *sides_[i].qp, *sides_[1 - i].target);
    if (xrc()) connect_pair(now, sides_[i], *sides_[i].target, *sides_[1 - i].qp);
  }
}

void Traffic::connect_pair(Instant now, Side& side, engine::QueuePair& qp,
                           engine::QueuePair& peer) {
  const uint32_t i = &side == &sides_[0] ? 0 : 1;
  const bool rc = qp.type == QpType::kRc;
  const bool tgt = qp.type == QpType::kXrcRecv;
  const bool ini = qp.type == QpType::kXrcSend;
  QpAttr attr;
  attr.qp_state = QpState::kInit;
  attr.port_num = 1;
  attr.access_flags = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite |
                      kAccessRemoteAtomic | kAccessFlushGlobal;
  modify(now, side, qp, attr, kQpState | kQpPkeyIndex | kQpPort | kQpAccessFlags);
  attr.qp_state = QpState::kRtr;
  attr.path_mtu = options_.mtu;
  attr.dest_qpn = peer.number;
  attr.rq_psn = options_.first_psn[1 - i];
  attr.max_dest_rd_atomic = options_.rd_atomic;
  attr.min_rnr_timer = static_cast<uint8_t>(1 + rng_.below(8));
  attr.av.dlid = peer_of(side).node->lid();
  modify(now, side, qp, attr,
         kQpState | kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn |
             (rc || tgt ? kQpMaxDestRdAtomic | kQpMinRnrTimer : 0u));
  attr.qp_state = QpState::kRts;
  attr.sq_psn = options_.first_psn[i];
  attr.timeout = 8;  // about 1 ms
  attr.retry_cnt = 7;
  attr.rnr_retry = options_.rnr_retry;
  attr.max_rd_atomic = options_.rd_atomic;
  uint32_t mask = kQpState | kQpSqPsn;
  if (rc || ini || tgt) mask |= kQpTimeout;
  if (rc || ini) mask |= kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic;
  modify(now, side, qp, attr, mask);
}

void Traffic::fail(const Side& side, Checker checker, const std::string& text) {
  failure_.note(checker, "pair " + std::to_string(number_) + " side " +
                             (&side == &sides_[0] ? "0" : "1") + ": " + text);
}

// As an application that learns of its peer's failure by other means.
void Traffic::close(Instant now, Side& side) {
  QpAttr attr;
  attr.qp_state = QpState::kErr;
  modify(now, side, *side.qp, attr, kQpState);
  if (xrc()) modify(now, side, *side.target, attr, kQpState);
  side.failed = side.cause = true;
}

void Traffic::deregister(uint32_t side) {
  Side& owner = sides_[side];
  owner.second_gone = true;
  if (!saboteur_.key_lives_on()) owner.node->endpoint.regions().erase(owner.second_key);
}

// What a queue pair refused tells its owner no completion, but an event.
void Traffic::note_errors(Side& side) {
  if ((side.other_error && !peer_of(side).dead) ||
      (side.access_error && !side.second_gone && !side.offended))
    fail(side, Checker::kStatus, "asynchronous error");
  if (side.access_error) side.failed = side.cause = true;
}

uint32_t Traffic::poll_once(Side& side) {
  Wc wcs[17];
  uint32_t count = side.cq->pop(std::span(wcs).first(1 + rng_.below(16)));
  const uint32_t popped = count;
  count = saboteur_.on_poll(side.qp, wcs, count);
  for (uint32_t i = 0; i < count; ++i) check(side, wcs[i]);
  return popped;
}

// By event: armed first, then emptied, so that what comes later makes an event.
void Traffic::poll(Side& side) {
  if (!options_.by_event) return void(poll_once(side));
  if (!side.notified) return;
  side.notified = false;
  side.cq->arm(false);
  while (poll_once(side) != 0) {
  }
}

// Both sides count alike, so a sender's limit never passes what its receiver has offered. A request
// for UC credit that comes late or twice sets the receiver's count back until the next one.
void Traffic::check_credits(const Side& sender, const Side& receiver) {
  const auto& from = *sender.qp;
  auto& to = *receiver.target;
  if (from.state == QpState::kErr || to.state == QpState::kErr) return;
  if (!reliable() && !options_.in_order) return;
  const uint32_t posted = (to.srq != nullptr ? to.srq->queue.posted() : to.rq.posted()) +
                          (to.resp.have_receive ? 1 : 0);
  const bool uc = options_.type == QpType::kUc;
  const bool beyond =
      uc ? static_cast<int32_t>(from.uc.limit - (to.uc.seen + posted)) > 0
         : from.req.credits_known &&
               wire::psn_diff(from.req.credit_limit, wire::psn_add(to.resp.msn, posted)) > 0;
  if (beyond) fail(sender, Checker::kCredits, "credit for receives that the peer has not");
}

void Traffic::act(Instant now, bool new_work) {
  for (uint32_t i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    Side& peer = sides_[1 - i];
    if (side.dead) continue;
    if (xrc() && in_error(side) && !side.failed) close(now, side);  // one goes with the other
    if (side.qp->state == QpState::kErr) side.failed = true;
    note_errors(side);
    const bool half = side.failed && side.qp->state == QpState::kSqe;  // UC: it still receives
    if ((half || (peer.failed && !side.failed)) && side.cq->queued() == 0) close(now, side);
    if (!peer.dead) check_credits(side, peer);
    const bool starved = i == 1 && now >= options_.starved_from && now < options_.starved_until;
    const bool late = options_.slow_receiver && new_work && rng_.below(20) != 0;
    if (!side.failed && !starved && !late) post_receives(now, side);
    if (new_work) {
      for (uint32_t n = rng_.below(4); n > 0; --n) post_send(now, side);
    } else if (side.posted != 0 && !side.failed) {
      side.posted = 4;  // the last one is signaled, so that all complete
      post_send(now, side);
    }
    if (!options_.slow_poller || !new_work || rng_.below(30) == 0) poll(side);
  }
}

bool Traffic::quiet() const {
  const bool failed = sides_[0].failed || sides_[1].failed || !lost_at_.is_never();
  return std::ranges::all_of(sides_, [failed](const Side& side) {
    if (side.dead) return true;
    return (failed ? side.qp->state == QpState::kErr : side.sent.empty()) && side.cq->queued() == 0;
  });
}

void Traffic::check_end() {
  for (Side& side : sides_) {
    if (side.dead) continue;
    if (side.failed) {
      check_failed_end(side);
    } else {
      check_queues(side);
    }
    check_memory(side);
    // UC keeps what it must wait for; RC keeps everything.
    const bool all = !side.failed && (reliable() || options_.lossless);
    for (const Message& message : side.expected) {
      if (all || message.acknowledged)
        fail(side, Checker::kDelivery, "a message was sent and never delivered");
    }
  }
}

void Traffic::check_failed_end(Side& side) {
  if (std::ranges::any_of(side.sent, &Sent::signaled) || !side.qp->sq.empty())
    fail(side, Checker::kFlush, "not every send came back");
  if (!side.srq && !side.receives.empty())
    fail(side, Checker::kFlush, "not every receive came back");
}

void Traffic::check_memory(Side& side) {
  if (!reliable()) return;
  for (uint32_t i = 0; i < kAreaBytes; ++i) {
    if (side.unknown[i] == std::byte{0} && side.write_area[i] != side.write_shadow[i])
      return fail(side, Checker::kMemory, "the write area differs from its shadow");
  }
  const uint64_t counter = base::load<uint64_t>(side.counter);
  if (counter != side.counter_shadow && std::ranges::count(side.counter_may, counter) == 0)
    fail(side, Checker::kMemory, "the counter differs from its shadow");
}

void Traffic::check_queues(Side& side) {
  const verbs::SendQueue& sq = side.qp->sq;
  const uint32_t posted = side.srq ? side.srq->queue.posted() : side.qp->rq.posted();
  if (sq.head != sq.tail || sq.released != sq.head)
    fail(side, Checker::kSlots, "the send queue is not empty");
  if (posted + (side.target->resp.have_receive ? 1 : 0) != side.receives.size())
    fail(side, Checker::kSlots, "the receive queue lost or invented receives");
}

std::string Traffic::describe() const {
  std::string text =
      "pair " + std::to_string(number_) +
      (xrc()        ? " xrc"
       : reliable() ? " rc"
                    : " uc") +
      " mtu " + std::to_string(128u << options_.mtu) +
      (options_.shared_receive_queue ? " srq" : "") + (options_.by_event ? " by event" : "") +
      (options_.second_keys ? " second keys" : "") + (options_.windows ? " windows" : "");
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

}  // namespace tbt::sim
