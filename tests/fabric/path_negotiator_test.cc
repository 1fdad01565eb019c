// One end of path agreement, driven by hand: who is answered how, when it asks, and what makes an
// agreement void.
#include "fabric/path_negotiator.h"

#include <gtest/gtest.h>

#include <vector>

namespace tbt::fabric {
namespace {

using namespace wire::tb;

constexpr Uuid kSelf = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kPeer = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");
constexpr Uuid kStranger = uuid("deadbeef-0000-0000-0000-000000000001");
constexpr PathEpoch kMine{.incarnation = 7, .generation = 1};
constexpr PathOffer kTheirs{
    .epoch = {.incarnation = 9, .generation = 4}, .rail = 3, .hop_id = 12, .ring_entries = 64};

PathOffer my_offer() { return {.epoch = {}, .rail = 1, .hop_id = 8, .ring_entries = 256}; }
PathOffer theirs_with(uint64_t incarnation, uint32_t generation) {
  PathOffer offer = kTheirs;
  offer.epoch = {incarnation, generation};
  return offer;
}

class Driver {
 public:
  // What goes out next, if anything does.
  std::optional<PathMessage> sent() {
    XDomainPacket packet;
    if (!negotiator.poll_transmit(now, packet)) return std::nullopt;
    PathMessage message;
    EXPECT_EQ(decode_path_message(packet, message), XDomainError::kNone);
    EXPECT_EQ(message.source, kSelf);
    EXPECT_EQ(packet.route, Route{1});
    return message;
  }
  template <typename T>
  std::optional<T> sent_as() {
    const auto message = sent();
    if (!message || !std::holds_alternative<T>(message->content)) return std::nullopt;
    return std::get<T>(message->content);
  }
  void receive(const PathMessage& message) {
    negotiator.handle_packet(
        now, encode_path_message(message, {.route = Route{1}, .from_router = true, .sequence = 2}));
  }
  template <typename T>
  void receive(const T& content) {
    receive(PathMessage{kPeer, kSelf, content});
  }
  void wait() {
    ASSERT_FALSE(negotiator.poll_timeout().is_never());
    now = std::max(now, negotiator.poll_timeout());
    negotiator.handle_timeout(now);
  }

  void preparing() { negotiator.start(kPeer, kMine, 15); }
  void asking() {
    preparing();
    negotiator.offer(now, my_offer());
    ASSERT_TRUE(sent_as<PathRequest>());
  }
  void agreed() {
    asking();
    receive(PathResponse{kMine, kTheirs});
    ASSERT_EQ(negotiator.agreed(), kTheirs);
  }

  Instant now{3'000'000'000};
  PathNegotiator negotiator{kSelf, Route{1}};
};

TEST(PathNegotiator, AsksOnlyOnceItHasAnOffer) {
  Driver d;
  EXPECT_FALSE(d.sent());
  d.preparing();
  EXPECT_TRUE(d.negotiator.preparing());
  EXPECT_FALSE(d.sent());
  d.negotiator.offer(d.now, my_offer());
  const auto request = d.sent_as<PathRequest>();
  ASSERT_TRUE(request);
  PathOffer wanted = my_offer();
  wanted.epoch = kMine;
  EXPECT_EQ(request->offer, wanted);
  EXPECT_FALSE(d.sent()) << "one at a time";
  d.receive(PathResponse{kMine, kTheirs});
  EXPECT_EQ(d.negotiator.state(), AgreementState::kAgreed);
  EXPECT_EQ(d.negotiator.agreed(), kTheirs);
  EXPECT_TRUE(d.negotiator.poll_timeout().is_never());
}

TEST(PathNegotiator, ARequestIsAnsweredWithTheOfferOrNotReady) {
  Driver d;
  d.receive(PathRequest{kTheirs});
  EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathNotReady) << "idle";
  d.preparing();
  d.receive(PathRequest{kTheirs});
  EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathNotReady);
  d.negotiator.offer(d.now, my_offer());
  ASSERT_TRUE(d.sent_as<PathRequest>());
  d.receive(PathRequest{kTheirs});
  const auto response = d.sent_as<PathResponse>();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->answered, kTheirs.epoch);
  EXPECT_EQ(response->offer.epoch, kMine);
  EXPECT_FALSE(d.negotiator.agreed()) << "the peer's request is no answer to ours";
}

