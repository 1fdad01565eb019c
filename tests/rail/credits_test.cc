// Flow control in software, on controllers that lose every frame for which there is no buffer:
//
//     host 0: slots 0, 1 ---- cable, no end-to-end credits ---- host 1: slots 0, 1
#include "rail/nhi/credits.h"

#include "rail/nhi/nhi_rail.h"
#include "sys/monotonic_clock.h"
#include "wire/tb/credit_frame.h"
#include "world.h"

namespace tbt::rail::test {
namespace {

using wire::tb::CreditFrame;
using wire::tb::CreditKind;

constexpr uint32_t kSession = 0x5e551014;

WorldConfig without_e2e(uint32_t entries = 16, uint32_t buffers = 48) {
  WorldConfig c;
  c.host.ring_entries = entries;
  c.host.rx_buffers = buffers;
  c.fabric.e2e = false;
  return c;
}

class Pair {
 public:
  explicit Pair(const WorldConfig& config, uint32_t first = 0) : world(config) {
    for (uint32_t h = 0; h < 2; ++h) {
      daemons[h] = std::make_unique<nhi::NhiRail>(*world.memories[h], 0, *world.devices[h],
                                                  kDaemonSlot, classify);
      EXPECT_TRUE(daemons[h]->hold(nhi::RingFlow::kNone, config.host.ring_entries));
      rails[h] = world.open(h, 1);
    }
    for (auto& daemon : daemons) EXPECT_TRUE(daemon->release());
    for (auto& daemon : daemons) EXPECT_TRUE(daemon->use_credits(kSession, first));
    settle();
    for (auto& daemon : daemons) EXPECT_TRUE(daemon->credits_granted());
  }

  // A host to which no packets are on their way looks what is there.
  void look(uint32_t host) {
    rails[host]->advance(sys::monotonic_now().ns);
    std::array<RxPacket, 8> packets;
    EXPECT_EQ(rails[host]->rx_burst(packets), 0u);
  }
  void settle() {
    for (int i = 0; i < 4; ++i) {
      for (uint32_t h = 0; h < 2; ++h) look(h);
    }
  }
  [[nodiscard]] uint64_t overruns() const {
    return world.fabric->counters(0).overruns + world.fabric->counters(1).overruns;
  }
  // What is sent until the sender has to wait, without the receiver's help.
  uint32_t send_all(uint32_t host, uint32_t& number, uint32_t most = UINT32_MAX) {
    uint32_t n = 0;
    while (n < most && send(*rails[host], 1, number)) ++number, ++n;
    return n;
  }
  // Takes what has arrived; each number must be the next one, if none can be lost.
  void take_all(uint32_t host, uint32_t& expected, bool lossless = true) {
    rails[host]->advance(sys::monotonic_now().ns);
    for (auto numbers = receive(*rails[host]); !numbers.empty(); numbers = receive(*rails[host])) {
      for (const uint32_t number : numbers) {
        if (lossless) {
          EXPECT_EQ(number, expected);
        }
        EXPECT_GE(number, expected);
        expected = number + 1;
      }
    }
  }
  void set_drop(uint32_t ppm) {
    emulated::CableParams params;
    params.drop_ppm = ppm;
    world.fabric->set_params(0, params);
  }

