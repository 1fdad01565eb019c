// A peer that sends as fast as its cable carries, and nothing that it should (T10). What it costs
// the host is bounded, and the peer on the other cable keeps its goodput.
//
//   good peer ---- cable 0, one packet in a hundred lost ---- victim ---- cable 1 ---- flooding
//   peer
//
// Time goes in ticks: each cable carries one packet each way in a tick.
#include <deque>

#include "pair.h"
#include "wire/psn.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

constexpr uint16_t kGoodLid = 64;
constexpr uint16_t kFloodLid = 192;
constexpr uint32_t kGoodQpn = 0x40010;
constexpr uint32_t kVictimQpn = 0x80020;
constexpr uint32_t kFloodQpn = 0xc0000;  // of its first queue pair; ours have numbers to match
constexpr uint32_t kVictimFirst = 0x80100;
constexpr uint32_t kFloodPairs = 24;      // more than the 17 that could use up all early packets
constexpr uint32_t kMessageBytes = 2048;  // eight packets
constexpr uint32_t kMessages = 3000;
constexpr uint32_t kLostOneIn = 100;
constexpr Duration kLatency = Duration::from_us(8);

void hand_over(End& to, uint32_t rail, const wire::PacketHeaders& headers,
               std::span<const std::byte> payload) {
  wire::ParsedPacket packet;
  packet.headers = headers;
  packet.payload_bytes = static_cast<uint32_t>(payload.size());
  to.endpoint.handle_packet(to.now, rail, packet, payload);
}

struct OnTheWay {
  Instant due;
  wire::PacketHeaders headers;
  std::vector<std::byte> payload = {};
};

class Flood : public testing::Test {
 protected:
  Flood() {
    victim.lid_on_rail_1 = kFloodLid;
    for (uint32_t i = 0; i < kFloodPairs; ++i) {
      victim.create(setup, kVictimFirst + i);
      victim.connect(setup, kFloodQpn + i, kFloodLid);
      flooded.push_back(victim.qp);
    }
    victim.create(setup, kVictimQpn);
    victim.connect(setup, kGoodQpn, kGoodLid);
    good.create(setup, kGoodQpn);
    good.connect(setup, kVictimQpn, 128);
  }

  // Ticks until so many WRITEs are through: their lost packets are what early packets are kept for.
  uint32_t run(bool flooding) {
    uint32_t ticks = 0;
    uint32_t done = 0;
    uint32_t posted = 0;
    for (; done < kMessages && ticks < 100 * kMessages; ++ticks) {
      for (; posted < std::min(done + setup.send_depth, kMessages); ++posted) post(posted);
      tick(flooding);
      Wc wc;
      for (; good.cq.pop({&wc, 1}) == 1; ++done) EXPECT_EQ(wc.status, WcStatus::kSuccess);
    }
    EXPECT_EQ(done, kMessages) << "after " << ticks << " ticks";
    return ticks;
  }

  void post(uint32_t number) {
    const Sge sge{good.address(0), kMessageBytes, good.key};
    SendWr wr;
    wr.wr_id = number;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = WrOpcode::kRdmaWrite;
    wr.flags = kSendSignaled;
    wr.remote_addr = victim.address(0);
    wr.rkey = victim.key;
    ASSERT_TRUE(good.post(wr).ok());
  }

  void tick(bool flooding) {
    for (End* end : {&good, &victim}) {
      end->now = end->now + Duration::from_us(1);
      if (end->endpoint.next_deadline() <= end->now) end->endpoint.handle_timeout(end->now);
    }
    carry(good, victim, there);
    carry(victim, good, back);
    TxPacket answer;
    if (victim.endpoint.poll_transmit(victim.now, 1, answer)) ++answers;
    if (flooding) flood_one();
  }

  // One end of cable 0 sends, and what was sent a while ago arrives there.
  void carry(End& from, End& to, std::deque<OnTheWay>& way) {
    TxPacket packet;
    if (from.endpoint.poll_transmit(from.now, 0, packet) && ++carried % kLostOneIn != 0) {
      OnTheWay& sent_now = way.emplace_back(OnTheWay{from.now + kLatency, packet.headers, {}});
      for (uint32_t i = 0; i < packet.pieces; ++i) {
        sent_now.payload.insert(sent_now.payload.end(), packet.payload[i].begin(),
                                packet.payload[i].end());
      }
    }
    if (way.empty() || way.front().due > to.now) return;
    hand_over(to, 0, way.front().headers, way.front().payload);
    way.pop_front();
  }

