// Datagrams: UD traffic among all hosts of a world, and its oracle.
//
// One UD queue pair per host sends to all others. Datagrams may be lost where the cable loses or no
// receive is posted; what comes is whole, from whom it says, once unless the cable repeats it, and
// never with a wrong Q_Key. On clean cables each datagram arrives or is counted as dropped.
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

struct DatagramOptions {
  bool lossless = false;
  bool once = false;      // the cables repeat nothing
  bool in_order = false;  // nor reorder
};

class Datagrams {
 public:
  Datagrams(const std::vector<std::unique_ptr<Node>>& nodes, const DatagramOptions& options,
            Rng rng, Saboteur& saboteur);

  void act(Instant now, bool new_work);
  [[nodiscard]] bool quiet() const;
  void check_end();
  [[nodiscard]] const Failure& failure() const noexcept { return failure_; }
  // One line: what is outstanding.
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] uint64_t delivered() const noexcept { return delivered_; }

 private:
  static constexpr uint32_t kSends = 8;
  static constexpr uint32_t kReceives = 8;
  static constexpr uint32_t kSlotBytes = 40 + 4096;

  struct Datagram {  // by its id
    uint32_t from = 0;
    uint32_t to = 0;
    uint32_t length = 0;
    uint32_t imm = 0;
    bool has_imm = false;
    bool wrong_key = false;
    uint32_t times = 0;  // delivered
  };
  struct Host : Sleeper {
    uint32_t index = 0;
    Node* node = nullptr;
    engine::QueuePair* qp = nullptr;
    std::unique_ptr<verbs::CompletionQueue> cq;
    std::array<std::byte*, kSends> send_slots{};
    std::array<std::byte*, kReceives> receive_slots{};
    std::deque<uint64_t> sent;  // wr_ids; the slot is the id modulo kSends
    std::deque<uint32_t> receives;
    uint64_t next_send = 0;
    std::vector<uint64_t> last_id;  // of what came from each host
  };

  void open(Host& host, uint32_t number);
  void post_receives(Instant now, Host& host);
  void post_send(Instant now, Host& host);
  void poll(Host& host);
  void check(Host& host, const Wc& wc);
  void check_receive(Host& host, const Wc& wc, uint32_t slot);
  void fail(const Host& host, Checker checker, const std::string& text);

  DatagramOptions options_;
  Rng rng_;
  Saboteur& saboteur_;
  std::vector<Host> hosts_;
  std::vector<Datagram> datagrams_;
  Failure failure_;
  uint64_t delivered_ = 0;
};

}  // namespace tbt::sim
