// ARP and ICMP echo over IPv4, whole and in fragments; and what is not answered.
#include "ip/responder.h"

#include "packets.h"

namespace tbt::ip {
namespace {

using namespace test;

constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

Packet arp_request(const Ipv4& target, const Ipv4& sender = peer_identity().ipv4) {
  Packet p = ethernet(kBroadcast, 0x0806);
  put(p, {0, 1, 0x08, 0, 6, 4, 0, 1});
  put(p, peer_identity().mac);
  put(p, sender);
  put(p, Mac{});
  put(p, target);
  return p;
}

struct Echo {
  Ipv4 source = peer_identity().ipv4, target = own_identity().ipv4;
  unsigned type = 8, code = 0, protocol = 1, id = 0x1234, fragment = 0;
};

// The payload is what follows the IPv4 header.
Packet ipv4_packet(const Echo& e, const Packet& payload) {
  Packet p = ethernet(own_identity().mac, 0x0800);
  put(p, {0x45, 0});
  put16(p, 20 + payload.size());
  put16(p, e.id);
  put16(p, e.fragment);
  put(p, {17, e.protocol, 0, 0});
  put(p, e.source);
  put(p, e.target);
  set16(p, 24, 0xffff - sum_of(p, 14, 34));
  p.insert(p.end(), payload.begin(), payload.end());
  return p;
}

Packet icmp_echo(const Echo& e, size_t data) {
  Packet icmp;
  put(icmp, {e.type, e.code, 0, 0, 0xab, 0xcd, 0, 7});
  for (size_t i = 0; i < data; ++i) put(icmp, {static_cast<unsigned>(i * 7 & 0xff)});
  set16(icmp, 2, 0xffff - sum_of(icmp, 0, icmp.size()));
  return icmp;
}
Packet echo(const Echo& e = {}, size_t data = 56) { return ipv4_packet(e, icmp_echo(e, data)); }

void expect_turned_round(const Packet& answer) {
  EXPECT_TRUE(stands_at(answer, 0, peer_identity().mac));
  EXPECT_TRUE(stands_at(answer, 6, own_identity().mac));
}
void expect_ipv4_header(const Packet& answer, unsigned id) {
  EXPECT_EQ(sum_of(answer, 14, 34), 0xffffu) << "checksum of the header";
  EXPECT_TRUE(stands_at(answer, 26, own_identity().ipv4));
  EXPECT_TRUE(stands_at(answer, 30, peer_identity().ipv4));
  EXPECT_EQ(answer[22], std::byte{64});
  EXPECT_EQ(get16(answer, 18), id);
}

TEST(Responder, AnswersArpForItsAddress) {
  Responder responder(own_identity());
  Packet request = arp_request(own_identity().ipv4);
  request.resize(60);  // some fill it up
  const Packet answer = answer_of(responder, request);
  ASSERT_EQ(answer.size(), 42u);
  expect_turned_round(answer);
  EXPECT_EQ(get16(answer, 20), 2u);
  EXPECT_TRUE(stands_at(answer, 22, own_identity().mac));
  EXPECT_TRUE(stands_at(answer, 28, own_identity().ipv4));
  EXPECT_TRUE(stands_at(answer, 32, peer_identity().mac));
  EXPECT_TRUE(stands_at(answer, 38, peer_identity().ipv4));
}

TEST(Responder, TellsAProbeThatTheAddressIsTaken) {
  Responder responder(own_identity());
  EXPECT_EQ(answer_of(responder, arp_request(own_identity().ipv4, {})).size(), 42u);
  EXPECT_TRUE(answer_of(responder, arp_request({169, 254, 84, 2})).empty());
  EXPECT_TRUE(answer_of(responder, arp_request(peer_identity().ipv4)).empty()) << "not its own";
  // An announcement of somebody who has our address.
  EXPECT_TRUE(answer_of(responder, arp_request(own_identity().ipv4, own_identity().ipv4)).empty());
}

TEST(Responder, NoArpButARequestForIpv4IsAnswered) {
  for (const size_t at : {14u, 15u, 16u, 17u, 18u, 19u, 20u, 21u}) {
    Responder responder(own_identity());
    Packet request = arp_request(own_identity().ipv4);
    request[at] ^= std::byte{2};
    EXPECT_TRUE(answer_of(responder, request).empty()) << at;
    EXPECT_EQ(responder.stats().ignored, 1u);
  }
}

TEST(Responder, AnswersAnEcho) {
  for (const size_t data : {size_t{0}, size_t{1}, size_t{56}, size_t{1400}, size_t{65000}}) {
    Responder responder(own_identity());
    const Packet request = echo({}, data);
    const Packet answer = answer_of(responder, request);
    ASSERT_EQ(answer.size(), request.size());
    expect_turned_round(answer);
    expect_ipv4_header(answer, 0x1234);
    EXPECT_EQ(answer[34], std::byte{0});
    EXPECT_EQ(sum_of(answer, 34, answer.size()), 0xffffu) << "checksum of ICMP";
    EXPECT_TRUE(std::equal(answer.begin() + 38, answer.end(), request.begin() + 38));
  }
}

// Every sum that the checksum can have, so that its carry is met.
TEST(Responder, TheChecksumIsRightWhateverItWas) {
  Responder responder(own_identity());
  for (unsigned word = 0; word < 0x10000; word += 7) {
    Packet icmp = icmp_echo({}, 2);
    set16(icmp, 8, word);
    set16(icmp, 2, 0);
    set16(icmp, 2, 0xffff - sum_of(icmp, 0, icmp.size()));
    const Packet answer = answer_of(responder, ipv4_packet({}, icmp));
    ASSERT_EQ(answer.size(), 44u);
    ASSERT_EQ(sum_of(answer, 34, answer.size()), 0xffffu) << word;
  }
}

TEST(Responder, WhatFillsAPacketUpIsLeftOut) {
  Responder responder(own_identity());
  Packet request = echo({}, 4);
  const size_t bytes = request.size();
  request.resize(60, std::byte{0xee});
  EXPECT_EQ(answer_of(responder, request).size(), bytes);
}

TEST(Responder, OthersAndOtherThingsAreNotAnswered) {
  Responder responder(own_identity());
  std::vector<Packet> packets = {
      echo({.target = {169, 254, 84, 9}}),
      echo({.target = {169, 254, 255, 255}}),
      echo({.source = own_identity().ipv4}),
      echo({.source = {224, 0, 0, 1}}),
      echo({.source = {0, 0, 0, 0}}),
      echo({.source = {255, 255, 255, 255}}),
      echo({.type = 0}),
      echo({.type = 3}),
      echo({.code = 1}),
      echo({.protocol = 17}),
  };
  packets.push_back(echo());
  packets.back()[0] ^= std::byte{4};  // another station
  packets.push_back(echo());
  std::memset(packets.back().data(), 0xff, 6);  // to all
  packets.push_back(echo());
  packets.back()[6] |= std::byte{1};  // no single host can have sent it
  packets.push_back(echo());
  std::memcpy(packets.back().data() + 6, own_identity().mac.data(), 6);
  packets.push_back(echo());
  set16(packets.back(), 12, 0x88cc);
  packets.push_back(echo());
  packets.back()[14] = std::byte{0x46};  // options
  for (size_t i = 0; i < packets.size(); ++i) {
    EXPECT_TRUE(answer_of(responder, packets[i]).empty()) << i;
  }
  EXPECT_EQ(responder.stats().ignored, packets.size());
  EXPECT_EQ(answer_of(responder, echo()).size(), echo().size()) << "but this is";
}

TEST(Responder, DamageIsNoticed) {
  const Packet whole = echo();
  for (size_t at = 14; at < whole.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Responder responder(own_identity());
      Packet damaged = whole;
      damaged[at] ^= static_cast<std::byte>(1u << bit);
      EXPECT_TRUE(answer_of(responder, damaged).empty()) << at << ", bit " << bit;
    }
  }
}

TEST(Responder, EveryTruncationIsSurvived) {
  for (const Packet& whole : {echo(), arp_request(own_identity().ipv4)}) {
    for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
      Responder responder(own_identity());
      EXPECT_TRUE(
          answer_of(responder, {whole.begin(), whole.begin() + static_cast<long>(bytes)}).empty())
          << bytes;
    }
  }
}

