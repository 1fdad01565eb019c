// Traffic: memory windows over a side's write area, one of type 1 and one of type 2 (2B).
//
// They are bound by requests of their owner, and end by another bind, an invalidation of the owner
// or one that a SEND of the peer brings. A request through an open window does what it would do
// through the region. Now and then one goes through a window that has ended, over its end or
// without its right: that must fail, and ends the pair.
#include <algorithm>

#include "tests/sim/traffic.h"

namespace tbt::sim {

namespace {

constexpr uint32_t kLeast = 600;  // bytes of a window
constexpr uint32_t kMisuseOneIn = 30;

}  // namespace

void Traffic::make_windows(Side& side) {
  constexpr MwType kTypes[kWindows] = {MwType::kType1, MwType::kType2};
  for (uint32_t i = 0; i < kWindows; ++i) {
    side.windows[i].type = kTypes[i];
    side.windows[i].key = side.node->endpoint.add_window(kTypes[i], &side.node->pd);
  }
}

bool Traffic::in_use(const Side& user, int32_t window) const {
  return std::ranges::any_of(user.sent, [window](const Sent& sent) {
    return sent.window == window && sent.opcode != WrOpcode::kBindMw &&
           sent.opcode != WrOpcode::kLocalInv;
  });
}

void Traffic::draw_binding(Window& window) {
  window.dead_key = window.key;
  window.key = (window.key & ~0xffu) | ((window.key + 1) & 0xff);
  window.begin = rng_.below(kAreaBytes - kLeast);
  window.length = kLeast + rng_.below(kAreaBytes - kLeast - window.begin + 1);
  constexpr uint32_t kRights[] = {kAccessRemoteRead, kAccessRemoteWrite,
                                  kAccessRemoteRead | kAccessRemoteWrite};
  window.access = kRights[rng_.below(3)];
}

// Opens or shuts one of the side's own windows. False if there is nothing to do.
bool Traffic::post_window_work(Instant now, Side& side) {
  using State = Window::State;
  const auto index = static_cast<int32_t>(rng_.below(kWindows));
  Window& window = side.windows[index];
  const bool open = window.state == State::kOpen;
  if ((!open && window.state != State::kShut) || in_use(peer_of(side), index)) return false;
  Sent sent;
  SendWr wr;
  sent.posted = now;
  sent.slot = free_send_slot(side);
  sent.window = index;
  sent.wr_id = wr.wr_id = side.next_id++ | uint64_t{&side == &sides_[1]} << 40;
  sent.signaled = ++side.posted >= 4 || rng_.below(2) == 0;
  if (sent.signaled) side.posted = 0;
  sent.doomed = side.doomed;
  wr.flags = sent.signaled ? kSendSignaled : 0u;
  if (open && window.type == MwType::kType2) {
    wr.opcode = WrOpcode::kLocalInv;
    window.state = State::kShutting;
  } else {
    wr.opcode = WrOpcode::kBindMw;
    draw_binding(window);
    window.state = State::kOpening;
    wr.imm_be = side.node->key;
    wr.remote_addr = reinterpret_cast<uint64_t>(side.write_area) + window.begin;
    wr.compare_add = window.length + (saboteur_.window_too_wide() ? 1 : 0);
    wr.swap = window.access;
  }
  sent.opcode = wr.opcode;
  wr.rkey = window.key;
  if (!side.node->endpoint.post_send(now, *side.qp, wr, nullptr))
    fail(side, Checker::kSlots, "no place for a bind though one was given back");
  side.sent.push_back(sent);
  return true;
}

// A SEND may end the peer's window of type 2; a WRITE or READ may go through one.
void Traffic::choose_window(Side& side, SendWr& wr, Sent& sent) {
  const auto index = static_cast<int32_t>(rng_.below(kWindows));
  Window& window = peer_of(side).windows[index];
  const bool open = window.state == Window::State::kOpen;
  if (wr.opcode == WrOpcode::kSend) {
    if (!open || window.type != MwType::kType2 || rng_.below(4) != 0) return;
    wr.opcode = sent.opcode = WrOpcode::kSendInv;
    wr.rkey = window.key;
    window.state = Window::State::kShutting;
    return;
  }
  const bool write = wr.opcode == WrOpcode::kRdmaWrite || wr.opcode == WrOpcode::kRdmaWriteImm;
  if ((!write && wr.opcode != WrOpcode::kRdmaRead) || sent.length == 0) return;
  uint32_t key = window.key;
  const bool misused = wr.opcode != WrOpcode::kRdmaWriteImm && rng_.below(kMisuseOneIn) == 0;
  const uint32_t right = write ? kAccessRemoteWrite : kAccessRemoteRead;
  if (misused) {
    spoil_window_use(window, wr, sent, key);
    if (!sent.bad_window) return;
    side.doomed = peer_of(side).offended = true;
  } else {
    if (!open || (window.access & right) == 0 || sent.length > window.length) return;
    if (rng_.below(4) == 0) return;
    sent.area_offset = window.begin + rng_.below(window.length - sent.length + 1);
  }
  sent.window = index;
  wr.rkey = key;
  wr.remote_addr = reinterpret_cast<uint64_t>(peer_of(side).write_area) + sent.area_offset;
}

void Traffic::spoil_window_use(const Window& window, const SendWr& wr, Sent& sent, uint32_t& key) {
  const bool open = window.state == Window::State::kOpen;
  const uint32_t right = wr.opcode == WrOpcode::kRdmaWrite ? kAccessRemoteWrite : kAccessRemoteRead;
  const bool was_open = window.state == Window::State::kShut && window.dead_key != 0;
  if (!open && !was_open) return;
  sent.bad_window = true;
  sent.area_offset = window.begin;
  sent.length = std::min(sent.length, window.length);
  if (was_open || (window.access & right) == 0) return;  // its end and its right are reason enough
  if (rng_.below(3) == 0) {
    key = window.dead_key;
  } else {
    sent.area_offset += window.length + 1 - sent.length;
  }
}

// The owner's work is done.
void Traffic::note_window_work(Side& side, const Sent& sent) {
  if (sent.opcode == WrOpcode::kBindMw) side.windows[sent.window].state = Window::State::kOpen;
  if (sent.opcode == WrOpcode::kLocalInv) note_invalidated(side, side.windows[sent.window].key);
}

void Traffic::note_invalidated(Side& side, uint32_t key) {
  const auto window = std::ranges::find(side.windows, key, &Window::key);
  if (window == side.windows.end())
    return fail(side, Checker::kFields, "an invalidation of no window");
  window->state = Window::State::kShut;
  if (!saboteur_.window_lives_on()) return;
  const verbs::Binding again{.key = key,
                             .region_key = side.node->key,
                             .addr = reinterpret_cast<uint64_t>(side.write_area) + window->begin,
                             .length = window->length,
                             .access = window->access};
  side.node->endpoint.regions().bind(again, side.qp->accessor());
}

}  // namespace tbt::sim