  World world;
  std::array<std::unique_ptr<nhi::NhiRail>, 2> daemons;
  std::array<std::unique_ptr<Rail>, 2> rails;
};

// Moves on until `numbers` have been sent and received by each host, or five seconds have passed.
void exchange(Pair& pair, uint32_t numbers, bool lossless = true) {
  std::array<uint32_t, 2> sent{}, got{};
  const int64_t end = sys::monotonic_now().ns + 5'000'000'000;
  while ((got[0] < numbers || got[1] < numbers) && sys::monotonic_now().ns < end) {
    for (uint32_t h = 0; h < 2; ++h) {
      pair.send_all(h, sent[h], std::min(7u, numbers - sent[h]));
      pair.take_all(h, got[h], lossless);
    }
    if (!lossless && sent[0] == numbers && sent[1] == numbers) break;
  }
  EXPECT_EQ(sent[0], numbers);
  EXPECT_EQ(sent[1], numbers);
  if (lossless) {
    EXPECT_EQ(got[0], numbers);
    EXPECT_EQ(got[1], numbers);
  }
}

TEST(CreditFrame, SaysWhatWasPutIntoItAndNothingElseIsBelieved) {
  const CreditFrame frame{CreditKind::kCredit, true, 7, 0xfffffff0, 0x10203040};
  std::array<std::byte, wire::tb::kCreditFrameBytes> bytes;
  encode_credit_frame(frame, bytes.data());
  CreditFrame read;
  ASSERT_TRUE(decode_credit_frame(bytes, read));
  EXPECT_EQ(read, frame);
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_FALSE(decode_credit_frame(std::span(bytes).first(i), read));
    for (int bit = 0; bit < 8; ++bit) {
      auto damaged = bytes;
      damaged[i] ^= std::byte(1u << bit);
      EXPECT_FALSE(decode_credit_frame(damaged, read)) << i;
    }
  }
}

TEST(RailCredits, TheSenderWaitsWhenThePeerHasNoBufferAndNothingIsLost) {
  Pair pair(without_e2e());
  uint32_t sent = 0, got = 0;
  const uint32_t first = pair.send_all(0, sent);
  EXPECT_GE(first, 10u) << "most of the 15 buffers are for data";
  EXPECT_LE(first, 15u);
  EXPECT_FALSE(send(*pair.rails[0], 1, sent));
  for (int round = 0; round < 1000; ++round) {
    pair.take_all(1, got);
    EXPECT_EQ(got, sent);
    pair.look(0);
    EXPECT_GT(pair.send_all(0, sent), 0u) << "goes on after round " << round;
  }
  EXPECT_EQ(pair.overruns(), 0u);
  EXPECT_GT(pair.rails[0]->stats().tx_held_up, 0u);
}

TEST(RailCredits, WithoutThemTheSameTrafficLosesFrames) {
  Pair pair(without_e2e());
  for (auto& daemon : pair.daemons) EXPECT_TRUE(daemon->use_credits(0));
  uint32_t sent = 0;
  EXPECT_EQ(pair.send_all(0, sent, 100), 100u);
  EXPECT_GT(pair.overruns(), 0u);
}

TEST(RailCredits, BothDirectionsFullGoOn) {
  for (const uint32_t entries : {8u, 16u, 64u, 256u}) {
    Pair pair(without_e2e(entries, 3 * entries));
    std::array<uint32_t, 2> sent{}, got{};
    for (int round = 0; round < 200; ++round) {
      for (uint32_t h = 0; h < 2; ++h) EXPECT_GT(pair.send_all(h, sent[h]), 0u) << entries;
      for (uint32_t h = 0; h < 2; ++h) pair.take_all(h, got[h]);
      for (uint32_t h = 0; h < 2; ++h) pair.take_all(h, got[h]);
    }
    EXPECT_EQ(pair.overruns(), 0u) << entries;
    EXPECT_EQ(pair.rails[0]->stats().credit_refused, 0u);
  }
}

TEST(RailCredits, CreditFramesDoNotCallForEachOther) {
  Pair pair(without_e2e(256, 768));
  exchange(pair, 1000);
  pair.settle();
  const uint64_t before = pair.rails[0]->stats().credit_frames;
  for (int i = 0; i < 100; ++i) pair.settle();
  EXPECT_EQ(pair.rails[0]->stats().credit_frames, before);
  EXPECT_LT(before, 1000u / 16) << "one for many frames";
}

TEST(RailCredits, CountsWrapAround) {
  for (const uint32_t first : {0xffffffffu, 0xfffffff0u, 0x7ffffff8u}) {
    Pair pair(without_e2e(), first);
    exchange(pair, 2000);
    EXPECT_EQ(pair.overruns(), 0u);
  }
}

// Three frames of ten are lost, credit frames among them.
TEST(RailCredits, LostFramesAreNoLostCredit) {
  Pair pair(without_e2e(64, 192));
  pair.set_drop(300'000);
  exchange(pair, 3000, /*lossless=*/false);
  pair.set_drop(0);
  EXPECT_EQ(pair.overruns(), 0u);
  const int64_t end = sys::monotonic_now().ns + 2'000'000'000;
  std::array<uint32_t, 2> sent{100'000, 100'000}, got{};
  for (uint32_t h = 0; h < 2; ++h) pair.take_all(h, got[h], false);
  // The full window is there again.
  uint32_t most = 0;
  while (most < 50 && sys::monotonic_now().ns < end) {
    for (uint32_t h = 0; h < 2; ++h) {
      most = std::max(most, pair.send_all(h, sent[h]));
      pair.take_all(1 - h, got[1 - h], false);
      pair.take_all(h, got[h], false);
    }
  }
  EXPECT_GE(most, 50u);
  EXPECT_EQ(pair.overruns(), 0u);
}

// All that a sender may send is lost, and all that it asks for a while.
TEST(RailCredits, ALongSilenceIsSurvived) {
  Pair pair(without_e2e());
  pair.set_drop(1'000'000);
  uint32_t sent = 0, got = 0;
  const int64_t silent = sys::monotonic_now().ns + 50'000'000;
  while (sys::monotonic_now().ns < silent) {
    pair.send_all(0, sent);
    pair.take_all(1, got);
    pair.look(0);
  }
  EXPECT_EQ(got, 0u);
  EXPECT_LE(sent, 15u);
  EXPECT_GT(pair.rails[0]->stats().credit_requests, 1u);
  pair.set_drop(0);
  const uint32_t before = sent;
  const int64_t end = sys::monotonic_now().ns + 2'000'000'000;
  while (got < before + 100 && sys::monotonic_now().ns < end) {
    pair.send_all(0, sent);
    pair.take_all(1, got, /*lossless=*/false);
    pair.look(0);
  }
  EXPECT_GE(got, before + 100);
  EXPECT_EQ(pair.overruns(), 0u);
}

// A faulty cable that delivers twice takes two buffers for one frame.
TEST(RailCredits, DoubledFramesAreCountedToo) {
  Pair pair(without_e2e(64, 192));
  emulated::CableParams params;
  params.duplicate_ppm = 50'000;
  pair.world.fabric->set_params(0, params);
  std::array<uint32_t, 2> sent{};
  std::vector<RxPacket> packets(64);
  for (int round = 0; round < 4000; ++round) {
    for (uint32_t h = 0; h < 2; ++h) {
      pair.send_all(h, sent[h], 5);
      pair.rails[h]->advance(sys::monotonic_now().ns);
      const size_t n = pair.rails[h]->rx_burst(packets);
      pair.rails[h]->rx_release(std::span(packets).first(n));
    }
  }
  EXPECT_GT(sent[0], 10'000u);
  EXPECT_EQ(pair.overruns(), 0u) << "the credit that a copy takes is not given out again";
}

// A process that keeps its buffers leaves few to the ring: the sender is held to those.
TEST(RailCredits, HeldBuffersAreNotPromised) {
  Pair pair(without_e2e(16, 20));
  uint32_t sent = 0;
  std::array<RxPacket, 64> packets;
  size_t held = 0;
  const int64_t end = sys::monotonic_now().ns + 200'000'000;
  while (sys::monotonic_now().ns < end) {
    pair.send_all(0, sent);
    held += pair.rails[1]->rx_burst(std::span(packets).subspan(held));
    pair.look(0);
  }
  EXPECT_LE(sent, 20u);
  EXPECT_EQ(pair.overruns(), 0u);
  pair.rails[1]->rx_release(std::span(packets).first(held));
  uint32_t got = static_cast<uint32_t>(held);
  for (int i = 0; i < 1000; ++i) {
    pair.send_all(0, sent);
    pair.take_all(1, got);
    pair.look(0);
  }
  EXPECT_GT(got, 1000u);
  EXPECT_EQ(pair.overruns(), 0u);
}

TEST(RailCredits, AnotherSessionsFramesAndImpossibleLimitsAreRefused) {
  Pair pair(without_e2e());
  uint32_t sent = 0;
  pair.send_all(0, sent);
  const auto say = [&](const CreditFrame& frame) { EXPECT_TRUE(pair.daemons[1]->send_held(frame)); };
  say({CreditKind::kCredit, false, kSession + 1, 1000, 1000});
  say({CreditKind::kCredit, false, kSession, 2, sent + 0x20000});
  pair.look(0);
  EXPECT_EQ(pair.rails[0]->stats().credit_refused, 2u);
  EXPECT_FALSE(send(*pair.rails[0], 1, sent));
}

TEST(RailCredits, ANewSessionBeginsAnew) {
  Pair pair(without_e2e());
  exchange(pair, 100);
  for (auto& daemon : pair.daemons) {
    EXPECT_TRUE(daemon->hold(nhi::RingFlow::kNone, 16));
    EXPECT_FALSE(send(*pair.rails[0], 1, 0)) << "held for the daemon";
  }
  for (auto& daemon : pair.daemons) EXPECT_TRUE(daemon->release());
  for (auto& daemon : pair.daemons) EXPECT_TRUE(daemon->use_credits(kSession + 1));
  pair.settle();
  exchange(pair, 1000);
  EXPECT_EQ(pair.overruns(), 0u);
  EXPECT_EQ(pair.world.fabric->counters(0).misuse + pair.world.fabric->counters(1).misuse, 0u);
}

}  // namespace
}  // namespace tbt::rail::test
