// Core: the state that the engine's steps share, and the few helpers all of them need. Internal to
// the room.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

#include "base/rng.h"
#include "base/time.h"
#include "engine/deadlines.h"
#include "engine/endpoint.h"
#include "engine/qp_table.h"
#include "engine/queue_pair.h"
#include "engine/ready_list.h"
#include "engine/stats.h"
#include "verbs/mr_table.h"
#include "wire/packet.h"

namespace tbt::engine {

struct Core {
  Core(const Options& opts, const Router& routes, Rng random)
      : options(opts), router(routes), rng(random), store(opts.early_packets) {
    events.reserve(kEventsLeast);
    no_srq.cq = &no_queue;
  }

  // What a TGT queue pair of XRC belongs to while no request has named an SRQ. They open nothing
  // and hold nothing. Before the queue pairs, which point to them.
  verbs::ProtectionDomain no_domain;
  verbs::CompletionQueue no_queue{1, nullptr};
  verbs::SharedReceiveQueue no_srq{&no_domain, 0, 0, nullptr};
  std::vector<verbs::SharedReceiveQueue*> xrc_srqs;  // by number modulo; empty without XRC

  Options options;
  const Router& router;
  Rng rng;
  Instant now{};  // of the call in progress
  verbs::MrTable regions;
  PacketStore store;  // before the queue pairs, which give back to it
  QpTable qps;
  std::array<ReadyList, kRailsMax> ready;
  std::array<uint32_t, kRailsMax> turn{};  // packets the front of the list has sent in its turn
  Deadlines deadlines{qps};
  ProbeDeadlines probes{qps};                  // those of the measured timer
  Instant last_loss = Instant{INT64_MIN / 2};  // when the peer last told of a gap
  Stats stats;
  // Events: queues with a completion event first, then asynchronous ones.
  verbs::CompletionQueue* notify_head = nullptr;
  std::vector<verbs::CompletionQueue*> put_off;  // completion events that moderation holds back
  std::vector<Event> events;
  size_t events_taken = 0;
  // Packets that belong to no living queue pair: farewells of destroyed ones, answers to strays.
  struct Orphan {
    uint32_t rail = 0;
    wire::PacketHeaders headers;
  };
  std::vector<Orphan> orphans;  // with room for a farewell of each pair that lives
  Instant stray_window{};       // rate limit of the answers
  uint32_t strays_answered = 0;