TEST(PathNegotiator, ThePeersRequestMakesItAskAgainAtOnce) {
  Driver d;
  d.asking();
  d.receive(PathRefusal{kPathNotReady});
  EXPECT_FALSE(d.sent());
  d.receive(PathRequest{kTheirs});
  EXPECT_TRUE(d.sent_as<PathResponse>());
  EXPECT_TRUE(d.sent_as<PathRequest>());
  d.receive(PathRequest{kTheirs});
  EXPECT_TRUE(d.sent_as<PathResponse>());
  EXPECT_TRUE(d.sent_as<PathRequest>()) << "though one is outstanding";
  d.receive(PathResponse{kMine, kTheirs});
  d.receive(PathRequest{kTheirs});
  EXPECT_TRUE(d.sent_as<PathResponse>());
  EXPECT_FALSE(d.sent()) << "who is agreed has nothing to ask";
}

TEST(PathNegotiator, AsksEverMoreSeldomButForEver) {
  Driver d;
  d.preparing();
  d.negotiator.offer(d.now, my_offer());
  std::vector<int64_t> waits_ms;
  for (uint32_t i = 0; i < kPathAskMax + 2; ++i) {
    EXPECT_EQ(d.negotiator.unanswered(), i >= kPathAskMax);
    const Instant before = d.now;
    ASSERT_TRUE(d.sent_as<PathRequest>());
    d.wait();
    waits_ms.push_back((d.now - before).ns / 1'000'000);
  }
  EXPECT_EQ(waits_ms, (std::vector<int64_t>{50, 50, 50, 50, 50, 50, 100, 200, 400, 800, 1000, 1000,
                                            1000, 5000, 5000, 5000}));
  ASSERT_TRUE(d.sent_as<PathRequest>());
  d.receive(PathResponse{kMine, kTheirs});
  EXPECT_TRUE(d.negotiator.agreed());
  EXPECT_FALSE(d.negotiator.unanswered());
}

TEST(PathNegotiator, AnswersToAnotherEpochAreIgnored) {
  Driver d;
  d.asking();
  d.receive(PathResponse{{7, 0}, kTheirs});
  d.receive(PathResponse{{6, 1}, kTheirs});
  EXPECT_FALSE(d.negotiator.agreed());
  EXPECT_EQ(d.negotiator.stats().ignored, 2u);
  d.receive(PathResponse{kMine, kTheirs});
  d.receive(PathResponse{kMine, theirs_with(10, 0)});
  EXPECT_EQ(d.negotiator.agreed(), kTheirs) << "an answer to no question";
}

TEST(PathNegotiator, StrangersAreToldSoAndChangeNothing) {
  Driver d;
  d.agreed();
  d.receive(PathMessage{kStranger, kSelf, PathRequest{theirs_with(1, 1)}});
  const auto refusal = d.sent();
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->destination, kStranger);
  EXPECT_EQ(std::get<PathRefusal>(refusal->content).code, kPathWrongHost);
  d.receive(PathMessage{kPeer, kStranger, PathRequest{theirs_with(1, 1)}});
  EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathWrongHost);
  d.receive(PathMessage{kStranger, kSelf, PathWithdraw{kTheirs.epoch}});
  EXPECT_FALSE(d.sent());
  EXPECT_EQ(d.negotiator.agreed(), kTheirs);
  EXPECT_EQ(d.negotiator.stats().foreign, 3u);
}

TEST(PathNegotiator, AnotherEpochVoidsTheAgreementAndKeepsOurs) {
  for (const bool restarted : {false, true}) {
    Driver d;
    d.agreed();
    const PathOffer anew = restarted ? theirs_with(10, 4) : theirs_with(9, 5);
    d.receive(PathRequest{anew});
    EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathNotReady);
    EXPECT_TRUE(d.negotiator.preparing());
    EXPECT_FALSE(d.negotiator.agreed() || d.negotiator.offering());
    EXPECT_EQ(d.negotiator.failure(),
              restarted ? "the peer has restarted" : "the peer has begun anew");
    d.negotiator.offer(d.now, my_offer());
    EXPECT_EQ(d.sent_as<PathRequest>()->offer.epoch, kMine);
    d.receive(PathResponse{kMine, anew});
    EXPECT_EQ(d.negotiator.agreed(), anew);
  }
}

// The peer may have been answered under its old epoch, and have sent.
TEST(PathNegotiator, AnotherEpochVoidsAnOfferToo) {
  Driver d;
  d.asking();
  d.receive(PathRequest{kTheirs});
  EXPECT_TRUE(d.sent_as<PathResponse>());
  d.receive(PathRequest{theirs_with(10, 0)});
  EXPECT_TRUE(d.sent_as<PathRefusal>());
  EXPECT_TRUE(d.negotiator.preparing());
}

