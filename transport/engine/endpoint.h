// Endpoint: the protocol engine of one process. It does no I/O, knows no clock and starts no
// thread.
//
//   commands   create_*, modify_qp, post_*   from the application; never send
//   inputs     handle_packet, handle_timeout, handle_routes_changed, handle_*_gone
//                                            from the world; never send
//   outputs    poll_transmit(rail), poll_event, next_deadline
//                                            call them after every command and input until they are
//                                            empty
//   getters    no side effects
//
// Receiving never calls sending: the responder records what is owed, and the next poll_transmit
// emits it. Time is a parameter, randomness one seeded generator, and no order depends on
// addresses, so a run can be replayed. Threads: one caller at a time (device/ holds a lock, the
// simulator has one thread). Memory: nothing is allocated between create and destroy except when a
// queue of rare events grows.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/rng.h"
#include "base/time.h"
#include "engine/queue_pair.h"
#include "engine/stats.h"
#include "tbt/status.h"
#include "tbt/types.h"
#include "verbs/completion_queue.h"
#include "verbs/mr_table.h"
#include "verbs/path.h"
#include "verbs/recv_queue.h"
#include "wire/packet.h"

namespace tbt::engine {

inline constexpr uint32_t kRailsMax = 16;

struct Options {
  // UC: false holds a message back until the receiver has a receive for it; true is the IBA's way
  // (dropped).
  bool uc_drop = false;
  // RC, towards peers that know the IBA only: go-back-N, no SACK, no timer but the ACK timeout.
  bool go_back_n = false;
  // Most request packets of an RC queue pair that were sent and have not arrived as far as is
  // known.
  uint32_t window_packets = 256;
  uint32_t window_least = 64;      // what losses may narrow that to: some round trips' worth
  uint32_t early_packets = 9216;   // most packets kept after gaps, all queue pairs together
  uint32_t packets_per_turn = 16;  // of one queue pair before the next one's turn
  uint32_t ack_req_every = 32;     // at least every so many packets one asks for an acknowledge
  Duration uc_request_first =
      Duration::from_us(50);  // UC wait mode: first repetition of a request for credit,
  Duration uc_request_most = Duration::from_ms(5);  // doubled up to this
  uint32_t stray_replies_per_ms = 16;
  // A peer that destroys its queue pair in good order has acknowledged what it took; what was still
  // on its way is lost, as on any wire. The application gets so long to come to its own end before
  // that is an error.
  Duration farewell_grace = Duration::from_ms(500);
};

// Where the fabric's knowledge comes in: a pure lookup.
class Router {
 public:
  // The way from this host's port `port` to an address. `spread` (the QPN) picks among equal rails,
  // so that one queue pair keeps to one rail. nullopt: no way now.
  [[nodiscard]] virtual std::optional<verbs::Path> resolve(uint8_t port,
                                                           const AddressVector& address,
                                                           uint32_t spread) const = 0;
  // No way can be found now, but what is sent along this one may still arrive: the other end has
  // only stopped answering.
  [[nodiscard]] virtual bool lasts(const verbs::Path& /*path*/) const { return false; }

 protected:
  ~Router() = default;
};

// A packet to send: headers, and payload as pieces of registered memory (valid until the next
// call).
struct TxPacket {
  wire::PacketHeaders headers;
  uint32_t payload_bytes = 0;
  uint32_t pieces = 0;
  std::array<std::span<const std::byte>, limits::kMaxSge> payload;
  // Where the controller finds the payload, if it may read it there, later and by itself: it is one
  // piece, and belongs to a request that completes by an acknowledgement only. 0: copy it.
  uint64_t dma = 0;
};

struct Event {
  // kTimer: next_deadline() has come closer for another reason than a post.
  enum class Kind : uint8_t { kCompletion, kAsync, kTimer };
  Kind kind = Kind::kAsync;
  AsyncEventType type{};  // kAsync
  void* object =
      nullptr;  // kCompletion: the CompletionQueue's user; kAsync: the QP's, CQ's or SRQ's user
};

struct QpConfig {
  uint32_t number = 0;  // QPN; free_number() must hold
  uint8_t port = 0;
  QpType type = QpType::kRc;
  QpCaps caps{};
  bool sq_sig_all = false;
  verbs::ProtectionDomain* pd = nullptr;
  verbs::CompletionQueue* send_cq = nullptr;
  verbs::CompletionQueue* recv_cq = nullptr;
  verbs::SharedReceiveQueue* srq = nullptr;
  const verbs::XrcDomain* xrcd = nullptr;  // kXrcRecv: instead of PD, CQs and SRQ
  void* user = nullptr;
};

// A UD destination. The owner resolves `path` anew when routes change.
struct AddressHandle {
  verbs::ProtectionDomain* pd = nullptr;
  verbs::Path path;
  bool has_path = false;
};

// The queue pairs of a process that is gone: on the host with these LIDs, those with QPN bits 23:18
// equal `slot` and bits 17:0 in [first, first + count) modulo 2^18.
struct GoneProcess {
  std::span<const uint16_t> lids;
  uint8_t slot = 0;
  uint32_t first = 0;
  uint32_t count = 0;
};

struct Core;

class Endpoint {
 public:
  Endpoint(const Options& options, const Router& router, Rng rng);
  ~Endpoint();

