#include "tests/model/machine.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "tests/model/end.h"
#include "wire/psn.h"

namespace tbt::model {

namespace {

constexpr uint32_t kNumber = 0x40010;  // QPN of side 0; side 1 has the next
constexpr size_t kOnTheirWayMost = 6;

constexpr uint32_t kAll =
    kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic;

}  // namespace

const char* bug_name(Bug bug) noexcept {
  constexpr const char* kNames[] = {"nothing",
                                    "acknowledge taken for one packet more",
                                    "gap accepted",
                                    "repeated SEND delivered again",
                                    "repeated atomic done again",
                                    "credits invented",
                                    "timers never fire"};
  return kNames[static_cast<size_t>(bug)];
}

Machine::~Machine() = default;

Machine::Machine(const Scenario& scenario, Bug bug) : scenario_(scenario), bug_(bug) {
  engine::Options options;
  options.go_back_n = scenario.go_back_n;
  options.window_packets = options.window_least = 4;
  for (uint32_t i = 0; i < 2; ++i) {
    ends_[i] = std::make_unique<End>(i, options);
    End& end = *ends_[i];
    end.key = end.endpoint
                  .register_memory(
                      {0, kAll, &end.pd, end.address(0), end.memory.size(), end.memory.data()})
                  ->key;
    engine::QpConfig config;
    config.number = kNumber + i;
    config.caps = {8, 8, 1, 1, 0};
    config.sq_sig_all = true;
    config.pd = &end.pd;
    config.send_cq = config.recv_cq = &end.cq;
    end.qp = *end.endpoint.create_qp(config);
  }
  restart();
}

void Machine::connect(uint32_t side) {
  End& end = *ends_[side];
  QpAttr attr;
  attr.port_num = 1;
  attr.access_flags = kAll;
  attr.path_mtu = 1;
  attr.dest_qpn = kNumber + 1 - side;
  attr.av.dlid = ends_[1 - side]->lid;
  attr.rq_psn = scenario_.first_psn[1 - side];
  attr.sq_psn = scenario_.first_psn[side];
  attr.max_rd_atomic = attr.max_dest_rd_atomic = 2;
  attr.min_rnr_timer = 1;
  attr.timeout = 8;
  attr.retry_cnt = scenario_.retry_cnt;
  attr.rnr_retry = 7;
  const struct {
    QpState state;
    uint32_t mask;
  } kWay[] = {
      {QpState::kReset, 0},
      {QpState::kInit, kQpPkeyIndex | kQpPort | kQpAccessFlags},
      {QpState::kRtr,
       kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic | kQpMinRnrTimer},
      {QpState::kRts, kQpSqPsn | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic}};
  for (const auto& station : kWay) {
    attr.qp_state = station.state;
    TBT_ASSERT(end.endpoint.modify_qp(now_, *end.qp, attr, kQpState | station.mask).ok());
  }
}

void Machine::prepare(uint32_t side) {
  End& end = *ends_[side];
  const auto& requests = scenario_.requests[side];
  std::memset(end.memory.data(), 0, end.memory.size());
  for (uint32_t i = 0; i < requests.size(); ++i) {
    const bool read = requests[i].opcode == WrOpcode::kRdmaRead;
    for (uint32_t at = 0; !read && at < kPlaceBytes; ++at)
      end.memory[i * kPlaceBytes + at] = pattern(side, i, at);
  }
  for (uint32_t at = 0; at < kPlaceBytes; ++at) end.memory[kReadAt + at] = pattern(side, 9, at);
  end.posted = end.completed = end.received = 0;
  end.failed = false;
  end.before = end.endpoint.stats();
  const auto due =
      static_cast<uint32_t>(std::ranges::count_if(scenario_.requests[1 - side], takes_receive));
  end.unposted = scenario_.posted_late[side];
  while (end.posted + end.unposted < due) post_receive(side);
}

// Time goes on, so that the timers of the run before are over.
void Machine::restart() {
  now_ = now_ + Duration::from_s(100);
  broken_.clear();
  losses_ = scenario_.losses;
  copies_ = scenario_.copies;
  timeouts_ = scenario_.timeouts;
  for (uint32_t side = 0; side < 2; ++side) {
    network_[side].clear();
    connect(side);
    ends_[side]->endpoint.handle_timeout(now_);
    prepare(side);
  }
  for (uint32_t side = 0; side < 2; ++side) post_requests(side);
  engine::Event event;
  for (auto& end : ends_) {
    while (end->endpoint.poll_event(event)) {
    }
  }
}

void Machine::post_receive(uint32_t side) {
  End& end = *ends_[side];
  const Sge sge{end.address(kReceivesAt + end.posted * kPlaceBytes), kPlaceBytes, end.key};
  TBT_ASSERT(end.endpoint.post_recv(now_, *end.qp, {100 + end.posted, &sge, 1}).ok());
  ++end.posted;
}

void Machine::post_requests(uint32_t side) {
  End& end = *ends_[side];
  const End& peer = *ends_[1 - side];
  const auto& requests = scenario_.requests[side];
  for (uint32_t i = 0; i < requests.size(); ++i) {
    const Sge sge{end.address(i * kPlaceBytes), length_of(requests[i]), end.key};
    SendWr wr;
    wr.wr_id = i;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = requests[i].opcode;
    wr.flags = requests[i].fence ? kSendFence : 0u;
    wr.rkey = peer.key;
    wr.imm_be = i;
    wr.remote_addr = peer.address(kWrittenAt + i * kPlaceBytes);
    if (wr.opcode == WrOpcode::kRdmaRead) wr.remote_addr = peer.address(kReadAt);
    if (wr.opcode == WrOpcode::kFetchAdd) wr.remote_addr = peer.address(kCounterAt);
    wr.compare_add = added(i);
    TBT_ASSERT(end.endpoint.post_send(now_, *end.qp, wr, nullptr).ok());
  }
}

bool Machine::finished(uint32_t side) const {
  return ends_[side]->completed == scenario_.requests[side].size();
}

void Machine::steps(std::vector<Step>& out) const {
  out.clear();
  if (!broken_.empty()) return;
  using Kind = Step::Kind;
  for (uint8_t side = 0; side < 2; ++side) {
    const auto& coming = network_[side];
    for (uint8_t i = 0; i < coming.size() && i <= scenario_.overtaken; ++i)
      out.push_back({Kind::kDeliver, side, i});
    if (ends_[side]->unposted != 0 && !ends_[side]->failed) out.push_back({Kind::kPost, side});
    if (!ends_[side]->endpoint.has_transmit(0) || network_[1 - side].size() >= kOnTheirWayMost)
      continue;
    out.push_back({Kind::kSend, side});
    if (losses_ != 0) out.push_back({Kind::kLose, side});
    if (copies_ != 0) out.push_back({Kind::kSendTwice, side});
  }
  const Instant due = std::min(ends_[0]->next_timer(), ends_[1]->next_timer());
  if (due.is_never() || bug_ == Bug::kTimersDead) return;
  if (out.empty() ? !(finished(0) && finished(1)) : timeouts_ != 0) out.push_back({Kind::kTimer});
}

void Machine::take(const Step& step) {
  told_.clear();
  switch (step.kind) {
    case Step::Kind::kSend:
      transmit(step.side, 1);
      break;
    case Step::Kind::kLose:
      transmit(step.side, 0);
      break;
    case Step::Kind::kSendTwice:
      transmit(step.side, 2);
      break;
    case Step::Kind::kDeliver:
      deliver(step.side, step.place);
      break;
    case Step::Kind::kPost:
      --ends_[step.side]->unposted;
      post_receive(step.side);
      if (telling_) told_ = std::to_string(step.side) + " posts a receive";
      break;
    case Step::Kind::kTimer:
      run_timer();
      break;
  }
  check();
}

// What is lost or doubled is decided when it leaves: for both ends that is the same as later.
void Machine::transmit(uint32_t side, uint32_t times) {
  engine::TxPacket packet;
  if (!ends_[side]->endpoint.poll_transmit(now_, 0, packet)) return;
  Packet out;
  out.parsed.headers = packet.headers;
  out.parsed.payload_bytes = packet.payload_bytes;
  std::byte* to = out.payload.data();
  for (uint32_t i = 0; i < packet.pieces; ++i)
    to = std::copy(packet.payload[i].begin(), packet.payload[i].end(), to);
  if (times == 0) --losses_;
  if (times == 2) --copies_;
  for (uint32_t i = 0; i < times; ++i) network_[1 - side].push_back(out);
  if (!telling_) return;
  told_ = std::to_string(side) + " sends " + wire::opcode_info(packet.headers.opcode).name +
          " psn " + std::to_string(packet.headers.psn) +
          (times == 0   ? ", lost"
           : times == 2 ? ", twice"
                        : "");
}

bool Machine::is_repeated(const Packet& packet, const End& to) const {
  const auto& headers = packet.parsed.headers;
  return wire::psn_diff(to.qp->resp.expected_psn, headers.psn) == 1 &&
         headers.is(wire::kOpRequest) &&
         ((bug_ == Bug::kSendTwice && headers.is(wire::kOpSend | wire::kOpStart | wire::kOpEnd)) ||
          (bug_ == Bug::kAtomicTwice && headers.is(wire::kOpAtomic)));
}

void Machine::spoil(Packet& packet, End& to) const {
  auto& headers = packet.parsed.headers;
  const bool ack = headers.opcode == static_cast<uint8_t>(wire::Opcode::kRcAck) &&
                   wire::aeth_kind(headers.syndrome) == wire::AethKind::kAck;
  if (bug_ == Bug::kAckAhead && ack && wire::psn_diff(to.qp->req.sent_end, headers.psn) > 1)
    headers.psn = wire::psn_add(headers.psn, 1);
  if (bug_ == Bug::kCreditsInvented && ack)
    headers.syndrome = wire::aeth_syndrome(wire::AethKind::kAck, 4);
  engine::ResponderState& resp = to.qp->resp;
  const bool request = !headers.is(wire::kOpControl) && headers.is(wire::kOpRequest);
  if (bug_ == Bug::kGapAccepted && request && headers.is(wire::kOpStart) &&
      resp.kind == engine::MessageKind::kNone &&
      wire::psn_diff(headers.psn, resp.expected_psn) > 0) {
    resp.expected_psn = headers.psn;
  }
  if (is_repeated(packet, to)) resp.expected_psn = headers.psn;
}

void Machine::deliver(uint32_t to, uint32_t place) {
  auto& coming = network_[to];
  Packet packet = coming[place];
  coming.erase(coming.begin() + place);
  if (telling_) {
    told_ = std::to_string(to) + " receives " +
            wire::opcode_info(packet.parsed.headers.opcode).name + " psn " +
            std::to_string(packet.parsed.headers.psn) +
            (place != 0 ? ", before " + std::to_string(place) + " sent earlier" : "");
  }
  if (bug_ != Bug::kNone) spoil(packet, *ends_[to]);
  ends_[to]->endpoint.handle_packet(now_, 0, packet.parsed,
                                    std::span(packet.payload).first(packet.parsed.payload_bytes));
}

void Machine::run_timer() {
  if (timeouts_ != 0) --timeouts_;
  if (telling_) told_ = "a timer runs out";
  now_ = std::max(now_, std::min(ends_[0]->next_timer(), ends_[1]->next_timer()));
  bool ran = false;
  for (auto& end : ends_) ran |= end->endpoint.handle_timeout(now_);
  if (!ran) breaks(0, "a timer that was lost");
}

}  // namespace tbt::model
