// Traffic: random verbs work over one connected pair of queue pairs, both ways, and the oracle
// beside it.
//
// The oracle knows what each work request must do: which bytes each receive must hold, what each
// READ and atomic must return, what the write area must look like in the end. Completions must come
// once, in order, with a status that the faults allow.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "tests/sim/world.h"

namespace tbt::sim {

struct TrafficOptions {
  QpType type = QpType::kRc;
  uint8_t mtu = 1;  // code
  uint32_t first_psn[2] = {};
  bool may_fail = false;  // the faults are hard enough for RETRY_EXC
  bool slow_receiver = false;
  bool shared_receive_queue = false;
  uint8_t rd_atomic = 4;
};

class Traffic {
 public:
  Traffic(std::array<Node*, 2> nodes, const TrafficOptions& options, Rng rng, uint32_t number);

  // Does a little of what an application does: posts, polls. `new_work`: also new sends.
  void act(Instant now, bool new_work);
  [[nodiscard]] bool quiet() const;
  void check_end();
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
  [[nodiscard]] uint64_t completed() const noexcept { return completed_; }
  // One line: type, states, what is outstanding.
  [[nodiscard]] std::string describe() const;
  void sabotage(World::Sabotage what);

 private:
  static constexpr uint32_t kSends = 8;
  static constexpr uint32_t kReceives = 16;
  static constexpr uint32_t kMessageMax = 5000;
  static constexpr uint32_t kAreaBytes = 6000;

  struct Sent {
    uint64_t wr_id;
    WrOpcode opcode;
    uint32_t length;
    uint32_t slot;
    bool signaled;
    uint64_t expect = 0;       // atomics: the value that must come back
    uint32_t area_offset = 0;  // READ
  };
  struct Message {  // that a receive must show
    uint64_t id;
    uint32_t length;
    bool has_imm;
    bool is_write;
    uint32_t imm;
  };
  struct Receive {
    uint64_t wr_id;
    uint32_t slot;
  };
  // One end.
  struct Side {
    Node* node = nullptr;
    engine::QueuePair* qp = nullptr;
    std::unique_ptr<verbs::CompletionQueue> cq;
    std::unique_ptr<verbs::SharedReceiveQueue> srq;
    std::array<std::byte*, kSends> send_slots{};
    std::array<std::byte*, kReceives> receive_slots{};
    std::byte* write_area = nullptr;  // the peer writes here
    std::byte* read_area = nullptr;   // the peer reads here; never changes
    std::byte* counter = nullptr;     // the peer's atomics work here
    std::vector<std::byte> write_shadow;
    std::vector<std::byte> read_shadow;
    uint64_t counter_shadow = 0;
    std::deque<Sent> sent;
    std::deque<Receive> receives;
    std::deque<Message> expected;  // on their way here
    uint64_t next_id = 1;
    uint32_t posted = 0;  // send WRs since the last signaled one
    bool failed = false;
  };

  void connect(Instant now, uint32_t number);
  void post_receives(Instant now, Side& side);
  void post_send(Instant now, Side& side, Side& peer);
  void fill_request(Side& peer, SendWr& wr, Sent& sent);
  void predict(Side& peer, const SendWr& wr, Sent& sent, const std::byte* data);
  void poll(Side& side);
  void check_send(Side& side, const Wc& wc);
  void check_receive(Side& side, const Wc& wc);
  void check_failed(Side& side, const Wc& wc);
  void fail(const Side& side, const std::string& text);
  uint32_t draw_length();

  TrafficOptions options_;
  Rng rng_;
  uint32_t number_;
  std::array<Side, 2> sides_;
  std::string failure_;
  uint64_t completed_ = 0;
  World::Sabotage sabotage_ = World::Sabotage::kNone;
};

}  // namespace tbt::sim