TEST(PathNegotiator, TheSameRequestAgainIsAnsweredAgain) {
  Driver d;
  d.agreed();
  for (int i = 0; i < 3; ++i) {
    d.receive(PathRequest{kTheirs});
    EXPECT_TRUE(d.sent_as<PathResponse>());
    EXPECT_EQ(d.negotiator.state(), AgreementState::kAgreed);
  }
}

TEST(PathNegotiator, AHopIdThatNoFrameCanLeaveByIsRefused) {
  Driver d;
  d.asking();
  PathOffer far = kTheirs;
  far.hop_id = 16;
  d.receive(PathRequest{far});
  EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathBadHopId);
  d.receive(PathResponse{kMine, far});
  EXPECT_EQ(d.negotiator.state(), AgreementState::kRefused);
  EXPECT_EQ(d.negotiator.failure(), "the peer takes frames by HopID 16, beyond this port's 15");
  EXPECT_FALSE(d.negotiator.offering());
  d.receive(PathRequest{kTheirs});
  EXPECT_TRUE(d.negotiator.preparing()) << "it may have thought better of it";
}

TEST(PathNegotiator, ANewEndWithABadHopIdIsANewEndAllTheSame) {
  Driver d;
  d.agreed();
  PathOffer far = theirs_with(10, 0);
  far.hop_id = 16;
  d.receive(PathRequest{far});
  EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathBadHopId);
  EXPECT_FALSE(d.negotiator.agreed() || d.negotiator.offering());
}

TEST(PathNegotiator, ARefusalIsFinalUntilThePeerAsks) {
  for (const uint32_t code : {uint32_t{kPathUnknownVersion}, uint32_t{kPathBadHopId}, 99u}) {
    Driver d;
    d.asking();
    d.receive(PathRefusal{code});
    EXPECT_EQ(d.negotiator.state(), AgreementState::kRefused);
    EXPECT_TRUE(d.negotiator.poll_timeout().is_never());
  }
  Driver d;
  d.asking();
  d.receive(PathRefusal{kPathWrongHost});
  EXPECT_EQ(d.negotiator.state(), AgreementState::kAsking);
}

TEST(PathNegotiator, AWithdrawalEndsItUntilThePeerAsks) {
  Driver d;
  d.agreed();
  d.receive(PathWithdraw{theirs_with(9, 3).epoch});
  EXPECT_EQ(d.sent_as<PathWithdrawn>()->answered, theirs_with(9, 3).epoch);
  EXPECT_TRUE(d.negotiator.agreed()) << "of an earlier epoch";
  d.receive(PathWithdraw{kTheirs.epoch});
  EXPECT_EQ(d.sent_as<PathWithdrawn>()->answered, kTheirs.epoch);
  EXPECT_EQ(d.negotiator.state(), AgreementState::kWithdrawn);
  EXPECT_FALSE(d.negotiator.agreed() || d.negotiator.offering());
  EXPECT_EQ(d.negotiator.failure(), "the peer has withdrawn");
  EXPECT_TRUE(d.negotiator.poll_timeout().is_never());
  d.receive(PathWithdraw{kTheirs.epoch});
  EXPECT_TRUE(d.sent_as<PathWithdrawn>()) << "its answer may have been lost";
  d.receive(PathRequest{theirs_with(9, 5)});
  EXPECT_TRUE(d.negotiator.preparing());
}

TEST(PathNegotiator, OurWithdrawalIsRepeatedUntilItIsAnsweredOrFourTimes) {
  Driver d;
  d.agreed();
  d.negotiator.withdraw(d.now);
  EXPECT_EQ(d.negotiator.state(), AgreementState::kIdle);
  for (uint32_t i = 0; i < kWithdrawAttempts; ++i) {
    EXPECT_TRUE(d.negotiator.withdrawing());
    EXPECT_EQ(d.sent_as<PathWithdraw>()->epoch, kMine);
    d.wait();
  }
  EXPECT_FALSE(d.sent());
  EXPECT_FALSE(d.negotiator.withdrawing());

  Driver e;
  e.agreed();
  e.negotiator.withdraw(e.now);
  ASSERT_TRUE(e.sent_as<PathWithdraw>());
  e.receive(PathWithdrawn{{7, 0}});
  EXPECT_TRUE(e.negotiator.withdrawing()) << "the answer to another one";
  e.receive(PathWithdrawn{kMine});
  EXPECT_FALSE(e.negotiator.withdrawing());
  EXPECT_TRUE(e.negotiator.poll_timeout().is_never());
}

