// Traffic: random verbs work over one connected pair of queue pairs, both ways, and the oracle
// beside it.
//
//   traffic.cc      connecting, an application's turn, what must hold in between and at the end
//   requests.cc     drawing and posting work requests, and predicting what each must do
//   completions.cc  completions against the predictions
//   windows.cc      memory windows: binding, use, misuse and end
//   crash.cc        the end of one side's host
//
// The oracle knows which bytes each receive must hold, what each READ and atomic must return, and
// what the areas that the peer writes must look like. Completions must come once, in order, with a
// status that the faults allow; after an error everything outstanding comes back flushed.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/checks.h"
#include "tests/sim/node.h"
#include "tests/sim/sabotage.h"

namespace tbt::sim {

struct TrafficOptions {
  QpType type = QpType::kRc;  // kXrcSend: a pair of initiator and target each way
  uint8_t mtu = 1;            // code
  uint32_t first_psn[2] = {};
  uint32_t numbers[2] = {};  // QPNs; of XRC each is followed by that of the target
  bool may_fail = false;     // the faults are hard enough for RETRY_EXC
  uint8_t rnr_retry = 7;
  bool lossless = false;  // the cable loses, repeats and reorders nothing
  bool in_order = false;  // it repeats and reorders nothing
  bool slow_receiver = false;
  bool slow_poller = false;
  bool second_keys = false;                 // some requests use a key that deregister() takes away
  Instant starved_from = Instant::never();  // side 1 posts no receives then
  Instant starved_until = Instant::never();
  bool by_event = false;  // polls only when told of a completion
  bool shared_receive_queue = false;
  bool windows = false;  // RC: some requests go through memory windows
  uint8_t rd_atomic = 4;
};

class Traffic {
 public:
  Traffic(std::array<Node*, 2> nodes, const TrafficOptions& options, Rng rng, uint32_t number,
          Saboteur& saboteur);

  // Does a little of what an application does: posts, polls. `new_work`: also new sends.
  void act(Instant now, bool new_work);
  // The second key of one side is gone from now on; who uses it gets an error.
  void deregister(uint32_t side);
  // The host of one side is dead from now on, and what it had is as it was. Until the other side is
  // told, its requests may end by their retries; then everything of it ends at once.
  void lose(Instant now, const Node& dead);
  void tell(Instant now, const Node& survivor);
  [[nodiscard]] bool died_first() const noexcept { return sides_[0].dead; }
  [[nodiscard]] bool joins(const Node& a, const Node& b) const noexcept;
  // For the next pair after that: what the surviving side might still send to it would fit.
  [[nodiscard]] TrafficOptions succession(Rng& rng) const;
  [[nodiscard]] bool quiet() const;
  void check_end();
  [[nodiscard]] const Failure& failure() const noexcept { return failure_; }
  [[nodiscard]] uint64_t completed() const noexcept { return completed_; }
  // One line: type, states, what is outstanding.
  [[nodiscard]] std::string describe() const;

 private:
  // What changes the peer's write area.
  static bool is_write(WrOpcode opcode) noexcept {
    return opcode == WrOpcode::kRdmaWrite || opcode == WrOpcode::kRdmaWriteImm ||
           opcode == WrOpcode::kAtomicWrite;
  }
  static constexpr uint32_t kSends = 8;
  static constexpr uint32_t kReceives = 8;
  static constexpr uint32_t kWindows = 2;
  static constexpr uint32_t kMessageMax = 5000;
  static constexpr uint32_t kAreaBytes = 10000;

