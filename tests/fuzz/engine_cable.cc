// Steps of the cable: genuine packets take their way or are lost, repeated, delayed and altered;
// forged ones come in between.
#include <algorithm>
#include <utility>

#include "engine/core.h"
#include "engine_story.h"
#include "wire/psn.h"

namespace tbt::fuzz {

namespace {

using wire::Opcode;
using wire::psn_add;

constexpr uint8_t kOpcodes[] = {
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
    0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x17, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x2b, 0x64, 0x65, 0xc0, 0xc1, 0xc2, 0xc3, 0xc3, 0xc3, 0x11, 0x0d, 0x0e, 0x0f, 0x10};

// ACK without and with credits, RNR, reserved, and every NAK code and one that is none.
constexpr uint8_t kSyndromes[] = {0x1f, 0x00, 0x05, 0x20, 0x21, 0x40, 0x60, 0x61, 0x62, 0x63, 0x64};

void shift_psn(wire::PacketHeaders& headers, uint32_t by) noexcept {
  headers.psn = psn_add(headers.psn, by);
}

}  // namespace

void Story::transmit(uint32_t most) {
  const uint32_t side = in_.below(2);
  Packet packet;
  for (uint32_t i = 0; i < most && hosts_[side]->transmit(now_, packet); ++i)
    flights_[1 - side].push_back(packet);
}

void Story::deliver(uint32_t most) {
  const uint32_t side = in_.below(2);
  for (uint32_t i = 0; i < most && !flights_[side].empty(); ++i) {
    const Packet packet = std::move(flights_[side].front());
    flights_[side].pop_front();
    hosts_[side]->deliver(now_, packet);
  }
}

// As an honest cable does it.
void Story::exchange(uint32_t rounds) {
  for (uint32_t round = 0; round < rounds; ++round) {
    for (uint32_t side = 0; side < 2; ++side) {
      Packet packet;
      for (int i = 0; i < 32 && hosts_[side]->transmit(now_, packet); ++i)
        flights_[1 - side].push_back(packet);
      while (!flights_[1 - side].empty()) {
        hosts_[1 - side]->deliver(now_, flights_[1 - side].front());
        flights_[1 - side].pop_front();
      }
    }
    now_ = now_ + Duration::from_us(2);
  }
}

void Story::reorder() {
  auto& flight = flights_[in_.below(2)];
  if (flight.empty()) return;
  const auto at = flight.begin() + in_.byte() % static_cast<ptrdiff_t>(flight.size());
  switch (in_.below(4)) {
    case 0:
      flight.erase(at);
      return;
    case 1:
      flight.push_back(Packet(*at));
      return;
    case 2:
      std::swap(*at, flight.back());
      return;
    case 3:
      flight.erase(flight.begin(), at);
  }
}

// A genuine packet with one field changed; the check of its frame is the hostile sender's own.
void Story::damage() {
  const uint32_t side = in_.below(2);
  auto& flight = flights_[side];
  if (flight.empty()) return;
  Packet packet = flight[in_.byte() % flight.size()];
  wire::PacketHeaders& headers = packet.headers;
  switch (in_.below(8)) {
    case 0:
      shift_psn(headers, in_.pick({1u, 0xffffffu, 255u, 256u, 257u, 0x7fffffu, 0x800000u}));
      break;
    case 1:
      headers.syndrome = in_.pick(kSyndromes);
      break;
    case 2:
      headers.dma_length = in_.pick({0u, 1u, 256u, 257u, 1280u, 0x80000000u, 0xffffffffu});
      break;
    case 3:
      draw_target(*hosts_[side], headers, static_cast<uint32_t>(packet.payload.size()));
      break;
    case 4:
      for (uint32_t& word : headers.control) word = in_.word();
      break;
    case 5:
      headers.slid = in_.byte();
      break;
    case 6:
      if (!headers.is(wire::kOpPayload)) break;
      packet.payload.resize(draw_payload(*hosts_[side]->ends[0].qp));
      break;
    case 7:
      headers.ack_req = !headers.ack_req;
      headers.msn = in_.word() & wire::kPsnMask;
  }
  hosts_[side]->deliver(now_, packet);
}

uint32_t Story::draw_psn(const engine::QueuePair& qp, bool response) {
  const engine::RequesterState& req = qp.req;
  const uint32_t bases[] = {req.una_psn, req.una_psn, req.send_psn, req.sent_end, req.repair_end};
  const uint32_t base = response ? in_.pick(bases) : qp.resp.expected_psn;
  if (in_.below(2) == 0) return base;
  return psn_add(base, in_.pick({0u, 0u, 1u, 2u, 3u, 0xffffffu, 0xfffffeu, 5u, 95u, 96u, 97u, 254u,
                                 255u, 256u, 257u, 0xffff00u, 0x7fffffu, 0x800000u}));
}

uint32_t Story::draw_payload(const engine::QueuePair& qp) {
  const uint32_t mtu = qp.mtu == 0 ? 256 : qp.mtu;
  return in_.pick({mtu, mtu, mtu, 8u, 1u, 0u, mtu - 1, std::min(mtu + 1, 4096u), 4096u});
}

// Inside, across the edges and far outside of the areas, by lengths that fit the payload and
// others.
void Story::draw_target(Host& host, wire::PacketHeaders& headers, uint32_t payload) {
  static constexpr Area kTargets[] = {
      Area::kOpen,  Area::kOpen, Area::kOpen,    Area::kReadOnly, Area::kLocal,
      Area::kSecret, Area::kWide, Area::kForeign, Area::kWindowed, Area::kWindowed};
  const Area area = in_.pick(kTargets);
  headers.rkey = host.memory.key(area) + (in_.below(16) == 15 ? 1 : 0);
  if (area == Area::kWindowed) headers.rkey = host.window_key(in_.below(kWindows));
  const auto size = static_cast<uint32_t>(host.memory.range(area).bytes);
  const uint32_t lengths[] = {payload,  payload,     8,           257,         size,
                              size + 1, 0x7fffffffu, 0x80000000u, 0xffffffffu, 0};
  headers.dma_length = in_.pick(lengths);
  const uint32_t length = headers.opcode == 0x13 || headers.opcode == 0x14 ? 8 : headers.dma_length;
  const uint32_t offsets[] = {
      0,           0,           8,   256, size - length, size - length + 1, size - length + 8,
      0xfffffff8u, 0xffffffffu, size};
  const auto offset = static_cast<int32_t>(in_.pick(offsets));
  headers.va = host.memory.address(area) + static_cast<uint64_t>(int64_t{offset});
}

void Story::fill_forged(const Actor& a, Packet& packet) {
  wire::PacketHeaders& headers = packet.headers;
  const engine::QueuePair& qp = *a.end.qp;
  headers.dlid = a.host.lid();
  headers.slid = a.peer.lid();
  headers.dest_qp = qp.number;
  headers.src_qp = a.peer.ends[a.which].qp->number;
  if (const uint32_t lie = in_.byte(); lie >= 250) {
    (lie & 1 ? headers.slid : headers.dlid) ^= 1;
    headers.dest_qp += lie & 2;
    headers.src_qp += lie & 4;
  }
  headers.opcode = in_.pick(kOpcodes);
  const bool response =
      headers.is(wire::kOpResponse) || headers.opcode == static_cast<uint8_t>(Opcode::kRcSack);
  headers.psn = draw_psn(qp, response);
  headers.ack_req = in_.below(2) == 0;
  headers.has_grh = in_.below(8) == 7;
  headers.qkey = kQkey;
  headers.syndrome = in_.pick(kSyndromes);
  headers.msn = psn_add(qp.req.ssn, in_.below(8));
  if (headers.is(wire::kOpPayload)) packet.payload.assign(draw_payload(qp), std::byte{in_.byte()});
  if (headers.is(wire::kOpReth) || headers.is(wire::kOpAtomicEth))
    draw_target(a.host, headers, static_cast<uint32_t>(packet.payload.size()));
  if (headers.is(wire::kOpControl)) {
    static constexpr uint32_t kWords[] = {1, 0, 0xffffffff, 0x80000000, 0x55555555, 6};
    for (uint32_t& word : headers.control) word = in_.pick(kWords);
    // UC: the word that names the connection
    if (in_.below(2) == 0 && response == false) headers.control[2] = settings_.psn;
  }
}

void Story::forge() {
  const Actor a = actor();
  Packet packet;
  fill_forged(a, packet);
  // Now, or in its turn behind the genuine ones.
  if (in_.below(4) == 3) return flights_[a.side].push_back(std::move(packet));
  a.host.deliver(now_, packet);
}

void Story::pass_time() {
  static constexpr int64_t kUs[] = {0, 0, 0, 1, 20, 200, 1000, 5000, 50000, 600000};
  const int64_t us = in_.pick(kUs);
  if (us != 0) {
    now_ = now_ + Duration::from_us(us);
  } else {
    const Instant due =
        std::min(hosts_[0]->endpoint.next_deadline(), hosts_[1]->endpoint.next_deadline());
    if (!due.is_never()) now_ = std::max(now_, due);
  }
  for (auto& host : hosts_) host->time_passes(now_);
}

}  // namespace tbt::fuzz