  // The next of eight kinds of nuisance, against the next of the pairs.
  void flood_one() {
    const uint32_t kind = sent % 8;
    const uint32_t which = sent / 8 % kFloodPairs;
    const uint32_t ahead = 1 + sent / (8 * kFloodPairs) % (kReorderPackets - 1);
    ++sent;
    const QueuePair& qp = *flooded[which];
    wire::PacketHeaders headers;
    headers.slid = kFloodLid;
    headers.dlid = 128;
    headers.dest_qp = qp.number;
    headers.src_qp = kFloodQpn + which;
    headers.psn = qp.resp.expected_psn;
    headers.ack_req = true;
    uint32_t bytes = 256;
    const auto is = [&headers](Opcode opcode) { headers.opcode = static_cast<uint8_t>(opcode); };
    switch (kind) {
      case 0:  // kept, until there is no more room
      case 1:
        is(Opcode::kRcSendMiddle);
        headers.psn = wire::psn_add(headers.psn, ahead);
        break;
      case 2:  // seen before
        is(Opcode::kRcSendOnly);
        headers.psn = wire::psn_add(headers.psn, 0xffffff);
        break;
      case 3:  // to nobody, who would have to answer
        is(Opcode::kUcCreditRequest);
        headers.dest_qp = 0x8ffff;
        bytes = 0;
        break;
      case 4:  // into the good peer's connection
        is(Opcode::kRcWriteOnly);
        headers.dest_qp = kVictimQpn;
        break;
      case 5:  // its farewell, forged
        is(Opcode::kQpReset);
        headers.dest_qp = kVictimQpn;
        headers.src_qp = kGoodQpn;
        bytes = 0;
        break;
      case 6:  // no receive is posted
        is(Opcode::kRcSendOnly);
        break;
      default:  // of what was never sent
        is(Opcode::kRcAck);
        headers.syndrome = 0x1f;
        headers.psn = sent & wire::kPsnMask;
        bytes = 0;
    }
    static const std::vector<std::byte> data(256);
    hand_over(victim, 1, headers, std::span(data).first(bytes));
  }

  [[nodiscard]] size_t kept() const {
    size_t sum = 0;
    for (const QueuePair* qp : flooded) sum += qp->resp.early ? qp->resp.early->count() : 0;
    return sum;
  }

  std::deque<OnTheWay> there, back;  // cable 0
  PairSetup setup;
  End good{kGoodLid};
  End victim{128};
  std::vector<QueuePair*> flooded;
  uint32_t carried = 0;
  uint32_t sent = 0;
  uint32_t answers = 0;
};

TEST_F(Flood, CostsOthersLessThanATenthOfTheirGoodput) {
  const uint32_t before = run(false);
  // The early packets of the whole process shall be used up first, if they can be.
  for (uint32_t i = 0; i < 200000; ++i) flood_one();
  const uint32_t flooded_ticks = run(true);
  std::printf("%u ticks, %u under a flood of %u packets, of which %zu are kept\n", before,
              flooded_ticks, sent, kept());
  EXPECT_GE(before * 10, flooded_ticks * 9);
  EXPECT_EQ(good.qp->state, QpState::kRts);
  EXPECT_EQ(victim.qp->state, QpState::kRts);
  EXPECT_LE(kept(), Options{}.early_packets);
}

TEST_F(Flood, IsAnsweredWithinBounds) {
  for (uint32_t i = 0; i < 20000; ++i) tick(true);
  const Stats& stats = victim.endpoint.stats();
  // 16 a millisecond, and there were twenty of them.
  EXPECT_LE(stats.resets_sent, 21u * Options{}.stray_replies_per_ms);
  EXPECT_GT(stats.rx_unknown_qp, 2000u);
  EXPECT_GT(stats.rx_wrong_peer, 4000u);
  EXPECT_LE(answers, sent) << "no more than one packet for each";
}

}  // namespace
}  // namespace tbt::engine
