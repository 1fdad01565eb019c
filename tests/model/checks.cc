// Machine: what must hold after every step, and when nothing is left to happen.
#include <algorithm>
#include <bit>
#include <numeric>

#include "base/bytes.h"
#include "tests/model/end.h"
#include "wire/psn.h"

namespace tbt::model {

namespace {

using wire::psn_add;
using wire::psn_diff;

bool holds(const std::byte* at, uint32_t side, uint32_t request, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; ++i) {
    if (at[i] != pattern(side, request, i)) return false;
  }
  return true;
}

bool is_blank(const std::byte* begin, const std::byte* end) {
  return std::all_of(begin, end, [](std::byte b) { return b == std::byte{0}; });
}

uint32_t set_bits(const engine::RequesterState& req) {
  uint32_t count = 0;
  for (const uint64_t word : req.sacked) count += static_cast<uint32_t>(std::popcount(word));
  return count;
}

}  // namespace

void Machine::breaks(uint32_t side, const std::string& what) {
  if (broken_.empty()) broken_ = "side " + std::to_string(side) + ": " + what;
}

void Machine::check() {
  for (uint32_t side = 0; side < 2; ++side) {
    check_completions(side);
    check_state(side);
    check_credits(side);
  }
  std::vector<Step> left;
  if (broken_.empty() && network_[0].empty() && network_[1].empty()) steps(left);
  const bool over = left.empty() || std::ranges::all_of(left, [](const Step& step) {
                      return step.kind == Step::Kind::kTimer;
                    });
  if (broken_.empty() && over && network_[0].empty() && network_[1].empty()) {
    if (left.empty() || (finished(0) && finished(1))) check_end();
  }
}

void Machine::check_completions(uint32_t side) {
  End& end = *ends_[side];
  Wc wc;
  while (end.cq.pop({&wc, 1}) == 1) {
    if (wc.status == WcStatus::kWrFlush && end.failed) {
      if (wc.wr_id < 100) ++end.completed;
    } else if (wc.wr_id < 100) {
      check_sent(side, wc);
    } else {
      check_received(side, wc);
    }
  }
  engine::Event event;
  while (end.endpoint.poll_event(event)) {
    if (event.kind == engine::Event::Kind::kAsync) breaks(side, "an asynchronous event");
  }
}

void Machine::check_sent(uint32_t side, const Wc& wc) {
  End& end = *ends_[side];
  const End& peer = *ends_[1 - side];
  const auto i = end.completed++;
  if (wc.wr_id != i) return breaks(side, "a request completed out of order, twice or not at all");
  if (wc.status == WcStatus::kRetryExc && end.retries() >= scenario_.retry_cnt) {
    end.failed = true;
    return;
  }
  if (wc.status != WcStatus::kSuccess)
    return breaks(side, std::string("a request ended with ") + wc_status_name(wc.status));
  const auto& requests = scenario_.requests[side];
  const Request& request = requests[i];
  const uint32_t length = length_of(request);
  const std::byte* own = end.memory.data() + i * kPlaceBytes;
  if (is_write(request) &&
      !holds(peer.memory.data() + kWrittenAt + i * kPlaceBytes, side, i, length))
    breaks(side, "a WRITE is done and its bytes are not there");
  if (request.opcode == WrOpcode::kRdmaRead &&
      (!holds(own, 1 - side, 9, length) || !is_blank(own + length, own + kPlaceBytes)))
    breaks(side, "a READ brought other bytes");
  if (request.opcode == WrOpcode::kFetchAdd) {
    uint64_t due = 0;
    for (uint32_t k = 0; k < i; ++k)
      due += requests[k].opcode == WrOpcode::kFetchAdd ? added(k) : 0;
    if (base::load<uint64_t>(own) != due) breaks(side, "an atomic brought another value");
  }
  const auto messages = std::count_if(requests.begin(), requests.begin() + i + 1, takes_receive);
  if (peer.received < messages && peer.cq.queued() == 0)
    breaks(side, "a message is acknowledged and was not received");
}

