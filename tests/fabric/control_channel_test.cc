// The client of the control channel, against packets written by hand: what is sent when, how often
// it is repeated, which replies count, and what is acknowledged.
#include "fabric/control_channel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace tbt::fabric {
namespace {

using namespace wire::tb;

ConfigAccess read_of(uint16_t offset, uint8_t length = 1) {
  return config_read(ConfigSpace::kRouter, 0, offset, length);
}

class Driver {
 public:
  // The next packet that goes out, if there is one.
  std::optional<ControlPacket> sent() {
    ControlFrame frame;
    if (!channel.poll_transmit(now, frame)) return std::nullopt;
    ControlPacket packet;
    EXPECT_EQ(decode_control_packet(static_cast<uint8_t>(frame.pdf), frame.span(), packet),
              PacketError::kNone);
    return packet;
  }
  template <typename T>
  std::optional<T> sent_as() {
    const auto packet = sent();
    if (!packet || !std::holds_alternative<T>(*packet)) return std::nullopt;
    return std::get<T>(*packet);
  }
  void receive(const ControlPacket& packet) {
    ControlFrame frame;
    encode_control_packet(packet, frame);
    channel.handle_packet(now, static_cast<uint8_t>(frame.pdf), frame.span());
  }
  void reply(const ReadRequest& request, std::initializer_list<uint32_t> words) {
    ReadReply packet{request.route, request.address, {}};
    packet.address.adapter = 5;  // the router's upstream adapter, whatever was asked
    for (const uint32_t word : words) packet.data.push(word);
    receive(packet);
  }
  template <typename T>
  std::optional<T> event() {
    ChannelEvent out;
    if (!channel.poll_event(out) || !std::holds_alternative<T>(out)) return std::nullopt;
    return std::get<T>(out);
  }
  bool quiet() {
    ChannelEvent out;
    return !sent() && !channel.poll_event(out);
  }
  void wait() {
    ASSERT_FALSE(channel.poll_timeout().is_never());
    now = std::max(now, channel.poll_timeout());
    channel.handle_timeout(now);
  }

  Instant now{7'000'000'000};
  ControlChannel channel;
};

TEST(ControlChannel, AReadIsAnsweredByItsReply) {
  Driver d;
  const uint32_t ticket = d.channel.post(read_of(3, 2));
  const auto request = d.sent_as<ReadRequest>();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->address.offset, 3);
  EXPECT_EQ(request->address.length, 2);
  EXPECT_FALSE(d.channel.idle());
  d.reply(*request, {0xaaaa, 0xbbbb});
  const auto result = d.event<ConfigResult>();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->ticket, ticket);
  EXPECT_TRUE(result->done());
  EXPECT_EQ(result->word(1), 0xbbbbu);
  EXPECT_TRUE(d.channel.idle());
  EXPECT_TRUE(d.channel.poll_timeout().is_never());
}

TEST(ControlChannel, AWriteIsAnsweredByAWriteReplyOnly) {
  Driver d;
  const uint32_t words[] = {1, 2, 3};
  d.channel.post(config_write(ConfigSpace::kPath, 4, 16, words));
  const auto request = d.sent_as<WriteRequest>();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->address.length, 3);
  EXPECT_EQ(request->address.adapter, 4);
  EXPECT_TRUE(std::ranges::equal(request->data.span(), words));
  ReadReply wrong{request->route, request->address, request->data};
  d.receive(wrong);
  EXPECT_EQ(d.channel.stats().stray_replies, 1u);
  d.receive(WriteReply{request->route, request->address});
  EXPECT_TRUE(d.event<ConfigResult>()->done());
}

TEST(ControlChannel, OneRequestIsOutstandingPerRouteInOrder) {
  Driver d;
  d.channel.post(read_of(1));
  d.channel.post(read_of(2));
  ConfigAccess elsewhere = read_of(3);
  elsewhere.route = Route{1};
  d.channel.post(elsewhere);
  const auto first = d.sent_as<ReadRequest>();
  EXPECT_EQ(first->address.offset, 1);
  EXPECT_EQ(d.sent_as<ReadRequest>()->address.offset, 3) << "another router";
  EXPECT_FALSE(d.sent());
  d.reply(*first, {0});
  EXPECT_EQ(d.sent_as<ReadRequest>()->address.offset, 2);
}

