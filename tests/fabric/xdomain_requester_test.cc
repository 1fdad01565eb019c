// The asking half of discovery, driven by hand: what is asked in which order and when, what is
// repeated how often, and where every kind of wrong or missing answer ends.
#include "fabric/xdomain_requester.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "wire/tb/service.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;

constexpr Uuid kSelf = uuid("00112233-4455-6677-8899-aabbccddeeff");
constexpr Uuid kPeer = uuid("c0ffee00-0102-0304-0506-0708090a0b0c");
constexpr Uuid kStranger = uuid("deadbeef-0000-0000-0000-000000000001");

std::vector<uint32_t> block_of(const std::string& name, size_t padding = 0) {
  HostProperties host;
  host.device_name = name;
  PropertyDirectory root = host_directory(host);
  if (padding > 0) root.entries.push_back({PropertyKey("padding"), PropertyData(padding, 7)});
  std::vector<uint32_t> block;
  EXPECT_EQ(build_property_block(root, block), PropertyError::kNone);
  return block;
}

class Driver {
 public:
  Driver() { requester.start(now); }

  // The next request, or nothing if there is none at this moment.
  std::optional<XDomainMessage> ask() {
    XDomainMessage message;
    if (!requester.poll_transmit(now, message, sequence)) return std::nullopt;
    return message;
  }
  template <typename T>
  bool asks() {
    const auto message = ask();
    return message && std::holds_alternative<T>(*message);
  }
  // Time goes on to whatever the requester waits for.
  void wait() {
    ASSERT_FALSE(requester.poll_timeout().is_never());
    now = std::max(now, requester.poll_timeout());
    requester.handle_timeout(now);
  }
  void answer(const XDomainMessage& message) { requester.handle_response(now, message); }
  void answer_from(const std::vector<uint32_t>& block, const XDomainMessage& request,
                   uint32_t generation = 1) {
    const auto& properties = std::get<PropertiesRequest>(request);
    answer(property_fragment(block, generation, kPeer, properties).value());
  }
  // Through the UUID and our announcement; the next request is for properties.
  void found() {
    ASSERT_TRUE(asks<UuidRequest>());
    answer(UuidResponse{kPeer, Route{1}});
    ASSERT_TRUE(asks<PropertiesChangedRequest>());
    answer(PropertiesChangedResponse{});
  }
  void known(const std::vector<uint32_t>& block, uint32_t generation = 1) {
    found();
    read(block, generation);
    while (requester.poll_event()) {
    }
  }
  void read(const std::vector<uint32_t>& block, uint32_t generation = 1) {
    while (requester.state() == DiscoveryState::kReadingProperties) {
      const auto request = ask();
      ASSERT_TRUE(request);
      answer_from(block, *request, generation);
    }
  }

  Instant now{5'000'000'000};
  XDomainRequester requester{kSelf};
  uint8_t sequence = 0;
};

TEST(XDomainRequester, AsksUuidThenAnnouncesThenReads) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  EXPECT_FALSE(d.ask()) << "one question at a time";
  d.answer(UuidResponse{kPeer, Route{1}});
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kFound);
  EXPECT_EQ(d.requester.peer(), kPeer);
  const auto announcement = d.ask();
  ASSERT_TRUE(announcement);
  EXPECT_TRUE(*announcement == XDomainMessage(PropertiesChangedRequest{kSelf}));
  EXPECT_FALSE(d.ask());
  d.answer(PropertiesChangedResponse{});
  const auto block = block_of("peer", 60);
  const auto first = d.ask();
  ASSERT_TRUE(first);
  EXPECT_TRUE(*first == XDomainMessage(PropertiesRequest{kSelf, kPeer, 0}));
  d.answer_from(block, *first);
  const auto second = d.ask();
  ASSERT_TRUE(second);
  EXPECT_TRUE(*second == XDomainMessage(PropertiesRequest{kSelf, kPeer, 45}));
  d.answer_from(block, *second);
  d.read(block);
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kProperties);
  EXPECT_EQ(*d.requester.properties()->find_text("deviceid"), "peer");
  EXPECT_TRUE(d.requester.poll_timeout().is_never());
}