TEST(Responder, TheAnswerIsNotAnswered) {
  Responder responder(own_identity()), other(peer_identity());
  for (const Packet& request : {echo(), arp_request(own_identity().ipv4)}) {
    const Packet answer = answer_of(responder, request);
    ASSERT_FALSE(answer.empty());
    EXPECT_TRUE(answer_of(other, answer).empty());
  }
}

// An echo request of `data` bytes in fragments of at most 1480.
std::vector<Packet> fragments(const Echo& e, size_t data) {
  const Packet icmp = icmp_echo(e, data);
  std::vector<Packet> out;
  for (size_t at = 0; at < icmp.size(); at += 1480) {
    const size_t end = std::min(icmp.size(), at + 1480);
    Echo part = e;
    part.fragment = static_cast<unsigned>(at / 8) | (end < icmp.size() ? 0x2000 : 0);
    out.push_back(ipv4_packet(
        part, {icmp.begin() + static_cast<long>(at), icmp.begin() + static_cast<long>(end)}));
  }
  return out;
}

// Puts the answers' payloads together; empty if one is missing.
Packet joined(Responder& responder, const std::vector<Packet>& requests) {
  Packet whole;
  for (const Packet& request : requests) {
    const Packet answer = answer_of(responder, request);
    if (answer.size() != request.size()) return {};
    EXPECT_EQ(get16(answer, 20), get16(request, 20)) << "offset and flag";
    EXPECT_EQ(sum_of(answer, 14, 34), 0xffffu);
    whole.insert(whole.end(), answer.begin() + 34, answer.end());
  }
  return whole;
}

