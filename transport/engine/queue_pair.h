// QueuePair: everything the engine knows of one queue pair, split as the IBA splits it.
//
//   RequesterState  what is sent next, what is unacknowledged (requester.cc, completer.cc)
//   ResponderState  what is expected next, what is owed        (responder.cc, response.cc)
//   UcCreditState   the wait mode of UC                         (uc_credit.cc)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/time.h"
#include "engine/reorder.h"
#include "tbt/types.h"
#include "verbs/completion_queue.h"
#include "verbs/mr_table.h"
#include "verbs/path.h"
#include "verbs/recv_queue.h"
#include "verbs/send_queue.h"

namespace tbt::engine {

inline constexpr Duration kProbeFirst = Duration::from_ms(1);  // before anything was measured

// Between two of us a READ that was answered whole behind a gap makes room for another, so there
// may be so many times max_rd_atomic of them that are not done; a responder keeps as many answers
// (docs/wire.md, 2.1).
inline constexpr uint32_t kAnswersPerAgreed = 4;

// What was sent again lately, by PSN modulo. Of a reliable pair that may send.
struct Repetition {
  uint32_t psn = UINT32_MAX;  // whose place it is
  uint32_t mark = 0;          // sent_end at that time: what has this PSN was sent later
};
using Repetitions = std::array<Repetition, kReorderPackets>;

// PSNs:  una_psn <= send_psn <= next_psn, and una_psn <= sent_end <= next_psn (windows of 24 bits).
// WQEs:  sq.head <= cursor <= sq.tail.
struct RequesterState {
  uint32_t cursor = 0;         // the WQE that the next packet belongs to
  uint32_t send_psn = 0;       // PSN of the next packet; < next_psn while retransmitting
  uint32_t next_psn = 0;       // first PSN that no WQE has
  uint32_t una_psn = 0;        // oldest PSN not acknowledged
  uint32_t sent_end = 0;       // one past the highest PSN that was ever sent
  uint32_t ssn = 0;            // messages started
  uint32_t answers_due = 0;    // READs and atomics started and not done
  uint32_t answers_whole = 0;  // of those, READs behind a gap whose whole answer is in place
  uint32_t read_psns = 0;      // PSNs of READ responses among the unacknowledged
  uint32_t since_ack_req = 0;  // packets sent since one asked for an acknowledge
  uint32_t credit_limit = 0;   // highest SSN that the peer's posted receives cover
  bool credits_known = false;
  uint8_t retries_left = 0;
  uint8_t rnr_retries_left = 0;
  bool rnr_waiting = false;
  bool rewound = false;    // the retransmission that began at una_psn has seen no progress yet
  bool failed = false;     // the WQE at the cursor cannot be sent: fails when it is the oldest
  bool peer_gone = false;  // it has said farewell: sends fail when the grace is over
  WcStatus fail_status = WcStatus::kSuccess;
  uint32_t fail_vendor = 0;
  Instant ack_deadline = Instant::never();
  bool heard = false;  // since that was set something has arrived behind una_psn
  // recovery.cc
  int64_t srtt_ns = 0;  // round trip: smoothed mean (0: not measured yet) and mean deviation
  int64_t rttvar_ns = 0;
  Duration probe_after = kProbeFirst;  // the measured timer's interval
  bool timing = false;                 // timed_psn was sent at timed_at, and once only
  uint32_t timed_psn = 0;
  Instant timed_at{};
  uint8_t backoff = 0;        // probes in a row without an answer
  uint32_t window = 0;        // most unacknowledged request packets now
  uint32_t window_acked = 0;  // acknowledged since it last grew
  Instant probe_deadline = Instant::never();
  // selective.cc
  std::array<uint64_t, kReorderPackets / 64> sacked{};  // by PSN modulo: the peer has it already
  uint32_t sacked_count = 0;
  bool repairing = false;  // the walk from an earlier PSN ends at repair_end
  uint32_t repair_end = 0;
  uint32_t requests_to = 0;  // one past the highest request that the peer is known to have
  uint32_t answers_to = 0;   // one past the highest answer that came
  uint32_t oldest_mark = 0;  // no repetition that is still missing has an older one
  uint32_t loss_mark = 0;    // sent_end when the window was last narrowed
  bool beyond = false;       // more is missing than can be noted
  std::unique_ptr<Repetitions> repetitions;
  uint32_t fresh_cursor = 0;  // the cursor of sent_end, while send_psn is before that
  Instant rnr_deadline = Instant::never();
};

// A READ or atomic request, kept so that a duplicate is answered again (C-062, C-063).
struct Resource {
  uint32_t first_psn = 0;
  uint32_t psn_count = 0;
  uint32_t cursor_psn = 0;  // next response to send while `pending`
  uint32_t run_psn = 0;     // where this run of responses began: that one is FIRST or ONLY
  uint32_t run_end = 0;     // one past its last
  uint32_t msn = 0;
  uint32_t rkey = 0;
  uint32_t length = 0;
  uint64_t va = 0;
  const verbs::ProtectionDomain* pd = nullptr;  // of the memory it names
  uint64_t atomic_result = 0;
  bool atomic = false;
  bool pending = false;
  bool repeating = false;  // pending, and answered in full before