TEST(XDomainRequester, RepeatsManyTimesFasterAtFirstThenGivesUp) {
  Driver d;
  const int64_t wanted_ms[] = {50,  50,  50,   50,   50,   50,   100,  200,
                               400, 800, 1000, 1000, 1000, 1000, 1000, 1000};
  static_assert(std::size(wanted_ms) == kXDomainRetries + 1);
  for (uint32_t i = 0; i <= kXDomainRetries; ++i) {
    ASSERT_TRUE(d.asks<UuidRequest>()) << i;
    EXPECT_EQ(d.sequence, i % 4);
    const Duration timeout = Duration::from_ms(wanted_ms[i]);
    EXPECT_EQ(d.requester.poll_timeout(), d.now + timeout);
    d.requester.handle_timeout(d.now + (timeout - Duration{1}));
    EXPECT_FALSE(d.ask()) << "too early";
    d.wait();
  }
  EXPECT_FALSE(d.ask());
  EXPECT_EQ(d.requester.state(), DiscoveryState::kFailed);
  EXPECT_EQ(d.requester.failure(), DiscoveryFailure::kNoAnswer);
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kFailed);
  EXPECT_TRUE(d.requester.poll_timeout().is_never());
  EXPECT_EQ(d.requester.stats().timeouts, kXDomainRetries + 1);
}

TEST(XDomainRequester, ASignOfLifeAfterSilenceBeginsAnew) {
  Driver d;
  d.requester.handle_sign_of_life(d.now);
  ASSERT_TRUE(d.asks<UuidRequest>());
  while (d.requester.state() != DiscoveryState::kFailed) {
    d.wait();
    d.ask();
  }
  d.requester.handle_sign_of_life(d.now);
  d.known(block_of("late"));
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
}

// Its question says that what we asked before may not have reached it.
TEST(XDomainRequester, APeerThatBeginsIsAskedAgainAtOnceButOnlyOnce) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.requester.handle_sign_of_life(d.now);
  EXPECT_FALSE(d.ask()) << "any other question says no such thing";
  d.requester.handle_peer_begins(d.now);
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.requester.handle_peer_begins(d.now);
  EXPECT_FALSE(d.ask());
  d.wait();
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.requester.handle_peer_begins(d.now);
  EXPECT_TRUE(d.asks<UuidRequest>()) << "once per repetition";
  d.answer(UuidResponse{kPeer, Route{1}});
  ASSERT_TRUE(d.asks<PropertiesChangedRequest>());
  d.requester.handle_peer_begins(d.now);
  EXPECT_FALSE(d.ask());
}

TEST(XDomainRequester, APeerThatWasNotReadyIsAskedWhenItBegins) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(ErrorResponse{kNotReady});
  EXPECT_FALSE(d.ask());
  d.requester.handle_peer_begins(d.now);
  d.known(block_of("peer"));
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
}

TEST(XDomainRequester, ALostFragmentIsAskedForAgain) {
  Driver d;
  d.found();
  const auto block = block_of("peer", 60);
  d.answer_from(block, *d.ask());
  ASSERT_TRUE(d.ask());
  d.wait();
  const auto again = d.ask();
  ASSERT_TRUE(again);
  EXPECT_EQ(std::get<PropertiesRequest>(*again).offset, 45);
  d.answer_from(block, *again);
  d.read(block);
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
}

TEST(XDomainRequester, ACableToItselfIsNoticed) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(UuidResponse{kSelf, Route{1}});
  EXPECT_EQ(d.requester.failure(), DiscoveryFailure::kSelf);
  d.requester.handle_sign_of_life(d.now);
  d.requester.handle_peer_changed(d.now, kSelf);
  EXPECT_FALSE(d.ask());
}

TEST(XDomainRequester, APeerThatIsNotReadyIsAskedASecondLater) {
  Driver d;
  for (uint32_t i = 0; i < kXDomainRetries; ++i) {
    ASSERT_TRUE(d.asks<UuidRequest>());
    d.answer(ErrorResponse{kNotReady});
    EXPECT_FALSE(d.ask());
    EXPECT_EQ(d.requester.poll_timeout(), d.now + kXDomainRetryDelay);
    d.wait();
  }
  d.known(block_of("peer"));
  EXPECT_EQ(d.requester.stats().errors, kXDomainRetries);
}