TEST(PathNegotiator, AnotherVersionIsRefusedAndNotAnswered) {
  Driver d;
  d.asking();
  XDomainPacket packet =
      encode_path_message({kPeer, kSelf, PathRequest{kTheirs}}, {.route = Route{1}});
  std::vector<uint32_t> words(packet.body.span().begin(), packet.body.span().end());
  words[1] = 2;
  packet.body = {};
  packet.body.push(std::span<const uint32_t>(words));
  d.negotiator.handle_packet(d.now, packet);
  EXPECT_EQ(d.sent_as<PathRefusal>()->code, kPathUnknownVersion);
  EXPECT_EQ(d.negotiator.state(), AgreementState::kAsking);
  packet.response = true;
  d.negotiator.handle_packet(d.now, packet);
  EXPECT_EQ(d.negotiator.state(), AgreementState::kRefused);
  EXPECT_FALSE(d.sent());
}

TEST(PathNegotiator, AFloodOfRequestsIsAnsweredInPart) {
  Driver d;
  d.agreed();
  for (int i = 0; i < 100; ++i) d.receive(PathRequest{kTheirs});
  int answers = 0;
  while (d.sent_as<PathResponse>()) ++answers;
  EXPECT_EQ(answers, 8);
}

PathOffer my_kept_offer() {
  PathOffer offer = my_offer();
  offer.epoch = kMine;
  return offer;
}

TEST(PathNegotiator, WhatIsResumedStandsAtOnceAndIsConfirmed) {
  Driver d;
  d.negotiator.resume(d.now, kPeer, my_kept_offer(), kTheirs, 15);
  EXPECT_EQ(d.negotiator.agreed(), kTheirs);
  EXPECT_TRUE(d.negotiator.offering());
  const auto request = d.sent_as<PathRequest>();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->offer, my_kept_offer()) << "what the peer has answered before";
  d.wait();
  EXPECT_TRUE(d.sent_as<PathRequest>()) << "again, without an answer";
  EXPECT_EQ(d.negotiator.agreed(), kTheirs);
  d.receive(PathResponse{kMine, kTheirs});
  EXPECT_EQ(d.negotiator.state(), AgreementState::kAgreed);
  EXPECT_EQ(d.negotiator.agreed(), kTheirs);
  EXPECT_TRUE(d.negotiator.poll_timeout().is_never());
}

TEST(PathNegotiator, WhatThePeerHasLostIsNotResumed) {
  Driver refused, anew, wrong;
  for (Driver* d : {&refused, &anew, &wrong}) {
    d->negotiator.resume(d->now, kPeer, my_kept_offer(), kTheirs, 15);
    ASSERT_TRUE(d->sent_as<PathRequest>());
  }
  refused.receive(PathRefusal{kPathNotReady});
  anew.receive(PathResponse{kMine, theirs_with(9, 5)});
  PathOffer other = kTheirs;
  other.hop_id = 13;
  wrong.receive(PathResponse{kMine, other});
  for (Driver* d : {&refused, &anew, &wrong}) {
    EXPECT_FALSE(d->negotiator.agreed());
    EXPECT_TRUE(d->negotiator.preparing());
    EXPECT_EQ(d->negotiator.failure(), "the peer has begun anew");
  }
  EXPECT_EQ(refused.negotiator.epoch(), kMine);
  EXPECT_EQ(anew.negotiator.epoch(), kMine);
  EXPECT_NE(wrong.negotiator.epoch(), kMine) << "the peer's end has to be made anew, too";
}

TEST(PathNegotiator, APeerThatStillAsksIsAnsweredByWhoResumes) {
  Driver d;
  d.negotiator.resume(d.now, kPeer, my_kept_offer(), kTheirs, 15);
  d.receive(PathRequest{kTheirs});
  const auto response = d.sent_as<PathResponse>();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->offer, my_kept_offer());
  EXPECT_EQ(d.negotiator.agreed(), kTheirs);
  d.receive(PathRequest{theirs_with(10, 1)});
  EXPECT_FALSE(d.negotiator.agreed());
}

}  // namespace
}  // namespace tbt::fabric
