// Two endpoints, queue pairs of RC, UC and UD between them, work on both sides, and somebody on the
// cable who drops, repeats, reorders, alters and invents packets, with fields near what the state
// would take. Asserted after each step (engine_host.cc, engine_invariants.cc):
//
//   memory       nothing changes that the keys, windows, rights and receives do not open to that packet
//   disclosure   what is sent comes from live regions of the domain, for READ those that allow it
//   completions  once per request, in order, with a status that the service knows
//   state        indices, windows, marks and counts agree; silence always has a timer
//   in the end   everything flushes, and a fresh queue pair moves data
#include "engine_story.h"

#include "base/assert.h"
#include "fuzz_target.h"

namespace tbt::fuzz {

namespace {

constexpr uint32_t kStepsMax = 600;

Settings draw_settings(Input& in) {
  Settings s;
  const uint32_t flags = in.byte();
  s.options.uc_drop = (flags & 1) != 0;
  s.options.go_back_n = (flags & 14) == 14;
  s.options.window_packets = (flags & 16) != 0 ? 256 : 16;
  s.options.window_least = s.options.window_packets / 4;
  s.srq = (flags & 32) != 0;
  s.small_cq = (flags & 64) != 0;
  s.late_poll = (flags & 128) != 0;
  s.options.early_packets = in.pick({8u, 8u, 300u, 0u});
  s.mtu = in.pick({uint8_t{1}, uint8_t{1}, uint8_t{3}, uint8_t{5}});
  s.rd_atomic = in.pick({uint8_t{4}, uint8_t{1}, uint8_t{0}, uint8_t{16}});
  s.timeout = in.pick({uint8_t{10}, uint8_t{4}, uint8_t{0}, uint8_t{14}});
  s.retry_cnt = in.pick({uint8_t{7}, uint8_t{0}, uint8_t{2}});
  s.rnr_retry = in.pick({uint8_t{7}, uint8_t{0}, uint8_t{2}});
  s.psn = in.pick({0u, 0xfffff0u, 0x7ffff0u, 0x800001u, 0xa00000u});
  s.access = in.pick({uint32_t{kAccessRemoteWrite | kAccessRemoteRead | kAccessRemoteAtomic},
                      uint32_t{kAccessRemoteRead}, 0u, uint32_t{kAccessRemoteWrite}});
  return s;
}

}  // namespace

Story::Story(Input& in) : in_(in), settings_(draw_settings(in)) {
  for (uint32_t i = 0; i < 2; ++i) hosts_[i] = std::make_unique<Host>(i, settings_);
  connect_all();
  bind_windows();
}

// Each to a part of its region, so that there is something to break; the last by another end than
// the first two.
void Story::bind_windows() {
  for (auto& host : hosts_) {
    for (uint32_t i = 0; i < kWindows; ++i) {
      SendWr wr;
      wr.opcode = WrOpcode::kBindMw;
      wr.rkey = host->window_key(i);
      wr.imm_be = host->memory.key(Area::kWindowed);
      wr.compare_add = 256;
      wr.remote_addr = host->memory.address(Area::kWindowed, 256 * i);
      wr.swap = kAccessRemoteWrite | kAccessRemoteRead | kAccessRemoteAtomic;
      End& end = host->ends[i + 1 == kWindows ? kEnds - 1 : 0];
      TBT_ASSERT(host->post_send(now_, end, wr, {}));
    }
  }
  exchange(1);
}

void Story::connect_all() {
  for (auto& host : hosts_) {
    for (End& end : host->ends) host->create(end);
  }
  for (uint32_t i = 0; i < 2; ++i) {
    for (uint32_t e = 0; e < kEnds; ++e) {
      hosts_[i]->connect(now_, hosts_[i]->ends[e], *hosts_[1 - i],
                         hosts_[1 - i]->ends[e].qp->number);
    }
  }
}

Story::Actor Story::actor() {
  const uint32_t choice = in_.byte();
  const uint32_t side = choice & 1;
  // Mostly the first RC pair: its protocol is the largest.
  static constexpr uint32_t kWhich[8] = {0, 0, 1, 3, 0, 1, 2, 3};
  const uint32_t which = kWhich[choice >> 1 & 7];
  return {*hosts_[side], *hosts_[1 - side], hosts_[side]->ends[which], which, side};
}

void Story::step() {
  switch (in_.below(22)) {
    case 0:
    case 1:
    case 2:
      return post_send();
    case 3:
    case 4:
      return post_receive();
    case 5:
      return transmit(1 + in_.below(4));
    case 6:
      return transmit(1 + in_.below(64));
    case 7:
    case 8:
      return deliver(1 + in_.below(16));
    case 9:
      return exchange(1 + in_.below(4));
    case 10:
      return reorder();
    case 11:
      return damage();
    case 12:
    case 13:
    case 14:
      return forge();
    case 15:
      return pass_time();
    case 16:
      return change_state();
    case 17:
      return in_.below(4) == 0 ? recreate() : change_routes();
    case 18:
      return change_memory();
    case 19:
      for (auto& host : hosts_) host->poll();
      return;
    case 20:
    case 21:
      return post_window();
  }
}

void Story::run() {
  for (uint32_t i = 0; i < kStepsMax && !in_.done(); ++i) {
    step();
    for (auto& host : hosts_) {
      if (!settings_.late_poll) host->poll();
      host->check();
    }
  }
  finish();
}

}  // namespace tbt::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tbt::fuzz::Input in(data, size);
  tbt::fuzz::Story(in).run();
  return 0;
}