TEST(XDomainRequester, APeerThatIsNeverReadyIsGivenUp) {
  Driver d;
  uint32_t asked = 0;
  while (d.requester.state() != DiscoveryState::kFailed) {
    ASSERT_TRUE(d.asks<UuidRequest>());
    ++asked;
    d.answer(ErrorResponse{kNotReady});
    if (d.requester.state() != DiscoveryState::kFailed) d.wait();
  }
  EXPECT_EQ(asked, kXDomainRetries + 1);
}

TEST(XDomainRequester, NotSupportedIsFinal) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(ErrorResponse{kNotSupported});
  EXPECT_EQ(d.requester.failure(), DiscoveryFailure::kRefused);
  d.requester.handle_sign_of_life(d.now);
  EXPECT_FALSE(d.ask());
}

TEST(XDomainRequester, APeerWithoutChangeMessagesIsReadAllTheSame) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(UuidResponse{kPeer, Route{1}});
  ASSERT_TRUE(d.asks<PropertiesChangedRequest>());
  d.answer(ErrorResponse{kNotSupported});
  d.read(block_of("old"));
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
}

TEST(XDomainRequester, AnUnansweredAnnouncementDoesNotHoldUpReading) {
  Driver d;
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(UuidResponse{kPeer, Route{1}});
  ASSERT_TRUE(d.asks<PropertiesChangedRequest>());
  d.wait();
  d.read(block_of("peer"));
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
  uint32_t repeated = 0;
  while (d.asks<PropertiesChangedRequest>()) {
    ++repeated;
    d.wait();
  }
  EXPECT_EQ(repeated, kXDomainRetries);
  EXPECT_EQ(d.requester.stats().announcements_lost, 1u);
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown) << "it is the peer's loss only";
}

TEST(XDomainRequester, AnUnknownDomainIsAskedForItsUuidAgainButNotForEver) {
  Driver d;
  d.found();
  uint32_t circles = 0;
  while (d.requester.state() != DiscoveryState::kFailed) {
    ASSERT_TRUE(d.asks<PropertiesRequest>());
    d.answer(ErrorResponse{kUnknownDomain});
    ++circles;
    if (d.requester.state() == DiscoveryState::kFailed) break;
    EXPECT_EQ(d.requester.state(), DiscoveryState::kAskingUuid);
    d.wait();
    d.found();
  }
  EXPECT_EQ(circles, kXDomainRetries + 1);
}

TEST(XDomainRequester, PropertiesAreNotAskedForWhileTheUuidIsInDoubt) {
  Driver d;
  d.found();
  ASSERT_TRUE(d.asks<PropertiesRequest>());
  d.answer(ErrorResponse{kUnknownDomain});
  for (int i = 0; i < 3; ++i) {
    d.wait();
    ASSERT_TRUE(d.asks<UuidRequest>()) << i;
  }
}

TEST(XDomainRequester, AHostThatTookAnotherUuidIsAnotherHost) {
  Driver d;
  d.known(block_of("first"));
  d.requester.handle_peer_changed(d.now, kPeer);
  d.wait();
  ASSERT_TRUE(d.asks<PropertiesRequest>());
  d.answer(ErrorResponse{kUnknownDomain});
  d.wait();
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(UuidResponse{kStranger, Route{1}});
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kFound);
  EXPECT_FALSE(d.requester.properties());
}

TEST(XDomainRequester, AnotherUuidAtTheSameCableIsAnotherHost) {
  Driver d;
  d.known(block_of("first"));
  d.requester.handle_peer_changed(d.now, kStranger);
  EXPECT_FALSE(d.requester.properties());
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer(UuidResponse{kStranger, Route{1}});
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kFound);
  EXPECT_EQ(d.requester.peer(), kStranger);
}