  // A FLUSH or ATOMIC WRITE, or a READ of no bytes: nothing is fetched for the answer.
  [[nodiscard]] bool placed() const noexcept { return !atomic && length == 0; }
};

enum class MessageKind : uint8_t { kNone, kSend, kWrite };

struct ResponderState {
  uint32_t expected_psn = 0;
  uint32_t msn = 0;
  // The message whose packets are arriving.
  MessageKind kind = MessageKind::kNone;
  bool have_receive = false;  // `receive` was taken from the RQ or SRQ for it
  verbs::RecvWqe receive;
  uint64_t placed = 0;  // bytes placed so far
  uint64_t write_va = 0;
  uint32_t write_rkey = 0;
  uint32_t write_length = 0;
  // What is owed.
  bool ack_owed = false;
  bool nak_owed = false;
  bool sequence_nak_sent = false;  // one NAK per gap (C-064)
  bool refused = false;            // the NAK of nak_syndrome has ended the connection
  uint8_t nak_syndrome = 0;
  uint32_t nak_psn = 0;
  // The last READs and atomics: a ring of a power of two, with free-running indices.
  std::vector<Resource> resources;
  uint32_t resource_tail = 0;            // the place that is used next
  uint32_t pending_from = 0;             // no place before it is pending
  uint32_t pending = 0;                  // resources with responses to send
  uint32_t repeats = 0;                  // of those, the ones that repeat
  std::unique_ptr<ReorderBuffer> early;  // packets after a gap; made when first needed

  [[nodiscard]] Resource& resource(uint32_t index) noexcept {
    return resources[index & (resources.size() - 1)];
  }
};

struct UcCreditState {
  // sender
  uint32_t sent = 0;     // messages that consume a receive, started so far
  uint32_t limit = 0;    // how many may be
  bool waiting = false;  // the message at the cursor waits for credit
  bool request_owed = false;
  int64_t interval_ns = 0;  // of repeated requests
  Instant request_deadline = Instant::never();
  // receiver
  uint32_t seen = 0;  // messages that arrived or are known lost
  uint32_t told_limit = 0;
  bool peer_asked = false;
  bool credit_owed = false;
};

// A TGT queue pair of XRC has no PD, SRQ and receive CQ of its own: `pd`, `srq` and `recv_cq` are
// those of the SRQ that the last request was for (xrc.cc).
struct QueuePair : verbs::SrqListener {
  QueuePair(const QpCaps& granted, QpType qp_type);

  uint32_t number = 0;
  const QpType type;
  const bool reliable;        // RC and XRC
  const uint8_t opcode_base;  // the service, as BTH opcodes have it
  QpState state = QpState::kReset;
  QpAttr attr{};     // as modified, cap as granted
  uint8_t port = 0;  // which of the host's ports it was made on
  bool sq_sig_all = false;
  verbs::ProtectionDomain* pd = nullptr;
  verbs::CompletionQueue* send_cq = nullptr;
  verbs::CompletionQueue* recv_cq = nullptr;
  verbs::SharedReceiveQueue* srq = nullptr;
  const verbs::XrcDomain* xrcd = nullptr;  // of a TGT
  void* user = nullptr;

  verbs::Path path;  // RC, UC: to the peer
  bool has_path = false;
  uint32_t mtu = 0;  // bytes

  verbs::SendQueue sq;
  verbs::RecvQueue rq;
  RequesterState req;
  ResponderState resp;
  UcCreditState uc;

  Instant lost_deadline =
      Instant::never();      // the peer's process ended after its farewell: then all fails
  bool established = false;  // COMM_EST was raised
  bool draining = false;     // SQD: started WQEs are not finished
  bool closing = false;      // in ERR by a responder's error whose NAK is still owed

  // Scheduling, kept by ready_list.h and deadlines.h.
  bool ready = false;
  uint8_t ready_rail = 0;
  QueuePair* ready_next = nullptr;
  Instant deadline_queued = Instant::never();
  Instant probe_queued = Instant::never();

  [[nodiscard]] bool connected() const noexcept { return type != QpType::kUd; }
  [[nodiscard]] bool may_send() const noexcept {
    return state == QpState::kRts || state == QpState::kSqd;
  }
  [[nodiscard]] bool may_receive() const noexcept {
    return state == QpState::kRtr || state == QpState::kRts || state == QpState::kSqd ||
           state == QpState::kSqe;
  }
  [[nodiscard]] verbs::Accessor accessor() const noexcept { return {pd, number}; }
  // Of all timers but the measured one (req.probe_deadline).
  [[nodiscard]] Instant deadline() const noexcept;
};

}  // namespace tbt::engine