TEST(ControlChannel, RepliesThatDifferInAnyFieldAreStray) {
  Driver d;
  d.channel.post(read_of(3, 2));
  const auto request = d.sent_as<ReadRequest>();
  std::vector<ReadReply> wrong(5, ReadReply{request->route, request->address, {}});
  wrong[0].route = Route{1};
  ++wrong[1].address.offset;
  wrong[2].address.length = 1;
  wrong[3].address.space = ConfigSpace::kAdapter;
  wrong[4].address.sequence ^= 1;
  for (ReadReply& reply : wrong) {
    for (uint32_t i = 0; i < reply.address.length; ++i) reply.data.push(i);
    d.receive(reply);
  }
  EXPECT_TRUE(d.quiet());
  EXPECT_EQ(d.channel.stats().stray_replies, wrong.size());
  d.reply(*request, {8, 9});
  EXPECT_EQ(d.event<ConfigResult>()->word(0), 8u);
  d.reply(*request, {8, 9});
  EXPECT_TRUE(d.quiet()) << "a second reply answers nothing";
}

TEST(ControlChannel, AnUnansweredRequestIsRepeatedWithAnotherSequenceThenGivenUp) {
  Driver d;
  const uint32_t ticket = d.channel.post(read_of(1));
  d.channel.post(read_of(2));
  std::vector<uint8_t> sequences;
  for (uint32_t i = 0; i < kConfigAttempts; ++i) {
    const auto request = d.sent_as<ReadRequest>();
    ASSERT_TRUE(request);
    EXPECT_EQ(request->address.offset, 1) << "before the one behind it";
    sequences.push_back(request->address.sequence);
    EXPECT_EQ(d.channel.poll_timeout(), d.now + kConfigTimeout);
    d.channel.handle_timeout(d.now + (kConfigTimeout - Duration{1}));
    EXPECT_TRUE(d.quiet()) << "too early";
    d.wait();
  }
  std::ranges::sort(sequences);
  EXPECT_EQ(sequences, (std::vector<uint8_t>{0, 1, 2, 3}));
  const auto result = d.event<ConfigResult>();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->ticket, ticket);
  EXPECT_EQ(result->outcome, ConfigOutcome::kNoAnswer);
  EXPECT_EQ(d.sent_as<ReadRequest>()->address.offset, 2);
  EXPECT_EQ(d.channel.stats().retries, kConfigAttempts - 1);
  EXPECT_EQ(d.channel.stats().unanswered, 1u);
}

TEST(ControlChannel, ALateReplyToTheFirstAttemptIsNotTakenForTheSecond) {
  Driver d;
  d.channel.post(read_of(1));
  const auto first = d.sent_as<ReadRequest>();
  d.wait();
  const auto second = d.sent_as<ReadRequest>();
  d.reply(*first, {1});
  EXPECT_TRUE(d.quiet());
  d.reply(*second, {2});
  EXPECT_EQ(d.event<ConfigResult>()->word(0), 2u);
}

// Polling reads the same dword again and again.
TEST(ControlChannel, AReplyToTheLastRequestIsNotTakenForTheNextOne) {
  Driver d;
  d.channel.post(read_of(1));
  const auto first = d.sent_as<ReadRequest>();
  d.reply(*first, {1});
  ASSERT_TRUE(d.event<ConfigResult>());
  d.channel.post(read_of(1));
  ASSERT_TRUE(d.sent());
  d.reply(*first, {1});
  EXPECT_TRUE(d.quiet());
}

TEST(ControlChannel, AnErrorAnswersTheOutstandingRequestOfItsRoute) {
  Driver d;
  d.receive(Notification{Route{}, kNoSuchAdapter, 9});
  EXPECT_TRUE(d.quiet());
  EXPECT_EQ(d.channel.stats().stray_errors, 1u);
  const uint32_t ticket = d.channel.post(read_of(1));
  ASSERT_TRUE(d.sent());
  d.receive(Notification{Route{2}, kNotConnected, 0});
  EXPECT_TRUE(d.quiet()) << "of another route";
  d.receive(Notification{Route{}, kNoSuchAdapter, 9});
  const auto result = d.event<ConfigResult>();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->ticket, ticket);
  EXPECT_EQ(result->outcome, ConfigOutcome::kRefused);
  EXPECT_EQ(result->error, kNoSuchAdapter);
  EXPECT_TRUE(d.quiet()) << "an error that is an answer is not acknowledged";
}

