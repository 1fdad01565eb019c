// Counters of an endpoint. Each reason to drop, refuse or repeat has its own.
#pragma once

#include <cstdint>

namespace tbt::engine {

struct Stats {
  uint64_t tx_packets = 0;
  uint64_t rx_packets = 0;
  uint64_t rx_unknown_qp = 0;     // no such QPN here
  uint64_t rx_wrong_peer = 0;     // LIDs are not those of the connection (C-076)
  uint64_t rx_wrong_service = 0;  // opcode of another transport service (C-075)
  uint64_t rx_wrong_state = 0;    // the queue pair is not there yet, or no longer (C-027)
  uint64_t rx_bad_qkey = 0;
  uint64_t rx_ud_no_receive = 0;
  uint64_t rx_ud_too_long = 0;
  uint64_t rx_uc_dropped = 0;  // UC messages lost to a gap, a missing receive or a bad key
  uint64_t rx_duplicates = 0;
  uint64_t rx_out_of_sequence = 0;
  uint64_t rx_kept_early = 0;  // came after a gap and was kept
  uint64_t rx_ghost_acks = 0;  // acknowledge of what was not sent, or is long acknowledged (C-070)
  uint64_t rx_stale_responses = 0;
  uint64_t naks_sequence_sent = 0;
  uint64_t naks_rnr_sent = 0;
  uint64_t naks_error_sent = 0;
  uint64_t naks_received = 0;
  uint64_t retries = 0;  // go-back of a send queue, whatever the cause
  uint64_t timeouts = 0;
  uint64_t repairs = 0;  // walks over what the peer said was missing
  uint64_t probes = 0;   // repetitions by the measured timer
  uint64_t rnr_waits = 0;
  uint64_t resets_sent = 0;
  uint64_t cq_overflows = 0;
  uint64_t events_lost = 0;  // there was no memory for them
};

}  // namespace tbt::engine