  // Commands.
  verbs::MrTable& regions() noexcept;
  // nullptr when limits::kMaxMr regions exist.
  const verbs::MemoryRegion* register_memory(const verbs::MemoryRegion& region);
  // An unbound memory window; its key, or 0 when there are too many.
  uint32_t add_window(MwType type, verbs::ProtectionDomain* pd);
  [[nodiscard]] bool free_number(uint32_t number) const noexcept;
  // EINVAL: limits exceeded, or the CQs (or the XRC domain) are missing. The granted caps are in
  // attr.cap.
  Result<QueuePair*> create_qp(const QpConfig& config);
  // What owes_answer() tells of should have been sent before (poll_transmit), and has_farewells()
  // afterwards; completions of the pair are removed.
  void destroy_qp(Instant now, QueuePair& qp);
  Status modify_qp(Instant now, QueuePair& qp, const QpAttr& attr, uint32_t mask);
  // Completion events come after `count` completions or after `period` (verbs/completion_queue.h).
  void moderate(Instant now, verbs::CompletionQueue& cq, uint32_t count, Duration period);
  // Makes an SRQ one of its XRC domain, by its number; free_srq_number() must hold.
  [[nodiscard]] bool free_srq_number(uint32_t number) const noexcept;
  void add_xrc_srq(verbs::SharedReceiveQueue& srq);
  // Before it is destroyed. False while a message is arriving in it.
  bool remove_xrc_srq(verbs::SharedReceiveQueue& srq) noexcept;
  // Before a completion queue is destroyed.
  void forget(verbs::CompletionQueue& cq) noexcept;
  Status post_send(Instant now, QueuePair& qp, const SendWr& wr, const AddressHandle* ah);
  // What post_send would say of the request itself; posts nothing.
  static Status check_send(const QueuePair& qp, const SendWr& wr, const AddressHandle* ah) noexcept;
  Status post_recv(Instant now, QueuePair& qp, const RecvWr& wr);
  Status post_srq_recv(Instant now, verbs::SharedReceiveQueue& srq, const RecvWr& wr);

  // Inputs.
  // A packet for this process that came by `rail`.
  void handle_packet(Instant now, uint32_t rail, const wire::ParsedPacket& packet,
                     std::span<const std::byte> payload);
  // False if no timer had run out after all: deadlines are corrected lazily.
  bool handle_timeout(Instant now);
  // Resolves every path anew; connections without one fail with kVendorLinkDown.
  void handle_routes_changed(Instant now);
  void handle_process_gone(Instant now, const GoneProcess& gone);
  // The host with these LIDs, as it was, is no more; another may have taken its place and its LIDs.
  void handle_host_gone(Instant now, std::span<const uint16_t> lids);

  // Outputs.
  [[nodiscard]] bool has_transmit(uint32_t rail) const noexcept;
  // The next packet for a rail; false if there is none. What it says is considered sent.
  bool poll_transmit(Instant now, uint32_t rail, TxPacket& packet);
  bool poll_event(Event& event);
  [[nodiscard]] Instant next_deadline() const noexcept;
  // The same without the measured timers, which only make repairs quicker: what must not be late.
  [[nodiscard]] Instant next_strict_deadline() const noexcept;
  // When a peer last told of packets that it misses; long ago if none ever did.
  [[nodiscard]] Instant last_loss() const noexcept;

  // Getters.
  // Whether destroying the queue pair now would lose an answer that its peer waits for.
  [[nodiscard]] static bool owes_answer(const QueuePair& qp) noexcept;
  // Whether packets of no queue pair wait to be sent: farewells, above all.
  [[nodiscard]] bool has_farewells() const noexcept;
  [[nodiscard]] const Stats& stats() const noexcept;
  [[nodiscard]] uint32_t queue_pairs() const noexcept;

 private:
  std::unique_ptr<Core> core_;
};

}  // namespace tbt::engine
