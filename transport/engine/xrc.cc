// XRC (IBTA vol. 1, annex A14): the responder of a TGT queue pair.
//
// Every request names an SRQ of the TGT's domain by its XRCETH. That SRQ's receives take the
// message, its completion queue tells of it, and its PD is the one that keys are checked in. So the
// TGT wears the SRQ of the request in hand as if it were its own, and the responder of RC does the
// rest.
#include <algorithm>

#include "base/assert.h"
#include "engine/core.h"

namespace tbt::engine {

namespace {

constexpr uint32_t kSlots = 2 * limits::kMaxSrq;

verbs::SharedReceiveQueue* find(const Core& core, uint32_t number) noexcept {
  if (core.xrc_srqs.empty()) return nullptr;
  verbs::SharedReceiveQueue* srq = core.xrc_srqs[number % kSlots];
  return srq != nullptr && srq->number == number ? srq : nullptr;
}

void wear(QueuePair& qp, verbs::SharedReceiveQueue& srq) noexcept {
  qp.srq = &srq;
  qp.pd = srq.pd;
  qp.recv_cq = srq.cq;
}

// Whether another SRQ than this one opens the domain's memory to the queue pairs of its XRC domain.
bool opened_by_another(const Core& core, const verbs::SharedReceiveQueue& srq) noexcept {
  return std::ranges::any_of(core.xrc_srqs, [&srq](const verbs::SharedReceiveQueue* other) {
    return other != nullptr && other != &srq && other->xrcd == srq.xrcd && other->pd == srq.pd;
  });
}

}  // namespace

bool bind_request(Core& core, QueuePair& qp, const wire::PacketHeaders& headers) {
  const bool inside = qp.resp.kind != MessageKind::kNone;
  if (qp.srq->number == headers.srq_number && qp.srq->xrcd != nullptr && !qp.srq->cq->overflowed())
    return true;
  verbs::SharedReceiveQueue* srq = find(core, headers.srq_number);
  if (inside || srq == nullptr || srq->xrcd != qp.xrcd) {
    refuse_request(core, qp, wire::NakCode::kInvalidRequest);
    return false;
  }
  if (srq->cq->overflowed()) {
    refuse_request(core, qp, wire::NakCode::kRemoteOperationalError);
    return false;
  }
  wear(qp, *srq);
  return true;
}

void leave_srqs(Core& core, QueuePair& qp) noexcept {
  for (verbs::SharedReceiveQueue* srq : core.xrc_srqs) {
    if (srq != nullptr && srq->xrcd == qp.xrcd) srq->cq->purge(&qp);
  }
  wear(qp, core.no_srq);
}

void handle_xrc_request(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                        std::span<const std::byte> payload) {
  if (qp.type != QpType::kXrcRecv) return void(++core.stats.rx_wrong_service);
  if (packet.headers.psn == qp.resp.expected_psn && !bind_request(core, qp, packet.headers)) {
    core.make_ready(qp);  // the NAK
    return;
  }
  handle_rc_request(core, qp, packet, payload);
}

bool Endpoint::free_srq_number(uint32_t number) const noexcept {
  return number != 0 && (core_->xrc_srqs.empty() || core_->xrc_srqs[number % kSlots] == nullptr);
}

void Endpoint::add_xrc_srq(verbs::SharedReceiveQueue& srq) {
  TBT_ASSERT(free_srq_number(srq.number) && srq.xrcd != nullptr && srq.cq != nullptr);
  if (core_->xrc_srqs.empty()) core_->xrc_srqs.resize(kSlots);
  core_->xrc_srqs[srq.number % kSlots] = &srq;
}

bool Endpoint::remove_xrc_srq(verbs::SharedReceiveQueue& srq) noexcept {
  Core& core = *core_;
  bool in_use = false;
  core.qps.for_each([&](const QueuePair& qp) { in_use |= qp.srq == &srq && qp.resp.have_receive; });
  if (in_use) return false;
  core.xrc_srqs[srq.number % kSlots] = nullptr;
  const bool domain_left = opened_by_another(core, srq);
  core.qps.for_each([&](QueuePair& qp) {
    if (qp.type != QpType::kXrcRecv || qp.xrcd != srq.xrcd) return;
    if (qp.srq == &srq) wear(qp, core.no_srq);
    for (Resource& slot : qp.resp.resources) {
      if (slot.pd == srq.pd && !domain_left) slot.pd = &core.no_domain;
    }
  });
  return true;
}

}  // namespace tbt::engine
