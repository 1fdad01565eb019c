// Recovery: when silence is taken for loss, and how much is sent before the next answer.
//
// The IBA's ACK timeout is the application's: it says when the connection is given up, and is
// milliseconds to seconds. Far below it the requester repeats by a timer of its own, measured from
// the round trip (RFC 6298: smoothed mean and mean deviation; after two in vain the
// interval doubles).
// Such a repetition uses up no retry_cnt. While packets go on arriving behind a gap (selective.cc)
// there is no silence, and an ACK timeout in which some did uses up none either.
//
// A loss narrows the window and progress widens it again (additive increase, multiplicative
// decrease; RFC 5681): a receiver that cannot keep up is not sent more than it takes. What the peer
// has behind a gap is not in the window, so that it stays full while a gap is repaired.
#include <algorithm>
#include <cstdlib>

#include "engine/core.h"
#include "wire/psn.h"

namespace tbt::engine {

namespace {

using wire::psn_diff;

constexpr Duration kProbeLeast = Duration::from_us(20);
constexpr uint8_t kBackoffMost = 20;
constexpr uint8_t kPatience = 2;  // probes before the interval doubles

void measured(RequesterState& req, int64_t sample_ns) noexcept {
  if (req.srtt_ns == 0) {
    req.srtt_ns = std::max<int64_t>(sample_ns, 1);
    req.rttvar_ns = sample_ns / 2;
  } else {
    req.rttvar_ns += (std::abs(sample_ns - req.srtt_ns) - req.rttvar_ns) / 4;
    req.srtt_ns = std::max<int64_t>(req.srtt_ns + (sample_ns - req.srtt_ns) / 8, 1);
  }
  req.probe_after = std::max(Duration{req.srtt_ns + 4 * req.rttvar_ns}, kProbeLeast);
}

}  // namespace

void arm_probe(Core& core, QueuePair& qp) noexcept {
  RequesterState& req = qp.req;
  const Duration interval =
      req.probe_after * (int64_t{1} << (std::max(req.backoff, kPatience) - kPatience));
  const bool off = req.peer_gone || core.options.go_back_n;
  req.probe_deadline = off ? Instant::never() : core.now + interval;
  // The application's own timer is due first: it decides.
  if (req.probe_deadline >= req.ack_deadline) req.probe_deadline = Instant::never();
  core.probes.update(qp, req.probe_deadline);
}

void time_request(Core& core, QueuePair& qp, uint32_t psn) noexcept {
  RequesterState& req = qp.req;
  if (req.timing || psn != req.sent_end) return;  // a repetition's answer is ambiguous (Karn)
  req.timing = true;
  req.timed_psn = psn;
  req.timed_at = core.now;
}

void note_progress(Core& core, QueuePair& qp, uint32_t acknowledged) noexcept {
  RequesterState& req = qp.req;
  req.backoff = 0;
  if (req.timing && psn_diff(req.una_psn, req.timed_psn) > 0) {
    req.timing = false;
    measured(req, (core.now - req.timed_at).ns);
  }
  if (req.window >= core.options.window_packets) return;
  req.window_acked += acknowledged;
  if (req.window_acked < req.window) return;
  req.window_acked = 0;
  ++req.window;
}

void note_arrival(Core& core, QueuePair& qp, uint32_t highest) noexcept {
  RequesterState& req = qp.req;
  if (!req.timing || psn_diff(highest, req.timed_psn) <= 0) return;
  req.timing = false;  // what is missing before `highest` is sent again
  if (sacked(qp, req.timed_psn)) measured(req, (core.now - req.timed_at).ns);
}

void note_loss(Core& core, QueuePair& qp) noexcept {
  RequesterState& req = qp.req;
  req.window_acked = 0;
  req.window =
      std::max(req.window / 2, std::min(core.options.window_least, core.options.window_packets));
}

void note_news(Core& core, QueuePair& qp) noexcept {
  qp.req.heard = true;
  qp.req.backoff = 0;
  arm_probe(core, qp);
}

void handle_probe_timeout(Core& core, QueuePair& qp) {
  RequesterState& req = qp.req;
  if (req.probe_deadline > core.now) return core.probes.update(qp, req.probe_deadline);
  req.probe_deadline = Instant::never();
  if (!has_outstanding(qp)) return;
  ++core.stats.probes;
  if (req.backoff < kBackoffMost) ++req.backoff;
  rewind(core, qp);
  arm_probe(core, qp);
}

}  // namespace tbt::engine
