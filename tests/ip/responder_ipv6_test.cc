// ICMPv6: echo, to us and to all nodes, and neighbour solicitations.
#include "ip/responder.h"
#include "packets.h"

namespace tbt::ip {
namespace {

using namespace test;

constexpr Ipv6 kAllNodes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01};

Ipv6 solicited_node_of(const Ipv6& a) {
  return {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff, a[13], a[14], a[15]};
}

unsigned icmp6_sum(const Packet& p) {
  const size_t length = get16(p, 18);
  return sum_of(p, 54, 54 + length, sum_of(p, 22, 54, static_cast<unsigned>(length) + 58));
}

Packet icmp6(const Ipv6& source, const Ipv6& target, unsigned hop_limit, const Packet& body) {
  const Mac group = {0x33, 0x33, target[12], target[13], target[14], target[15]};
  Packet p = ethernet(target[0] == 0xff ? group : own_identity().mac, 0x86dd);
  put(p, {0x60, 0, 0, 0});
  put16(p, body.size());
  put(p, {58, hop_limit});
  put(p, source);
  put(p, target);
  p.insert(p.end(), body.begin(), body.end());
  set16(p, 56, 0);
  set16(p, 56, 0xffff - icmp6_sum(p));
  return p;
}

Packet echo(const Ipv6& target, size_t data = 56, unsigned type = 128) {
  Packet body;
  put(body, {type, 0, 0, 0, 1, 2, 3, 4});
  for (size_t i = 0; i < data; ++i) put(body, {static_cast<unsigned>(i & 0xff)});
  return icmp6(peer_identity().ipv6, target, 64, body);
}

Packet solicitation(const Ipv6& about, bool has_address = true, unsigned hop_limit = 255) {
  Packet body;
  put(body, {135, 0, 0, 0, 0, 0, 0, 0});
  put(body, about);
  if (has_address) {
    put(body, {1, 1});
    put(body, peer_identity().mac);
  }
  return icmp6(has_address ? peer_identity().ipv6 : Ipv6{}, solicited_node_of(about), hop_limit,
               body);
}

TEST(ResponderIpv6, AnswersAnEchoToItAndToAllNodes) {
  for (const Ipv6& target : {own_identity().ipv6, kAllNodes}) {
    for (const size_t data : {size_t{0}, size_t{3}, size_t{56}, size_t{60000}}) {
      Responder responder(own_identity());
      const Packet request = echo(target, data);
      const Packet answer = answer_of(responder, request);
      ASSERT_EQ(answer.size(), request.size());
      EXPECT_TRUE(stands_at(answer, 0, peer_identity().mac));
      EXPECT_TRUE(stands_at(answer, 6, own_identity().mac));
      EXPECT_TRUE(stands_at(answer, 22, own_identity().ipv6)) << "never the group's";
      EXPECT_TRUE(stands_at(answer, 38, peer_identity().ipv6));
      EXPECT_EQ(answer[54], std::byte{129});
      EXPECT_EQ(icmp6_sum(answer), 0xffffu);
      EXPECT_TRUE(std::equal(answer.begin() + 58, answer.end(), request.begin() + 58));
    }
  }
}

TEST(ResponderIpv6, AnswersASolicitationForItsAddress) {
  Responder responder(own_identity());
  const Packet answer = answer_of(responder, solicitation(own_identity().ipv6));
  ASSERT_EQ(answer.size(), 86u);
  EXPECT_TRUE(stands_at(answer, 0, peer_identity().mac));
  EXPECT_EQ(get16(answer, 18), 32u);
  EXPECT_EQ(answer[21], std::byte{255}) << "or it would not be believed";
  EXPECT_TRUE(stands_at(answer, 22, own_identity().ipv6));
  EXPECT_TRUE(stands_at(answer, 38, peer_identity().ipv6));
  EXPECT_EQ(answer[54], std::byte{136});
  EXPECT_EQ(answer[58], std::byte{0x60}) << "solicited, override";
  EXPECT_TRUE(stands_at(answer, 62, own_identity().ipv6));
  EXPECT_EQ(get16(answer, 78), 0x0201u) << "option: address of the target";
  EXPECT_TRUE(stands_at(answer, 80, own_identity().mac));
  EXPECT_EQ(icmp6_sum(answer), 0xffffu);
}

TEST(ResponderIpv6, TellsAllNodesThatItsAddressIsTaken) {
  Responder responder(own_identity());
  const Packet answer = answer_of(responder, solicitation(own_identity().ipv6, false));
  ASSERT_EQ(answer.size(), 86u);
  EXPECT_TRUE(stands_at(answer, 0, Mac{0x33, 0x33, 0, 0, 0, 1}));
  EXPECT_TRUE(stands_at(answer, 38, kAllNodes));
  EXPECT_EQ(answer[58], std::byte{0x20}) << "override only";
  EXPECT_EQ(icmp6_sum(answer), 0xffffu);
}

TEST(ResponderIpv6, OthersAreNotAnswered) {
  Responder responder(own_identity());
  Ipv6 other = own_identity().ipv6;
  other[15] ^= 1;
  Ipv6 same_group = own_identity().ipv6;
  same_group[8] ^= 1;
  std::vector<Packet> packets = {
      echo(other),         echo(own_identity().ipv6, 56, 129), echo(own_identity().ipv6, 56, 133),
      solicitation(other), solicitation(same_group),           solicitation(same_group, false)};
  packets.push_back(echo(own_identity().ipv6));
  packets.back()[20] = std::byte{17};  // UDP
  packets.push_back(echo(own_identity().ipv6));
  packets.back()[14] = std::byte{0x40};
  for (size_t i = 0; i < packets.size(); ++i) {
    EXPECT_TRUE(answer_of(responder, packets[i]).empty()) << i;
  }
  EXPECT_EQ(responder.stats().ignored, packets.size());
  // From nobody, from a group, from ourselves.
  Packet body;
  put(body, {128, 0, 0, 0, 1, 2, 3, 4});
  for (const Ipv6& source : {Ipv6{}, kAllNodes, own_identity().ipv6}) {
    EXPECT_TRUE(answer_of(responder, icmp6(source, own_identity().ipv6, 64, body)).empty());
  }
}

TEST(ResponderIpv6, ASolicitationFromElsewhereIsRefused) {
  Responder responder(own_identity());
  EXPECT_TRUE(answer_of(responder, solicitation(own_identity().ipv6, true, 254)).empty());
  EXPECT_EQ(responder.stats().malformed, 1u);
}

TEST(ResponderIpv6, DamageAndTruncationAreNoticed) {
  for (const Packet& whole : {echo(own_identity().ipv6), solicitation(own_identity().ipv6)}) {
    for (size_t at = 18; at < whole.size(); ++at) {
      if (at == 21) continue;  // the hop limit is in no checksum
      Responder responder(own_identity());
      Packet damaged = whole;
      damaged[at] ^= std::byte{0x10};
      EXPECT_TRUE(answer_of(responder, damaged).empty()) << at;
    }
    for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
      Responder responder(own_identity());
      const Packet cut(whole.begin(), whole.begin() + static_cast<long>(bytes));
      EXPECT_TRUE(answer_of(responder, cut).empty()) << bytes;
    }
  }
}

TEST(ResponderIpv6, TheAnswerIsNotAnswered) {
  Responder responder(own_identity()), other(peer_identity());
  for (const Packet& request : {echo(kAllNodes), solicitation(own_identity().ipv6)}) {
    const Packet answer = answer_of(responder, request);
    ASSERT_FALSE(answer.empty());
    EXPECT_TRUE(answer_of(other, answer).empty());
  }
}

}  // namespace
}  // namespace tbt::ip