TEST(XDomainRequester, AnswersToNoQuestionAreIgnored) {
  Driver d;
  const auto block = block_of("peer");
  const PropertiesRequest never_asked{kSelf, kPeer, 0};
  d.answer(UuidResponse{kStranger, Route{1}});
  EXPECT_FALSE(d.requester.peer());
  ASSERT_TRUE(d.asks<UuidRequest>());
  d.answer_from(block, never_asked);
  d.answer(PropertiesChangedResponse{});
  d.answer(LinkStateChangeResponse{});
  EXPECT_EQ(d.requester.stats().ignored, 4u);
  EXPECT_EQ(d.requester.state(), DiscoveryState::kAskingUuid);
}

TEST(XDomainRequester, PropertiesOfOrForOthersAreIgnored) {
  const auto block = block_of("peer");
  for (const bool wrong_source : {false, true}) {
    Driver d;
    d.found();
    auto response = property_fragment(block, 1, kPeer, std::get<PropertiesRequest>(*d.ask()));
    (wrong_source ? response->source : response->destination) = kStranger;
    d.answer(*response);
    EXPECT_EQ(d.requester.state(), DiscoveryState::kReadingProperties);
    EXPECT_EQ(d.requester.stats().ignored, 1u);
  }
}

TEST(XDomainRequester, ABlockThatChangesWhileItIsReadIsReadAnew) {
  Driver d;
  d.found();
  d.answer_from(block_of("old", 60), *d.ask(), 1);
  d.answer_from(block_of("new", 60), *d.ask(), 2);
  EXPECT_EQ(d.requester.stats().restarts, 1u);
  EXPECT_FALSE(d.ask());
  d.wait();
  d.read(block_of("new", 60), 2);
  EXPECT_EQ(*d.requester.properties()->find_text("deviceid"), "new");
  EXPECT_EQ(d.requester.generation(), 2u);
}

TEST(XDomainRequester, ABlockThatNeverStandsStillIsGivenUp) {
  Driver d;
  d.found();
  const auto block = block_of("restless", 60);
  uint32_t generation = 0, packets = 0;
  while (d.requester.state() != DiscoveryState::kFailed) {
    if (const auto request = d.ask()) {
      d.answer_from(block, *request, ++generation);
      ASSERT_LT(++packets, 100u);
    } else {
      d.wait();
    }
  }
  EXPECT_EQ(d.requester.failure(), DiscoveryFailure::kMalformed);
}

TEST(XDomainRequester, ABlockThatCannotBeReadIsReadAgainWhenItChanges) {
  Driver d;
  d.found();
  d.answer_from({1, 2, 3}, *d.ask());
  EXPECT_EQ(d.requester.failure(), DiscoveryFailure::kMalformed);
  EXPECT_FALSE(d.ask());
  d.requester.handle_peer_changed(d.now, kPeer);
  d.known(block_of("mended"));
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
}

TEST(XDomainRequester, AnErrorWhileReadingBeginsAtTheFront) {
  Driver d;
  d.found();
  d.answer_from(block_of("peer", 60), *d.ask());
  ASSERT_TRUE(d.ask());
  d.answer(ErrorResponse{kNotReady});
  d.wait();
  EXPECT_EQ(std::get<PropertiesRequest>(*d.ask()).offset, 0);
}

TEST(XDomainRequester, ChangesAreReadOnceAfterABurst) {
  Driver d;
  d.known(block_of("old"));
  const Instant due = d.now + kXDomainShortDelay;
  for (int i = 0; i < 5; ++i) {
    d.requester.handle_peer_changed(d.now, kPeer);
    EXPECT_EQ(d.requester.poll_timeout(), due) << "put off by the burst";
    d.now = d.now + Duration::from_ms(10);
  }
  EXPECT_FALSE(d.ask());
  d.wait();
  d.read(block_of("new"), 2);
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kProperties);
  EXPECT_TRUE(d.requester.poll_timeout().is_never());
}

TEST(XDomainRequester, AChangeAfterAWhileIsReadAtOnce) {
  Driver d;
  d.known(block_of("old"));
  d.now = d.now + kXDomainShortDelay;
  d.requester.handle_peer_changed(d.now, kPeer);
  d.read(block_of("new"), 2);
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kProperties);
}

