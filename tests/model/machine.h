// Machine: two endpoints of the real engine, one RC pair between them, and a network that does what
// it is told. One step at a time; the same steps from the beginning give the same state.
//
// The steps: a packet leaves, and arrives once, twice or never; a packet on its way arrives, in its
// turn or before others; a receive is posted; the next timer runs out. Time passes in no other way.
// Every step is followed by the checks, which name what is broken.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/endpoint.h"
#include "tests/model/scenario.h"
#include "wire/packet.h"

namespace tbt::model {

// Mistakes of the engine that are made on purpose, to see that the exploration finds them.
enum class Bug : uint8_t {
  kNone,
  kAckAhead,         // an acknowledge is taken for one packet more
  kGapAccepted,      // a message after a gap is taken as the next
  kSendTwice,        // a repeated SEND is delivered again
  kAtomicTwice,      // a repeated atomic is done again
  kCreditsInvented,  // credits for receives that are not there
  kTimersDead,
  kCount
};
const char* bug_name(Bug bug) noexcept;

struct Step {
  enum class Kind : uint8_t { kSend, kLose, kSendTwice, kDeliver, kPost, kTimer };
  Kind kind = Kind::kSend;
  uint8_t side = 0;   // who sends, receives or posts
  uint8_t place = 0;  // kDeliver: in the order of sending
};

class Machine {
 public:
  Machine(const Scenario& scenario, Bug bug);
  ~Machine();

  // To the beginning.
  void restart();
  // What can happen now; empty at an end.
  void steps(std::vector<Step>& out) const;
  void take(const Step& step);
  // What is broken; empty if nothing is.
  [[nodiscard]] const std::string& broken() const noexcept { return broken_; }
  // All that has an influence on what comes.
  [[nodiscard]] uint64_t digest() const;
  // For people: what the last step was, with its packet.
  [[nodiscard]] const std::string& told() const noexcept { return told_; }
  void set_telling(bool telling) noexcept { telling_ = telling; }

 private:
  struct End;
  struct Packet {
    wire::ParsedPacket parsed;
    std::array<std::byte, 256> payload;
  };

  void connect(uint32_t side);
  void prepare(uint32_t side);
  void post_receive(uint32_t side);
  void post_requests(uint32_t side);
  void transmit(uint32_t side, uint32_t times);
  void deliver(uint32_t to, uint32_t place);
  void run_timer();
  [[nodiscard]] bool finished(uint32_t side) const;
  void spoil(Packet& packet, End& to) const;
  [[nodiscard]] bool is_repeated(const Packet& packet, const End& to) const;

  // checks.cc
  void check();
  void check_completions(uint32_t side);
  void check_sent(uint32_t side, const Wc& wc);
  void check_received(uint32_t side, const Wc& wc);
  void check_state(uint32_t side);
  void check_credits(uint32_t side);
  void check_end();
  void breaks(uint32_t side, const std::string& what);

  Scenario scenario_;
  Bug bug_;
  std::array<std::unique_ptr<End>, 2> ends_;
  std::array<std::vector<Packet>, 2> network_;  // on their way to each side, oldest first
  Instant now_{1000000};
  uint32_t losses_ = 0;  // left
  uint32_t copies_ = 0;
  uint32_t timeouts_ = 0;
  std::string broken_;
  std::string told_;
  bool telling_ = false;
};

}  // namespace tbt::model
