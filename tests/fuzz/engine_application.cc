// Steps of the two applications. They may be careless, but are held to verbs: what the engine
// refuses has no effect.
#include "engine_story.h"

#include "base/assert.h"

namespace tbt::fuzz {

namespace {

constexpr uint32_t kLengths[] = {8, 1, 64, 255, 256, 257, 512, 1279, 1280, 0};

// The data of a request: `pieces` times the same slot, so that long messages need little memory.
std::vector<Sge> draw_data(Input& in, const Host& host, Posted& posted, uint32_t length) {
  static constexpr Area kSources[] = {Area::kLocal, Area::kLocal,    Area::kLocal,  Area::kLocal,
                                      Area::kOpen,  Area::kReadOnly, Area::kSecret, Area::kForeign};
  posted.area = in.pick(kSources);
  posted.slot = in.below(kSlots);
  posted.lkey = host.memory.key(posted.area);
  const uint32_t pieces = in.pick({1u, 1u, 2u, 30u});
  const uint32_t offset = posted.area == Area::kLocal ? posted.slot * kSlotBytes : 0;
  const Sge sge{host.memory.address(posted.area, offset), length, posted.lkey};
  posted.capacity = uint64_t{pieces} * length;
  return std::vector<Sge>(length == 0 ? 0 : pieces, sge);
}

}  // namespace

// Where a READ, WRITE or atomic goes: mostly where it may.
void Story::aim(const Actor& a, SendWr& wr) {
  static constexpr Area kTargets[] = {Area::kOpen, Area::kOpen,  Area::kOpen,   Area::kReadOnly,
                                      Area::kWide, Area::kLocal, Area::kForeign};
  const Area area = in_.pick(kTargets);
  wr.rkey = a.peer.memory.key(area) + (in_.below(16) == 15 ? 1 : 0);
  wr.remote_addr = a.peer.memory.address(area, in_.pick({0u, 0u, 8u, 256u, 1528u, 256u, 1025u}));
  wr.compare_add = in_.byte();
  wr.swap = in_.byte();
  if (in_.below(4) != 3) return;
  wr.rkey = a.peer.window_key(in_.below(kWindows));
  wr.remote_addr = a.peer.memory.address(Area::kWindowed, in_.pick({0u, 256u, 512u, 1016u}));
  if (in_.below(8) == 7) wr.remote_addr = 0;  // of a window that begins there
}

// A window is bound, where and as it may be or not, or invalidated.
void Story::post_window() {
  static constexpr Area kRegions[] = {Area::kWindowed, Area::kWindowed, Area::kWindowed,
                                      Area::kWindowed, Area::kOpen,     Area::kForeign};
  constexpr uint32_t kAll = kAccessRemoteWrite | kAccessRemoteRead | kAccessRemoteAtomic;
  const Actor a = actor();
  const uint32_t key = a.host.window_key(in_.below(kWindows));
  SendWr wr;
  wr.flags = kSendSignaled ^ (in_.byte() & 3);
  wr.rkey = key;
  wr.opcode = in_.below(4) == 3 ? WrOpcode::kLocalInv : WrOpcode::kBindMw;
  if (wr.opcode == WrOpcode::kBindMw) {
    const Area region = in_.pick(kRegions);
    wr.rkey = (key & ~uint32_t{0xff}) | in_.byte();
    wr.imm_be = a.host.memory.key(region);
    wr.remote_addr = a.host.memory.address(region, in_.pick({0u, 256u, 512u, 1016u}));
    wr.compare_add = in_.pick({1024u, 256u, 512u, 0u, 8u, 0xffffffffu});
    wr.swap = in_.pick({kAll, kAll, uint32_t{kAccessRemoteRead}, uint32_t{kAccessRemoteWrite},
                        kAll | kAccessZeroBased, 0u});
  }
  a.host.post_send(now_, a.end, wr, {});
}

void Story::post_datagram(const Actor& a, SendWr& wr, const Posted& posted) {
  engine::AddressHandle ah;
  ah.pd = &a.host.pd;
  ah.has_path = true;
  ah.path.slid = a.host.lid();
  ah.path.dlid = a.peer.lid();
  ah.path.has_grh = in_.below(2) == 1;
  wr.remote_qpn = a.peer.ends[a.which].qp->number;
  wr.remote_qkey = kQkey + (in_.below(8) == 7 ? 1 : 0);
  a.host.post_send(now_, a.end, wr, posted, &ah);
}

void Story::post_send() {
  const Actor a = actor();
  SendWr wr;
  wr.opcode = static_cast<WrOpcode>(in_.below(8));
  if (wr.opcode == WrOpcode::kLocalInv) wr.opcode = WrOpcode::kSendInv;  // post_window() has these
  wr.flags = in_.byte() & 15;
  wr.flags ^= kSendSignaled;  // usually wanted
  if (in_.below(4) != 0) wr.flags &= ~uint32_t{kSendInline};
  const bool atomic = wr.opcode == WrOpcode::kCmpSwap || wr.opcode == WrOpcode::kFetchAdd;
  Posted posted;
  const uint32_t length = in_.pick(kLengths);
  auto sges = draw_data(in_, a.host, posted, atomic ? 8 : length);
  if (atomic) sges.resize(1);
  if ((wr.flags & kSendInline) != 0 && length > 64) sges.clear();
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<uint32_t>(sges.size());
  aim(a, wr);
  if (a.end.type == QpType::kUd) return post_datagram(a, wr, posted);
  a.host.post_send(now_, a.end, wr, posted);
}

void Story::post_receive() {
  const Actor a = actor();
  for (uint32_t count = 1 + in_.below(4); count > 0; --count) {
    Posted posted;
    const uint32_t length = in_.pick({1280u, 1280u, 256u, 40u, 0u});
    const auto sges = draw_data(in_, a.host, posted, length);
    const RecvWr wr{a.host.next_id(), sges.data(), static_cast<uint32_t>(sges.size())};
    a.host.post_receive(now_, a.end, wr, posted);
  }
}

void Story::change_state() {
  const Actor a = actor();
  const QpState to = in_.pick({QpState::kRts, QpState::kSqd, QpState::kErr, QpState::kRts});
  (void)a.host.modify(now_, a.end, to);  // may be no transition from here
}

// Both ends or one only: then the other talks to a queue pair that is not there.
void Story::recreate() {
  const Actor a = actor();
  const uint32_t how = in_.below(4);
  End& far = a.peer.ends[a.which];
  if (how == 0) {
    a.host.reset(now_, a.end);
  } else {
    a.host.destroy(now_, a.end);
    a.host.create(a.end);
  }
  a.host.connect(now_, a.end, a.peer, far.qp->number);
  if (how == 3) return;
  a.peer.reset(now_, far);
  a.peer.connect(now_, far, a.host, a.end.qp->number);
}

void Story::change_memory() {
  Host& host = *hosts_[in_.below(2)];
  const Area area =
      in_.pick({Area::kLocal, Area::kOpen, Area::kLocal, Area::kReadOnly, Area::kWide});
  if (in_.below(2) == 0) host.memory.revoke(area);
  if (in_.below(2) == 0) host.memory.restore(area);
}

void Story::change_routes() {
  const uint32_t side = in_.below(2);
  Host& host = *hosts_[side];
  const uint32_t how = in_.below(16);
  if (how == 15) {
    const uint16_t lid = hosts_[1 - side]->lid();
    const uint32_t number = hosts_[1 - side]->ends[0].qp->number;
    engine::GoneProcess gone;
    gone.lids = {&lid, 1};
    gone.slot = static_cast<uint8_t>(number >> 18);
    gone.first = number & 0x3ffff;
    gone.count = 1 + in_.below(4);
    return host.endpoint.handle_process_gone(now_, gone);
  }
  host.reachable = how != 14;
  host.endpoint.handle_routes_changed(now_);
  host.reachable = true;
}

}  // namespace tbt::fuzz