void Machine::check_received(uint32_t side, const Wc& wc) {
  End& end = *ends_[side];
  const auto j = end.received++;
  if (wc.wr_id != 100 + j || wc.status != WcStatus::kSuccess)
    return breaks(side, "a receive completed out of order, twice or with an error");
  const auto& requests = scenario_.requests[1 - side];
  uint32_t i = 0;
  for (uint32_t left = j; i < requests.size(); ++i) {
    if (takes_receive(requests[i]) && left-- == 0) break;
  }
  if (i == requests.size()) return breaks(side, "a message that was not sent");
  const uint32_t length = length_of(requests[i]);
  const bool write = is_write(requests[i]);
  const std::byte* at = end.memory.data() + kReceivesAt + j * kPlaceBytes;
  const uint32_t placed = write ? 0 : length;
  if (wc.byte_len != length || wc.flags != (write ? uint32_t{kWcWithImm} : 0) ||
      (write && wc.imm_be != i))
    breaks(side, "length or immediate of a message");
  if (!holds(at, 1 - side, i, placed) || !is_blank(at + placed, at + kPlaceBytes))
    breaks(side, "the bytes of a message");
}

void Machine::check_state(uint32_t side) {
  const engine::QueuePair& qp = *ends_[side]->qp;
  if (qp.state == QpState::kErr) return;
  const engine::RequesterState& req = qp.req;
  const engine::ResponderState& peer = ends_[1 - side]->qp->resp;
  const bool ordered =
      psn_diff(req.send_psn, req.una_psn) >= 0 && psn_diff(req.sent_end, req.una_psn) >= 0 &&
      psn_diff(req.sent_end, req.send_psn) >= 0 && psn_diff(req.next_psn, req.sent_end) >= 0;
  if (!ordered) return breaks(side, "the requester's PSNs are out of order");
  if (psn_diff(peer.expected_psn, req.una_psn) < 0 || psn_diff(req.sent_end, peer.expected_psn) < 0)
    breaks(side, "the peer expects what was not sent, or less than it has acknowledged");
  if (req.cursor - qp.sq.head > qp.sq.tail - qp.sq.head) breaks(side, "the cursor left the queue");
  if (set_bits(req) != req.sacked_count) breaks(side, "the count of what arrived early");
  auto& sq = const_cast<verbs::SendQueue&>(qp.sq);
  uint32_t answers = 0;
  uint32_t whole = 0;
  for (uint32_t i = sq.head; i != sq.tail; ++i) {
    if (!sq.at(i).started || !sq.at(i).wants_answer()) continue;
    ++answers;
    whole += sq.at(i).read_early == sq.at(i).psn_count ? 1 : 0;
  }
  if (answers != req.answers_due) breaks(side, "the count of answers that are due");
  if (whole != req.answers_whole) breaks(side, "the count of answers that are here behind a gap");
  const auto pending = std::ranges::count_if(qp.resp.resources, &engine::Resource::pending);
  if (static_cast<uint32_t>(pending) != qp.resp.pending)
    breaks(side, "the count of answers that are owed");
  const auto repeats = std::ranges::count_if(
      qp.resp.resources, [](const auto& slot) { return slot.pending && slot.repeating; });
  if (static_cast<uint32_t>(repeats) != qp.resp.repeats)
    breaks(side, "the count of answers that are repeated");
  const uint32_t used = scenario_.retry_cnt - req.retries_left;
  if (used > ends_[side]->retries()) breaks(side, "more retries are used than were made");
}

// As the simulator's Traffic::check_credits.
void Machine::check_credits(uint32_t side) {
  const engine::RequesterState& req = ends_[side]->qp->req;
  auto& to = *ends_[1 - side]->qp;
  if (!req.credits_known || to.state == QpState::kErr) return;
  const uint32_t posted = to.rq.posted() + (to.resp.have_receive ? 1 : 0);
  if (psn_diff(req.credit_limit, psn_add(to.resp.msn, posted)) > 0)
    breaks(side, "credit for receives that the peer has not");
}

// Nothing can happen any more.
void Machine::check_end() {
  for (uint32_t side = 0; side < 2; ++side) {
    const End& end = *ends_[side];
    const End& peer = *ends_[1 - side];
    const auto& requests = scenario_.requests[side];
    if (!finished(side)) return breaks(side, "nothing moves and not all is done");
    if (end.failed || peer.failed) continue;
    const engine::RequesterState& req = end.qp->req;
    if (req.una_psn != req.next_psn || !end.qp->sq.empty())
      breaks(side, "done, and something counts as outstanding");
    if (peer.received != std::ranges::count_if(requests, takes_receive))
      breaks(1 - side, "not every message was received");
    if (peer.qp->resp.msn != requests.size()) breaks(1 - side, "the message sequence number");
    uint64_t sum = 0;
    for (uint32_t i = 0; i < requests.size(); ++i)
      sum += requests[i].opcode == WrOpcode::kFetchAdd ? added(i) : 0;
    if (base::load<uint64_t>(peer.memory.data() + kCounterAt) != sum)
      breaks(1 - side, "the counter");
  }
}

}  // namespace tbt::model