TEST(Responder, FragmentsOfAnEchoMakeAnEcho) {
  Responder responder(own_identity());
  const Packet whole = joined(responder, fragments({}, 20000));
  ASSERT_EQ(whole.size(), 20008u);
  EXPECT_EQ(whole[0], std::byte{0});
  EXPECT_EQ(sum_of(whole, 0, whole.size()), 0xffffu) << "checksum of the whole";
}

TEST(Responder, FragmentsOfWhatWasNotAnsweredAreNot) {
  Responder responder(own_identity());
  auto parts = fragments({}, 5000);
  for (const bool is_echo : {false, true}) {
    auto first = fragments({.type = is_echo ? 8u : 0u}, 5000)[0];
    EXPECT_EQ(answer_of(responder, first).empty(), !is_echo);
    for (size_t i = 1; i < parts.size(); ++i) {
      EXPECT_EQ(answer_of(responder, parts[i]).empty(), !is_echo) << i;
    }
    EXPECT_TRUE(answer_of(responder, parts.back()).empty()) << "it was the last one";
  }
  answer_of(responder, parts[0]);
  auto other = fragments({.id = 99}, 5000);
  EXPECT_TRUE(answer_of(responder, other[1]).empty());
  other = fragments({.source = {169, 254, 84, 77}}, 5000);
  EXPECT_TRUE(answer_of(responder, other[1]).empty());
  EXPECT_FALSE(answer_of(responder, parts[1]).empty());
}

TEST(Responder, AFewFragmentedEchosMayOverlap) {
  Responder responder(own_identity());
  std::vector<std::vector<Packet>> echos;
  for (unsigned id = 0; id < 6; ++id) echos.push_back(fragments({.id = id}, 3000));
  for (const auto& parts : echos) ASSERT_FALSE(answer_of(responder, parts[0]).empty());
  for (unsigned id = 0; id < 6; ++id) {
    EXPECT_EQ(answer_of(responder, echos[id][1]).empty(), id < 2) << "the oldest are forgotten";
  }
}

}  // namespace
}  // namespace tbt::ip