  struct Sent {
    uint64_t wr_id = 0;
    Instant posted;
    WrOpcode opcode{};
    uint32_t length = 0;
    uint32_t slot = 0;
    bool signaled = false;
    uint32_t area_offset = 0;    // WRITE and READ
    int32_t window = -1;         // which of the peer's, or of its own, it is about
    bool bad_window = false;     // it has no right to what it names
    bool second_local = false;   // uses the second key of its own side
    bool second_remote = false;  // or of the peer
    bool doomed = false;         // a key was gone before: it must not succeed
    uint64_t expect = 0;         // atomics: the value that must come back
    bool moving = false;         // READ of the write area
    // READ: the part of the area that may show a later WRITE already.
    uint32_t loose_begin = 0;
    uint32_t loose_end = 0;
  };
  struct Message {  // that a receive must show
    uint64_t id = 0;
    uint32_t length = 0;
    bool has_imm = false;
    bool has_inv = false;  // imm: the key
    bool is_write = false;
    uint32_t imm = 0;
    bool acknowledged = false;
  };
  struct Receive {
    uint64_t wr_id = 0;
    uint32_t slot = 0;
    bool second = false;  // uses the second key
  };
  // A part of the write area. The peer is told of it when its bind is polled, and asks for nothing
  // more through it once its end was posted, but for the requests that are meant to fail.
  struct Window {
    enum class State : uint8_t { kShut, kOpening, kOpen, kShutting };
    MwType type = MwType::kType1;
    State state = State::kShut;
    uint32_t key = 0;
    uint32_t dead_key = 0;  // the one before
    uint32_t begin = 0;
    uint32_t length = 0;
    uint32_t access = 0;
  };
  // One end. Its peer's requests change the write area and the counter.
  struct Side : Sleeper {
    Node* node = nullptr;
    engine::QueuePair* qp = nullptr;      // sends
    engine::QueuePair* target = nullptr;  // receives: the same, but for XRC
    std::unique_ptr<verbs::CompletionQueue> cq;
    verbs::XrcDomain xrcd;
    std::unique_ptr<verbs::SharedReceiveQueue> srq;
    std::array<std::byte*, kSends> send_slots{};
    std::array<std::byte*, kReceives> receive_slots{};
    std::byte* write_area = nullptr;
    std::byte* read_area = nullptr;  // never changes
    std::byte* counter = nullptr;
    std::vector<std::byte> write_shadow;
    std::vector<std::byte> unknown;  // not 0: a byte that a failed WRITE may have changed
    uint64_t counter_shadow = 0;
    std::vector<uint64_t> counter_may;                   // other values after failed atomics
    std::array<std::vector<std::byte>, kSends> answers;  // what a READ must bring
    std::deque<Sent> sent;
    std::deque<Receive> receives;
    std::deque<Message> expected;  // on their way here
    std::array<Window, kWindows> windows;
    uint64_t next_id = 1;
    uint32_t posted = 0;  // send WRs since the last signaled one
    uint32_t second_key = 0;
    bool second_gone = false;
    bool doomed = false;    // a doomed request was posted: none after it can succeed
    bool failed = false;    // the queue pair is in ERR
    bool cause = false;     // and it is known why: an error was reported, or the application did it
    bool flushing = false;  // the first of the sends that failed was polled
    bool ended = false;     // the same of the receives
    bool dead = false;      // with its host
    bool offended = false;  // its peer has posted a request with a bad window
    bool told = false;      // of the peer's host's end
  };

  // traffic.cc
  void connect(Instant now);
  void make_pair(Side& side, uint32_t number);
  void make_target(Side& side, uint32_t number);
  void connect_pair(Instant now, Side& side, engine::QueuePair& qp, engine::QueuePair& peer);
  void modify(Instant now, Side& side, engine::QueuePair& qp, const QpAttr& attr, uint32_t mask);
  [[nodiscard]] bool reliable() const noexcept { return options_.type != QpType::kUc; }
  [[nodiscard]] bool xrc() const noexcept { return options_.type == QpType::kXrcSend; }
  static bool in_error(const Side& side) noexcept {
    return side.qp->state == QpState::kErr || side.target->state == QpState::kErr;
  }
  void close(Instant now, Side& side);
  void note_errors(Side& side);
  void poll(Side& side);
  uint32_t poll_once(Side& side);
  void check_credits(const Side& sender, const Side& receiver);
  void check_failed_end(Side& side);
  void check_memory(Side& side);
  void check_queues(Side& side);
  void fail(const Side& side, Checker checker, const std::string& text);
  Side& peer_of(const Side& side) noexcept { return sides_[&side == &sides_[0] ? 1 : 0]; }

  // crash.cc
  void check_survivor(Instant now, const Side& side);

  // windows.cc
  void make_windows(Side& side);
  bool post_window_work(Instant now, Side& side);
  void draw_binding(Window& window);
  [[nodiscard]] bool in_use(const Side& user, int32_t window) const;
  void choose_window(Side& side, SendWr& wr, Sent& sent);
  void spoil_window_use(const Window& window, const SendWr& wr, Sent& sent, uint32_t& key);
  void note_window_work(Side& side, const Sent& sent);
  void note_invalidated(Side& side, uint32_t key);

  // requests.cc
  void post_receives(Instant now, Side& side);
  bool post_receive(Instant now, Side& side, const RecvWr& wr);
  void post_send(Instant now, Side& side);
  void draw_request(Side& side, SendWr& wr, Sent& sent);
  void draw_placed(Side& side, SendWr& wr, Sent& sent);
  uint32_t choose_keys(Side& side, SendWr& wr, Sent& sent);
  void predict(Side& side, const SendWr& wr, Sent& sent, const std::byte* data);
  void predict_write(Side& side, const SendWr& wr, const Sent& sent, const std::byte* data);
  void predict_read(Side& side, const Sent& sent);
  uint32_t draw_length();
  static uint32_t free_send_slot(const Side& side);

  // completions.cc
  void check(Side& side, const Wc& wc);
  void check_send(Side& side, const Wc& wc);
  void check_answer(Side& side, const Sent& sent, const Wc& wc);
  void note_done(Side& side, const Sent& sent);
  void check_written(const Side& side, const Side& peer, const Sent& sent);
  void check_receive(Side& side, const Wc& wc);
  void check_message(Side& side, const Message& message, const Receive& receive, const Wc& wc);
  void check_failed(Side& side, const Wc& wc);
  bool send_may_fail(const Side& side, const Side& peer, const Wc& wc) const;
  bool receive_may_fail(const Side& side, const Wc& wc) const;
  void give_up(Side& side, const Sent& sent);

  TrafficOptions options_;
  Rng rng_;
  uint32_t number_;
  Saboteur& saboteur_;
  std::array<Side, 2> sides_;
  Instant lost_at_ = Instant::never();
  Failure failure_;
  uint64_t completed_ = 0;
};

}  // namespace tbt::sim
