// One of the two hosts of fuzz_engine: an endpoint, its memory, four queue pairs, and the book of
// what was posted, which each completion is checked against.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "engine_memory.h"

namespace tbt::fuzz {

inline constexpr uint32_t kEnds = 4;
inline constexpr uint32_t kQkey = 0x1234;
inline constexpr uint32_t kSqeMax = 30;
inline constexpr uint32_t kWindows = 3;

// How a run is set up; drawn from the first bytes of the input.
struct Settings {
  engine::Options options;
  uint8_t mtu = 1;
  uint8_t rd_atomic = 4;
  uint8_t timeout = 10;
  uint8_t retry_cnt = 3;
  uint8_t rnr_retry = 2;
  uint32_t psn = 0;
  uint32_t access = 0;     // remote rights of the queue pairs
  bool srq = false;        // the last end receives from an SRQ
  bool small_cq = false;   // the last end's completions go to a queue that overflows
  bool late_poll = false;  // completions are polled by steps only
};

struct Packet {
  wire::PacketHeaders headers;
  std::vector<std::byte> payload;
};

struct Posted {
  uint64_t wr_id = 0;
  WrOpcode opcode = WrOpcode::kSend;
  bool signaled = true;
  bool writable = false;  // a receive, a READ or an atomic
  Area area = Area::kLocal;
  uint32_t lkey = 0;
  uint32_t slot = 0;
  uint64_t capacity = 0;
};

struct End {
  QpType type = QpType::kRc;
  engine::QueuePair* qp = nullptr;
  std::deque<Posted> sends;
  std::deque<Posted> receives;
  bool send_failed = false;  // after an error only flushes may follow
};

class Host final : private engine::Router {
 public:
  Host(uint32_t index, const Settings& settings);

  [[nodiscard]] uint16_t lid() const noexcept { return static_cast<uint16_t>(64 * (index_ + 1)); }

  // Queue pairs that are made from now on follow these settings.
  void renew(const Settings& settings) { settings_ = settings; }
  void create(End& end);
  void destroy(Instant now, End& end);
  void connect(Instant now, End& end, const Host& peer, uint32_t dest_qpn);
  Status modify(Instant now, End& end, QpState state);
  void reset(Instant now, End& end);

  // `posted` names slot and key of the data; what is wrong with the request is the fuzzer's choice.
  bool post_send(Instant now, End& end, SendWr wr, Posted posted,
                 const engine::AddressHandle* ah = nullptr);
  bool post_receive(Instant now, End& end, const RecvWr& wr, Posted posted);
  [[nodiscard]] uint64_t next_id() noexcept { return ++ids_; }
  // The present key of a window; the first is of type 1.
  [[nodiscard]] uint32_t window_key(uint32_t window) noexcept {
    return endpoint.regions().window_key(windows_[window]);
  }

  void deliver(Instant now, const Packet& packet);
  bool transmit(Instant now, Packet& packet);
  void time_passes(Instant now);
  void poll();
  // After each step: nothing was written that no packet may write, and the state is sound.
  void check();
  // Every end is in ERR and polled: nothing that was posted may be left.
  void check_all_flushed() const;

  verbs::ProtectionDomain pd, other_pd;
  verbs::CompletionQueue cq{256, nullptr};
  verbs::CompletionQueue small_cq{2, nullptr};
  verbs::SharedReceiveQueue srq;
  engine::Endpoint endpoint;
  Memory memory;
  std::array<End, kEnds> ends;
  bool reachable = true;  // the route to the peer exists

 private:
  std::optional<verbs::Path> resolve(uint8_t, const AddressVector& address,
                                     uint32_t) const override;
  [[nodiscard]] bool from_srq(const End& end) const noexcept {
    return settings_.srq && &end == &ends.back();
  }
  [[nodiscard]] bool lossy(const End& end) const noexcept {
    return &end == &ends.back() && small_cq.overflowed();
  }
  [[nodiscard]] std::vector<Range> writable_by(const Packet& packet);
  [[nodiscard]] std::vector<Range> opened(uint32_t access, const End* end);
  void check_completion(const Wc& wc);
  void check_send(End& end, const Wc& wc);
  void check_receive(End& end, const Wc& wc);

  uint32_t index_;
  Settings settings_;
  uint32_t numbers_ = 0;
  uint64_t ids_ = 0;
  uint64_t delivered_ = 0;
  uint64_t transmitted_ = 0;
  std::array<uint32_t, kWindows> windows_{};  // the keys that they had first
  std::deque<Posted> srq_receives_;
};

// engine_invariants.cc
void check_queue_pair(engine::QueuePair& qp);

}  // namespace tbt::fuzz