TEST(ControlChannel, NewsOfARouterIsAcknowledgedAndPassedOnAndAnswersNothing) {
  Driver d;
  d.channel.post(read_of(1));
  ASSERT_TRUE(d.sent());
  for (const uint8_t code :
       {kLinkError, kHecError, kFlowControlError, kDpBandwidth, kLinkRecovery, kAsymmetricLink}) {
    d.receive(Notification{Route{}, code, 3});
    EXPECT_TRUE(d.sent_as<NotificationAck>()) << int{code};
    const auto news = d.event<Notification>();
    ASSERT_TRUE(news);
    EXPECT_EQ(news->code, code);
    EXPECT_EQ(news->adapter, 3);
  }
  EXPECT_FALSE(d.channel.idle()) << "the request still waits";
}

TEST(ControlChannel, HotPlugEventsAreAllAcknowledgedButToldOnce) {
  Driver d;
  const HotPlug plug{Route{}, 3, false}, unplug{Route{}, 3, true};
  for (int i = 0; i < 3; ++i) {
    d.receive(plug);
    const auto ack = d.sent_as<HotPlugAck>();
    ASSERT_TRUE(ack);
    EXPECT_EQ(ack->adapter, 3);
    EXPECT_FALSE(ack->unplug);
  }
  EXPECT_EQ(*d.event<HotPlug>(), plug);
  EXPECT_TRUE(d.quiet());
  EXPECT_EQ(d.channel.stats().repeated_hot_plugs, 2u);
  // Out and in again is two events, however fast.
  d.receive(unplug);
  d.receive(plug);
  EXPECT_TRUE(d.sent_as<HotPlugAck>()->unplug);
  EXPECT_EQ(*d.event<HotPlug>(), unplug);
  EXPECT_EQ(*d.event<HotPlug>(), plug);
  // Another adapter, or much later, is no repetition.
  d.receive(HotPlug{Route{}, 5, false});
  EXPECT_TRUE(d.event<HotPlug>());
  d.now = d.now + kHotPlugRepeat;
  d.receive(plug);
  EXPECT_TRUE(d.event<HotPlug>());
}

TEST(ControlChannel, MessagesBetweenHostsPassBothWaysAndFirmwareIsReportedOnce) {
  Driver d;
  XDomainPacket packet;
  packet.route = Route{1};
  packet.protocol = kDiscoveryProtocol;
  packet.body.push(12u);
  d.channel.send(packet);
  EXPECT_EQ(*d.sent_as<XDomainPacket>(), packet);
  packet.from_router = true;
  d.receive(packet);
  EXPECT_EQ(*d.event<XDomainPacket>(), packet);
  packet.from_router = false;
  d.receive(packet);
  EXPECT_TRUE(d.quiet()) << "our own, sent back";

  const std::vector<std::byte> words(16);
  for (int i = 0; i < 2; ++i) d.channel.handle_packet(d.now, 10, words);
  EXPECT_TRUE(d.event<FirmwareSeen>());
  EXPECT_TRUE(d.quiet());
  EXPECT_EQ(d.channel.stats().firmware, 2u);
}

TEST(ControlChannel, WhatCannotBeReadIsCountedByReason) {
  Driver d;
  ControlFrame frame;
  encode_control_packet(HotPlug{Route{}, 3, false}, frame);
  frame.buffer[9] ^= std::byte{1};
  d.channel.handle_packet(d.now, 5, frame.span());
  d.channel.handle_packet(d.now, 5, frame.span().first(5));
  EXPECT_TRUE(d.quiet());
  EXPECT_EQ(d.channel.stats().malformed[static_cast<size_t>(PacketError::kBadChecksum)], 1u);
  EXPECT_EQ(d.channel.stats().malformed[static_cast<size_t>(PacketError::kBadSize)], 1u);
  d.receive(ReadRequest{Route{}, {}});
  EXPECT_EQ(d.channel.stats().unexpected, 1u) << "a router's to answer";
}

TEST(ControlChannel, ACancelledRequestIsNeitherRepeatedNorReported) {
  Driver d;
  const uint32_t ticket = d.channel.post(read_of(1));
  const auto request = d.sent_as<ReadRequest>();
  d.channel.cancel(ticket);
  EXPECT_TRUE(d.channel.poll_timeout().is_never());
  d.reply(*request, {1});
  EXPECT_TRUE(d.quiet());
}

TEST(ControlChannel, AFloodOfEventsIsAcknowledgedInPart) {
  Driver d;
  for (int i = 0; i < 1000; ++i) d.receive(Notification{Route{}, kLinkRecovery, 1});
  int acknowledged = 0;
  while (d.sent_as<NotificationAck>()) ++acknowledged;
  EXPECT_EQ(acknowledged, 64);
  EXPECT_EQ(d.channel.stats().overflows, 936u);
}

}  // namespace
}  // namespace tbt::fabric