  void make_ready(QueuePair& qp) noexcept {
    if (!qp.ready && qp.ready_rail < kRailsMax) ready[qp.ready_rail].push(qp);
  }
  static constexpr size_t kEventsLeast = 64;
  // An event for which there is no memory is lost, and counted.
  void raise(AsyncEventType type, void* object) noexcept {
    if (!try_push(events, Event{Event::Kind::kAsync, type, object})) ++stats.events_lost;
  }
  // What one more queue pair may need later, when nothing may fail. Throws std::bad_alloc.
  void make_room_for_pair() {
    const size_t pairs = qps.size() + 1;
    deadlines.make_room(pairs);
    probes.make_room(pairs);
    const size_t farewells = orphans.size() + pairs;
    if (orphans.capacity() < farewells) orphans.reserve(2 * farewells);
  }
  template <typename T>
  static bool try_push(std::vector<T>& to, const T& what) noexcept {
    try {
      to.push_back(what);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
};

// completion.cc: completions, flushing and the error states.

struct RecvCompletion {
  WcOpcode opcode = WcOpcode::kRecv;
  uint32_t byte_len = 0;
  bool has_imm = false;
  bool has_inv = false;
  uint32_t imm_be = 0;  // has_inv: the invalidated key
  bool solicited = false;
  bool has_grh = false;
  uint32_t src_qp = 0;
  uint16_t slid = 0;
  uint8_t sl = 0;
};

// The event that moderation has held back comes now.
void tell_put_off(Core& core, verbs::CompletionQueue& cq);
void handle_moderation_timer(Core& core);
// Completes the oldest send WQE. Successful unsignaled ones leave no entry.
void complete_send(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor);
// Completes the receive that was taken for the current message.
void complete_recv(Core& core, QueuePair& qp, const RecvCompletion& what);
void fail_recv(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor);
// Fails the oldest send WQE with its cause and moves the queue pair to ERR (RC) or SQE (UC, UD).
void fail_send(Core& core, QueuePair& qp, WcStatus status, uint32_t vendor);
// To ERR: everything outstanding is flushed.
void enter_error(Core& core, QueuePair& qp);
// Flushes what was posted to a queue pair that is in ERR already.
void flush_posted(Core& core, QueuePair& qp);
// Takes the next receive of the queue pair's RQ or SRQ; false if there is none.
bool take_receive(Core& core, QueuePair& qp);

// transfer.cc: payload between packets and registered memory.

// Points `packet` at [offset, offset + length) of the WQE's data. False if a key, right or range is
// wrong now. `direct`: the controller may read them later, so say where it finds them.
bool gather(Core& core, QueuePair& qp, uint32_t wqe_index, uint32_t offset, uint32_t length,
            TxPacket& packet, bool direct = false);
// Checks every SGE of the WQE with the access given.
bool check_sges(Core& core, QueuePair& qp, uint32_t wqe_index, uint32_t access);
// Copies `bytes` to offset `offset` of a scatter list.
bool scatter(Core& core, const verbs::ProtectionDomain* pd, std::span<const Sge> sges,
             uint64_t offset, std::span<const std::byte> bytes);
// Copies in increasing address order; the last naturally aligned word is stored last, with release,
// so that a poller of the message's last bytes sees all of it (C-120).
void copy_in_order(std::byte* to, const std::byte* from, size_t bytes) noexcept;

// requester.cc
// The next request packet of an RC or UC send queue, or false if there is nothing to send now.
bool next_request(Core& core, QueuePair& qp, TxPacket& packet);
bool next_datagram(Core& core, QueuePair& qp, TxPacket& packet);
// Go back to the oldest unacknowledged packet.
void rewind(Core& core, QueuePair& qp) noexcept;
bool has_outstanding(const QueuePair& qp) noexcept;
// SQD: has everything that was started finished?
void check_drained(Core& core, QueuePair& qp);

// completer.cc
void handle_response(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                     std::span<const std::byte> payload);
void handle_requester_timers(Core& core, QueuePair& qp);
void arm_ack_timer(Core& core, QueuePair& qp) noexcept;

// recovery.cc
// Starts the measured timer; the ACK timer must stand already. handle_probe_timeout() is its end.
void arm_probe(Core& core, QueuePair& qp) noexcept;
// The packet `psn`, which asks for an acknowledge, is being sent: measures its round trip.
void time_request(Core& core, QueuePair& qp, uint32_t psn) noexcept;
void note_progress(Core& core, QueuePair& qp, uint32_t acknowledged) noexcept;
// Something just before `highest` has arrived, and what is missing before it has not.
void note_arrival(Core& core, QueuePair& qp, uint32_t highest) noexcept;
void note_loss(Core& core, QueuePair& qp) noexcept;
// Something has arrived, though not what una_psn waits for: that is no silence.
void note_news(Core& core, QueuePair& qp) noexcept;
void handle_probe_timeout(Core& core, QueuePair& qp);

// selective.cc
// Requester: does the peer have this outstanding packet already?
bool sacked(const QueuePair& qp, uint32_t psn) noexcept;
// The peer expects `end` now; it expected `before`.
void forget_sacked(RequesterState& req, uint32_t before, uint32_t end) noexcept;
void forget_all_sacked(QueuePair& qp) noexcept;
// What was lost before una_psn is history.
void forget_repairs(RequesterState& req) noexcept;
// [first, end) is being sent again.
void note_repetition(RequesterState& req, uint32_t first, uint32_t end) noexcept;
// What could not be noted behind a gap may be asked for now.
void repair_beyond(Core& core, QueuePair& qp) noexcept;
// Before the sending goes back: remembers where it goes on afterwards.
void keep_place(QueuePair& qp) noexcept;
void resume_fresh(QueuePair& qp) noexcept;
// What a SACK says of packets after the gap; its acknowledge was taken before.
void handle_sack(Core& core, QueuePair& qp, const wire::PacketHeaders& headers,
                 std::span<const std::byte> tail) noexcept;
// The peer has this packet, or its early answer is in place. Less than kReorderPackets after
// una_psn.
void mark_arrived(RequesterState& req, uint32_t psn) noexcept;
// A request or an answer just before `highest` has arrived, `to` is RequesterState's of that kind:
// sends again what that shows to be lost.
void repair(Core& core, QueuePair& qp, uint32_t& to, uint32_t highest) noexcept;
// How far a READ is to be asked for from send_psn on.
uint32_t missing_end(QueuePair& qp, const verbs::SendWqe& wqe) noexcept;
// Steps over what the peer has, and ends the walk where it ends.
void skip_sacked(QueuePair& qp) noexcept;
// Responder: true if a packet after a gap is kept.
bool keep_early(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                std::span<const std::byte> payload);
// Makes a SACK of an acknowledge.
void fill_sack(const QueuePair& qp, TxPacket& packet) noexcept;

// responder.cc
void handle_rc_request(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                       std::span<const std::byte> payload);

// A NAK that ends the connection, and the event and the state that go with it.
void refuse_request(Core& core, QueuePair& qp, wire::NakCode code);

// xrc.cc
void handle_xrc_request(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                        std::span<const std::byte> payload);
// Makes the SRQ that the next request in order names the TGT's; refuses the request if that cannot
// be.
bool bind_request(Core& core, QueuePair& qp, const wire::PacketHeaders& headers);
// The TGT belongs to no SRQ any more, and none of its completions is left anywhere.
void leave_srqs(Core& core, QueuePair& qp) noexcept;

// datagram.cc: UC and UD receive
void handle_uc_request(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                       std::span<const std::byte> payload);
void handle_datagram(Core& core, QueuePair& qp, const wire::ParsedPacket& packet,
                     std::span<const std::byte> payload);

// response.cc
// The next owed READ response, atomic answer, NAK or ACK.
bool next_response(Core& core, QueuePair& qp, TxPacket& packet);
bool owes_response(const QueuePair& qp) noexcept;
void repeat_refusal(Core& core, QueuePair& qp) noexcept;

// uc_credit.cc
// May the message at the cursor start? If not, a request for credit is owed.
bool uc_may_start(Core& core, QueuePair& qp);
void uc_message_seen(Core& core, QueuePair& qp);
void uc_receive_posted(Core& core, QueuePair& qp);
void handle_uc_control(Core& core, QueuePair& qp, const wire::PacketHeaders& headers);
bool next_uc_control(Core& core, QueuePair& qp, TxPacket& packet);
void handle_uc_timer(Core& core, QueuePair& qp);

// Fills LRH, GRH and BTH of a packet to the peer of a connected queue pair.
void address_packet(const verbs::Path& path, uint32_t dest_qp, wire::Opcode opcode,
                    wire::PacketHeaders& headers) noexcept;
// An opcode of RC as the service of this queue pair numbers it.
inline wire::Opcode opcode_of(const QueuePair& qp, wire::Opcode rc) noexcept {
  return static_cast<wire::Opcode>(static_cast<uint8_t>(rc) | qp.opcode_base);
}
// The farewell of a queue pair to its peer.
void send_reset(Core& core, const QueuePair& qp);

inline uint32_t mtu_bytes(uint8_t code) noexcept { return 128u << code; }

}  // namespace tbt::engine
