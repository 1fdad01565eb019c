// Queue pairs and completion queues: the data path's entry points.
#include <sched.h>

#include "device/objects.h"

namespace tbt::device {

namespace {

verbs::CompletionQueue* queue_of(Cq* cq) noexcept {
  return cq == nullptr ? nullptr : &static_cast<CqImpl*>(cq)->queue;
}

}  // namespace

Result<Qp*> PdImpl::create_qp(const QpOptions& options) {
  TBT_REQUIRE_USABLE();
  return or_no_memory([&] { return make_qp(options); });
}

Result<Qp*> PdImpl::make_qp(const QpOptions& options) {
  Process& process = context().process();
  const auto hold = process.guard();
  auto qp = context().adopt(std::make_unique<QpImpl>(context(), options.user));
  engine::QpConfig config;
  config.number = process.new_qp_number();
  config.port = context().port();
  config.type = options.type;
  config.caps = options.cap;
  config.sq_sig_all = options.sq_sig_all;
  config.pd = &domain;
  config.send_cq = queue_of(options.send_cq);
  config.recv_cq = queue_of(options.recv_cq);
  config.srq = options.srq == nullptr ? nullptr : &static_cast<SrqImpl*>(options.srq)->queue;
  config.user = static_cast<Object*>(qp.get());
  auto pair = process.endpoint().create_qp(config);
  if (!pair) return pair.error();
  qp->pair = *pair;
  return qp.keep();
}

Result<Qp*> XrcdImpl::create_qp(const QpOptions& options) {
  TBT_REQUIRE_USABLE();
  return or_no_memory([&]() -> Result<Qp*> {
    Process& process = context().process();
    const auto hold = process.guard();
    auto qp = context().adopt(std::make_unique<QpImpl>(context(), options.user));
    engine::QpConfig config;
    config.number = process.new_qp_number();
    config.port = context().port();
    config.type = QpType::kXrcRecv;
    config.xrcd = domain.get();
    config.user = static_cast<Object*>(qp.get());
    auto pair = process.endpoint().create_qp(config);
    if (!pair) return pair.error();
    qp->pair = *pair;
    qp->xrcd = this;
    ++users;
    return qp.keep();
  });
}

Status XrcdImpl::destroy() {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  if (users != 0) return Status(EBUSY, "objects of the XRC domain live");
  context().discard(*this);
  return {};
}

Status QpImpl::destroy() {
  TBT_REQUIRE_USABLE();
  Process& process = context().process();
  auto hold = process.guard();
  engine::Endpoint& endpoint = process.endpoint();
  // What has arrived is still taken, and acknowledged: the peer sent it in good faith.
  process.send_last(hold, [this] { return engine::Endpoint::owes_answer(*pair); });
  endpoint.destroy_qp(process.now(), *pair);
  if (xrcd != nullptr) --xrcd->users;
  process.send_last(hold, [&endpoint] { return endpoint.has_farewells(); });
  context().discard(*this);
  return {};
}

QpState QpImpl::state() const noexcept {
  const auto hold = process().guard();
  return pair->state;
}

Status QpImpl::modify(const QpAttr& attr, uint32_t mask) {
  TBT_REQUIRE_USABLE();
  Process& owner = process();
  const auto hold = owner.guard();
  const Instant now = owner.now();
  Status status = or_no_memory([&] { return owner.endpoint().modify_qp(now, *pair, attr, mask); });
  owner.transmit(now);
  owner.deliver_events();
  return status;
}

void QpImpl::query(QpAttr& attr) const {
  const auto hold = process().guard();
  attr = pair->attr;
  attr.qp_state = attr.cur_qp_state = pair->state;
  attr.sq_draining = pair->state == QpState::kSqd && pair->draining;
}

namespace {

const engine::AddressHandle* handle_of(const SendWr& wr) noexcept {
  return wr.ah == nullptr ? nullptr : &static_cast<AhImpl*>(wr.ah)->handle;
}

Status post_in_order(Process& owner, engine::QueuePair& pair, std::span<const SendWr> wrs,
                     size_t& posted) noexcept {
  const Instant now = owner.now();
  Status status;
  for (const SendWr& wr : wrs) {
    status = owner.endpoint().post_send(now, pair, wr, handle_of(wr));
    if (!status) break;
    ++posted;
  }
  owner.transmit(now);
  owner.deliver_events();
  owner.application_posted(now);
  return status;
}

}  // namespace

Status QpImpl::post_send(std::span<const SendWr> wrs, size_t& posted) noexcept {
  posted = 0;
  TBT_REQUIRE_USABLE();
  Process& owner = process();
  const auto hold = owner.guard();
  return post_in_order(owner, *pair, wrs, posted);
}

Status QpImpl::post_send_whole(std::span<const SendWr> wrs) noexcept {
  TBT_REQUIRE_USABLE();
  Process& owner = process();
  const auto hold = owner.guard();
  if (wrs.size() > 1) {
    if (pair->sq.room() < wrs.size()) return Status(ENOMEM, "send queue has not enough room");
    for (const SendWr& wr : wrs) {
      if (Status status = engine::Endpoint::check_send(*pair, wr, handle_of(wr)); !status)
        return status;
    }
  }
  size_t posted = 0;
  return post_in_order(owner, *pair, wrs, posted);
}

Status QpImpl::post_recv(const RecvWr& wr) noexcept {
  TBT_REQUIRE_USABLE();
  Process& owner = process();
  const auto hold = owner.guard();
  const Instant now = owner.now();
  Status status = owner.endpoint().post_recv(now, *pair, wr);
  if (pair->type == QpType::kUc) {  // the peer may wait for this receive
    owner.transmit(now);
    owner.sent_to_self();
  }
  owner.deliver_events();
  return status;
}

// Spins for the caller as long as something happens now and then, and yields when nothing does:
// with more ranks than processors the one that is awaited needs this one's time.
int CqImpl::poll(std::span<Wc> out) noexcept {
  if (!Process::usable()) return -EPERM;
  Process& process = context().process();
  bool idle = false;
  {
    const auto hold = process.guard();
    uint32_t count = queue.pop(out);
    if (count != 0) return static_cast<int>(count);
    if (queue.overflowed()) return -EIO;
    const Instant now = process.now();
    // Who polls an armed queue is about to wait for its event.
    if (!queue.armed()) process.application_polls(now);
    process.step(now, &queue);
    count = queue.pop(out);
    if (count != 0) return static_cast<int>(count);
    idle = process.idle(now);
  }
  if (idle) sched_yield();
  return 0;
}

void CqImpl::arm(bool solicited_only) noexcept {
  if (!Process::usable()) return;
  Process& process = context().process();
  {
    const auto hold = process.guard();
    queue.arm(solicited_only);
    process.transmit(process.now());
    process.sent_to_self();
  }
  process.application_sleeps();
}

Status CqImpl::resize(uint32_t entries) {
  TBT_REQUIRE_USABLE();
  if (entries == 0 || entries > limits::kMaxCqe) return Status(EINVAL, "no such number of entries");
  return or_no_memory([&]() -> Status {
    const auto hold = context().process().guard();
    return queue.resize(entries) ? Status()
                                 : Status(EINVAL, "more completions are queued than would fit");
  });
}

Status CqImpl::moderate(uint32_t count, uint32_t period_us) {
  TBT_REQUIRE_USABLE();
  Process& process = context().process();
  const auto hold = process.guard();
  process.endpoint().moderate(process.now(), queue, count, Duration::from_us(period_us));
  process.deliver_events();
  return {};
}

Status CqImpl::destroy() {
  TBT_REQUIRE_USABLE();
  const auto hold = context().process().guard();
  if (queue.users != 0) return Status(EBUSY, "a queue pair uses the completion queue");
  context().process().endpoint().forget(queue);
  context().discard(*this);
  return {};
}

void CqImpl::notify_completion() noexcept {
  if (sink_ != nullptr) sink_->on_completion_event(*this);
}

}  // namespace tbt::device
