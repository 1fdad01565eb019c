// The end of each run: every queue pair is closed and accounts for its work, and both endpoints,
// whatever was done to them, serve a fresh pair.
#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "engine_story.h"
#include "wire/psn.h"

namespace tbt::fuzz {

void Story::finish() {
  for (auto& host : hosts_) {
    host->poll();
    for (End& end : host->ends) {
      if (end.qp->state != QpState::kReset) (void)host->modify(now_, end, QpState::kErr);
    }
    host->poll();
    host->check();
    host->check_all_flushed();
  }
  for (auto& flight : flights_) flight.clear();
  for (auto& host : hosts_) {
    for (End& end : host->ends) host->destroy(now_, end);
    for (size_t area = 0; area < kAreas; ++area) host->memory.restore(static_cast<Area>(area));
    host->poll();
  }
  prove_alive();
  for (auto& host : hosts_) host->memory.settle_wide();
}

namespace {

constexpr uint32_t kProofBytes = 600;

Posted data_of(const Host& host, uint32_t slot, uint32_t bytes, Sge& sge) {
  Posted posted;
  posted.slot = slot;
  posted.lkey = host.memory.key(Area::kLocal);
  posted.capacity = bytes;
  sge = {host.memory.address(Area::kLocal, slot * kSlotBytes), bytes, posted.lkey};
  return posted;
}

}  // namespace

// SEND, WRITE, READ and an atomic over a fresh RC pair and an honest cable.
void Story::prove_alive() {
  settings_.access = kAccessRemoteWrite | kAccessRemoteRead | kAccessRemoteAtomic;
  settings_.rd_atomic = 4;
  settings_.mtu = 1;
  settings_.small_cq = settings_.srq = false;
  settings_.timeout = 14;
  settings_.retry_cnt = settings_.rnr_retry = 7;
  Host& a = *hosts_[0];
  Host& b = *hosts_[1];
  for (auto& host : hosts_) {
    host->renew(settings_);
    host->create(host->ends[0]);
  }
  a.connect(now_, a.ends[0], b, b.ends[0].qp->number);
  b.connect(now_, b.ends[0], a, a.ends[0].qp->number);
  a.memory.fill(a.memory.slot(0), static_cast<uint8_t>(now_.ns));
  Sge sge;
  const auto receive = data_of(b, 1, kProofBytes, sge);
  TBT_ASSERT(b.post_receive(now_, b.ends[0], {b.next_id(), &sge, 1}, receive));
  const auto post = [&](WrOpcode opcode, uint32_t slot, uint32_t bytes, Area target) {
    const Posted posted = data_of(a, slot, bytes, sge);
    SendWr wr;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.flags = kSendSignaled | kSendFence;  // what a READ returns is taken late
    wr.rkey = b.memory.key(target);
    wr.remote_addr = b.memory.address(target);
    wr.compare_add = 1;
    TBT_ASSERT(a.post_send(now_, a.ends[0], wr, posted));
  };
  post(WrOpcode::kSend, 0, kProofBytes, Area::kOpen);
  post(WrOpcode::kRdmaWrite, 0, kProofBytes, Area::kOpen);
  post(WrOpcode::kRdmaRead, 2, kProofBytes, Area::kOpen);
  post(WrOpcode::kFetchAdd, 3, 8, Area::kOpen);
  exchange(8);
  for (auto& host : hosts_) {
    host->poll();
    host->check();
  }
  TBT_ASSERT(a.ends[0].sends.empty() && !a.ends[0].send_failed && b.ends[0].receives.empty());
  const auto slot = [](Host& host, uint32_t i) {
    return host.memory.data(Area::kLocal) + i * kSlotBytes;
  };
  TBT_ASSERT(std::memcmp(slot(a, 0), slot(b, 1), kProofBytes) == 0);
  TBT_ASSERT(std::memcmp(slot(a, 0), slot(a, 2), kProofBytes) == 0);
  TBT_ASSERT(std::memcmp(slot(a, 0), slot(a, 3), 8) == 0);
  prove_store_is_whole(b.ends[0]);
}

// The budget for packets after gaps is all there again: as many are kept, and not one more.
void Story::prove_store_is_whole(End& end) {
  Host& host = *hosts_[1];
  if (settings_.options.go_back_n) return;
  const uint64_t before = host.endpoint.stats().rx_kept_early;
  const uint32_t all = settings_.options.early_packets;
  uint32_t budget = 0;
  while (budget < engine::kReorderPackets - 1 && budget < all &&
         engine::PacketStore::may_take(budget, all - budget)) {
    ++budget;
  }
  for (uint32_t i = 1; i <= std::min(budget + 2, engine::kReorderPackets); ++i) {
    Packet packet;
    packet.headers.dlid = host.lid();
    packet.headers.slid = hosts_[0]->lid();
    packet.headers.opcode = static_cast<uint8_t>(wire::Opcode::kRcSendOnly);
    packet.headers.dest_qp = end.qp->number;
    packet.headers.psn = wire::psn_add(end.qp->resp.expected_psn, i);
    host.deliver(now_, packet);
  }
  TBT_ASSERT(host.endpoint.stats().rx_kept_early - before == budget);
}

}  // namespace tbt::fuzz
