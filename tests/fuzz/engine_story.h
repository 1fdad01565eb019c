// What happens between the two hosts of fuzz_engine: the input's bytes as steps of two applications
// and of a hostile cable.
#pragma once

#include <array>
#include <deque>
#include <memory>

#include "engine_host.h"
#include "engine_input.h"

namespace tbt::fuzz {

class Story {
 public:
  explicit Story(Input& in);
  void run();

 private:
  struct Actor {  // whose turn it is: one end of one host, and the other host
    Host& host;
    Host& peer;
    End& end;
    uint32_t which;
    uint32_t side;
  };

  void connect_all();
  void bind_windows();
  void step();
  Actor actor();

  // engine_application.cc: what an application does, rightly or wrongly
  void post_send();
  void post_receive();
  void post_window();
  void post_datagram(const Actor& a, SendWr& wr, const Posted& posted);
  void aim(const Actor& a, SendWr& wr);
  void change_state();
  void recreate();
  void change_memory();
  void change_routes();

  // engine_cable.cc: what a cable and whoever sits on it can do
  void transmit(uint32_t most);
  void deliver(uint32_t most);
  void reorder();
  void damage();
  void forge();
  void pass_time();
  void exchange(uint32_t rounds);
  void fill_forged(const Actor& a, Packet& packet);
  uint32_t draw_psn(const engine::QueuePair& qp, bool response);
  uint32_t draw_payload(const engine::QueuePair& qp);
  void draw_target(Host& host, wire::PacketHeaders& headers, uint32_t payload);

  // engine_epilogue.cc: everything ends in order, and a fresh pair works
  void finish();
  void prove_alive();
  void prove_store_is_whole(End& end);

  Input& in_;
  Settings settings_;
  Instant now_{1000000};
  std::array<std::unique_ptr<Host>, 2> hosts_;
  std::array<std::deque<Packet>, 2> flights_;  // towards host 0 and 1
};

}  // namespace tbt::fuzz