TEST(XDomainRequester, AChangeThatChangesNothingIsNoNews) {
  Driver d;
  d.known(block_of("same"));
  d.requester.handle_peer_changed(d.now, kPeer);
  d.wait();
  d.read(block_of("same"), 2);
  EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
  EXPECT_FALSE(d.requester.poll_event());
}

TEST(XDomainRequester, AChangeWhileReadingBeginsAtTheFront) {
  Driver d;
  d.found();
  d.answer_from(block_of("old", 60), *d.ask());
  ASSERT_TRUE(d.ask());
  d.requester.handle_peer_changed(d.now, kPeer);
  const auto request = d.ask();
  ASSERT_TRUE(request);
  EXPECT_EQ(std::get<PropertiesRequest>(*request).offset, 0);
}

TEST(XDomainRequester, AChangeOfOursDuringItsAnnouncementIsAnnouncedToo) {
  Driver d;
  d.known(block_of("peer"));
  d.requester.announce(d.now);
  ASSERT_TRUE(d.asks<PropertiesChangedRequest>());
  d.requester.announce(d.now);
  EXPECT_FALSE(d.ask());
  d.answer(PropertiesChangedResponse{});
  EXPECT_TRUE(d.asks<PropertiesChangedRequest>());
  d.answer(PropertiesChangedResponse{});
  EXPECT_FALSE(d.ask());
}

TEST(XDomainRequester, QuestionsAboutLanesAreAskedAndAnswered) {
  Driver d;
  d.requester.ask_link_status(d.now);
  d.known(block_of("peer"));
  EXPECT_FALSE(d.ask()) << "of nobody nothing can be asked";
  d.requester.ask_link_status(d.now);
  ASSERT_TRUE(d.asks<LinkStateStatusRequest>());
  d.answer(LinkStateChangeResponse{});
  EXPECT_FALSE(d.requester.poll_event());
  d.answer(LinkStateStatusResponse{.supported_width = 3});
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kLinkStatus);
  EXPECT_EQ(d.requester.link_status().supported_width, 3);
  d.requester.ask_link_change(d.now, {.target_width = 3, .target_speed = 4});
  const auto request = d.ask();
  ASSERT_TRUE(request);
  EXPECT_TRUE(*request == XDomainMessage(LinkStateChangeRequest{3, 4}));
  d.answer(LinkStateChangeResponse{});
  EXPECT_EQ(d.requester.poll_event(), DiscoveryEvent::kLinkChange);
  EXPECT_TRUE(d.requester.poll_timeout().is_never());
}

TEST(XDomainRequester, LanesThatDoNotChangeAreNoFailure) {
  for (const int how : {0, 1, 2}) {
    Driver d;
    d.known(block_of("peer"));
    d.requester.ask_link_change(d.now, {.target_width = 3, .target_speed = 4});
    uint32_t asked = 0;
    while (d.asks<LinkStateChangeRequest>()) {
      ++asked;
      if (how == 0) d.answer(ErrorResponse{kNotSupported});
      if (how == 1) d.answer(LinkStateChangeResponse{.status = 1});
      if (!d.requester.poll_timeout().is_never()) d.wait();
    }
    EXPECT_EQ(asked, how == 2 ? kXDomainRetries + 1 : 1);
    EXPECT_FALSE(d.requester.poll_event());
    EXPECT_EQ(d.requester.state(), DiscoveryState::kKnown);
  }
}

TEST(XDomainRequester, NothingIsSentWhileTheCableIsOut) {
  Driver d;
  d.known(block_of("peer"));
  d.requester.stop();
  d.requester.announce(d.now);
  d.requester.handle_peer_changed(d.now, kPeer);
  d.requester.handle_sign_of_life(d.now);
  EXPECT_FALSE(d.ask());
  EXPECT_TRUE(d.requester.poll_timeout().is_never());
  EXPECT_FALSE(d.requester.peer());
}

}  // namespace
}  // namespace tbt::fabric
