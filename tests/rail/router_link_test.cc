// Cables of the router model: lane states, hot plug, bonding, resets, and messages between hosts.
#include "router_world.h"

namespace tbt::rail::emulated {
namespace {

using namespace testing;  // NOLINT

using Events = std::vector<HotPlug>;
HotPlug plugged(uint8_t adapter) { return {.route = {}, .adapter = adapter, .unplug = false}; }
HotPlug unplugged(uint8_t adapter) { return {.route = {}, .adapter = adapter, .unplug = true}; }
constexpr RouterShape kV1{.ports = 1, .hop_count = 12, .usb4_v2 = false};

// ---- hot plug

TEST(RouterLink, NoEventBeforeTheRouterIsEnumerated) {
  World w({.ports = 2}, {.ports = 2});
  w.plug(1);
  EXPECT_EQ(w.a.events(), Events{});
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), Events{plugged(3)});
  w.plug(0);
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  w.retrain(0);
  EXPECT_EQ(w.a.events(), Events{});
  w.pull(1);
  EXPECT_EQ(w.a.events(), Events{unplugged(3)});
  w.pull(1);
  EXPECT_EQ(w.a.events(), Events{});
  EXPECT_EQ(w.b.events(), Events{});  // nobody has enumerated that one
}

TEST(RouterLink, EventsWaitWhileTheyAreNotWanted) {
  World w;
  w.a.enumerate();
  ASSERT_TRUE(w.a.change_adapter(1, kAdapterCs5, 0, kNoHotPlug));
  w.plug(0);
  EXPECT_EQ(w.a.events(), Events{});
  ASSERT_TRUE(w.a.change_adapter(1, kAdapterCs5, kNoHotPlug, 0));
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  ASSERT_TRUE(w.a.change_adapter(1, kAdapterCs5, 0, kNoHotPlug));
  w.pull(0);
  w.plug(0);  // the manager does not need to know
  ASSERT_TRUE(w.a.change_adapter(1, kAdapterCs5, kNoHotPlug, 0));
  EXPECT_EQ(w.a.events(), Events{});
}

TEST(RouterLink, ANewManagerHearsWhatWasNeverAcknowledged) {
  World w;
  w.plug(0);
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  w.a.send(HotPlugAck{.route = {}, .adapter = 1, .unplug = false});
  EXPECT_EQ(w.a.model().counters().events_acknowledged, 1u);
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), Events{});
  w.pull(0);
  EXPECT_EQ(w.a.events(), Events{unplugged(1)});
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), Events{unplugged(1)});
  w.a.send(HotPlugAck{.route = {}, .adapter = 1, .unplug = true});
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), Events{});
}

TEST(RouterLink, AnEventLostWithAProcessIsSentAgain) {
  World w;
  w.a.enumerate();
  w.plug(0);
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  w.a.model().recover();
  w.retrain(0);
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
}

// ---- lanes

TEST(RouterLink, UnpluggedLanesSaySo) {
  World w;
  for (const uint32_t lane : {1u, 2u}) {
    EXPECT_EQ(w.a.lane_state(lane), kLaneUnplugged);
    EXPECT_EQ(w.a.speed(lane), 0u);
    EXPECT_EQ(w.a.width(lane), 0u);
  }
  EXPECT_FALSE(w.a.model().port_up(0));
}

TEST(RouterLink, Generation4IsBondedFromTheStart) {
  World w;
  w.plug(0);
  for (Host* host : {&w.a, &w.b}) {
    for (const uint32_t lane : {1u, 2u}) {
      EXPECT_EQ(host->lane_state(lane), kLaneCl0);
      EXPECT_EQ(host->speed(lane), kSpeedGen4);
      EXPECT_EQ(host->width(lane), kWidthDual);
    }
    EXPECT_TRUE(host->model().port_up(0));
  }
}

TEST(RouterLink, TheSlowestOfCableAndRoutersSetsTheSpeed) {
  World v1({.ports = 1, .usb4_v2 = true}, kV1);
  v1.plug(0);
  EXPECT_EQ(v1.a.speed(1), kSpeedGen3);
  EXPECT_EQ(v1.a.width(1), kWidthSingle);
  World w;
  w.a.enumerate();
  w.plug(0, 2);
  EXPECT_EQ(w.b.speed(1), kSpeedGen2);
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  w.plug(0, 3);  // another speed is no other cable
  EXPECT_EQ(w.a.speed(2), kSpeedGen3);
  EXPECT_EQ(w.a.events(), Events{});
}

void want_dual(Host& host) {
  for (const uint32_t lane : {2u, 1u}) {
    ASSERT_TRUE(host.change_adapter(lane, kLaneCs1, kTargetWidthMask, kTargetDual));
  }
}

TEST(RouterLink, Generation3IsBondedWhenBothWantToAndOneSaysWhen) {
  World w(kV1, kV1);
  w.plug(0);
  w.a.enumerate();
  w.a.events();
  EXPECT_EQ(w.a.lane_state(2), kLaneCl0);
  const uint32_t buffers = w.a.adapter(1, kAdapterCs4) & kBuffersMask;
  want_dual(w.a);
  ASSERT_TRUE(w.a.change_adapter(1, kLaneCs1, 0, kLaneBond));
  EXPECT_EQ(w.a.width(1), kWidthSingle);  // the other one has not been asked
  EXPECT_EQ(w.b.width(1), kWidthSingle);
  want_dual(w.b);
  for (Host* host : {&w.a, &w.b}) {
    EXPECT_EQ(host->width(1), kWidthDual);
    EXPECT_EQ(host->width(2), kWidthDual);
    EXPECT_EQ(host->speed(1), kSpeedGen3);
  }
  EXPECT_GT(w.a.adapter(1, kAdapterCs4) & kBuffersMask, buffers);
  EXPECT_EQ(w.a.events(), Events{});
  // And apart again.
  ASSERT_TRUE(w.a.change_adapter(1, kLaneCs1, kLaneBond, 0));
  ASSERT_TRUE(w.a.change_adapter(1, kLaneCs1, kTargetWidthMask, kTargetSingle));
  EXPECT_EQ(w.b.width(1), kWidthSingle);
  EXPECT_EQ(w.a.adapter(1, kAdapterCs4) & kBuffersMask, buffers);
}

TEST(RouterLink, TargetsAloneDoNotBond) {
  World w(kV1, kV1);
  w.plug(0);
  want_dual(w.a);
  want_dual(w.b);
  EXPECT_EQ(w.a.width(1), kWidthSingle);
  EXPECT_EQ(w.a.adapter(1, kLaneCs1) & kTargetWidthMask, kTargetDual);
}

TEST(RouterLink, ADisabledSecondLaneIsDownAtBothEnds) {
  World w(kV1, kV1);
  w.plug(0);
  ASSERT_TRUE(w.a.change_adapter(2, kLaneCs1, 0, kLaneDisable));
  EXPECT_EQ(w.a.lane_state(2), kLaneDisabled);
  EXPECT_EQ(w.b.lane_state(2), kLaneUnplugged);
  EXPECT_EQ(w.b.lane_state(1), kLaneCl0);
  ASSERT_TRUE(w.a.change_adapter(2, kLaneCs1, kLaneDisable, 0));
  EXPECT_EQ(w.b.lane_state(2), kLaneCl0);
}

TEST(RouterLink, ADisabledFirstLaneIsAnUnpluggedCable) {
  World w;
  w.plug(0);
  w.b.enumerate();
  EXPECT_EQ(w.b.events(), Events{plugged(1)});
  ASSERT_TRUE(w.a.change_adapter(1, kLaneCs1, 0, kLaneDisable));
  EXPECT_EQ(w.a.lane_state(1), kLaneDisabled);
  EXPECT_EQ(w.b.events(), Events{unplugged(1)});
  EXPECT_FALSE(w.b.model().port_up(0));
  ASSERT_TRUE(w.a.change_adapter(1, kLaneCs1, kLaneDisable, 0));
  EXPECT_EQ(w.b.events(), Events{plugged(1)});
}

// ---- resets

TEST(RouterLink, APortResetIsAReplugForTheOtherHost) {
  World w;
  w.plug(0);
  w.a.enumerate();
  w.b.enumerate();
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  EXPECT_EQ(w.b.events(), Events{plugged(1)});
  ASSERT_TRUE(w.a.change_adapter(1, kPortCs19, 0, kPortReset));
  EXPECT_EQ(w.a.lane_state(1), kLaneUnplugged);
  EXPECT_FALSE(w.a.model().port_up(0));
  EXPECT_EQ(w.a.events(), Events{});  // it knows
  EXPECT_EQ(w.b.events(), Events{unplugged(1)});
  ASSERT_TRUE(w.a.change_adapter(1, kPortCs19, kPortReset, 0));
  EXPECT_EQ(w.a.events(), Events{plugged(1)});
  EXPECT_EQ(w.b.events(), Events{plugged(1)});
  EXPECT_TRUE(w.a.model().port_up(0));
}

TEST(RouterLink, ARouterResetForgetsAllButTheCables) {
  World w({.ports = 2}, {.ports = 2});
  w.plug(0);
  w.plug(1);
  w.a.enumerate();
  w.b.enumerate();
  w.b.events();
  ASSERT_TRUE(w.a.write(ConfigSpace::kPath, 1, 16, {1u << 31}));
  w.a.news.clear();
  RouterOutput out;
  w.a.model().reset(out);
  EXPECT_FALSE(w.a.model().port_up(0));
  w.deliver(w.a, out);
  EXPECT_EQ(w.a.router(kRouterCs3), 0u);
  EXPECT_EQ(w.a.read(ConfigSpace::kPath, 1, 16).at(0), 0u);
  EXPECT_EQ(w.a.lane_state(1), kLaneCl0);
  EXPECT_EQ(w.a.events(), Events{});
  EXPECT_EQ(w.b.events(), (Events{unplugged(1), plugged(1), unplugged(3), plugged(3)}));
  w.a.enumerate();
  EXPECT_EQ(w.a.events(), (Events{plugged(1), plugged(3)}));
}

// ---- beyond the router

TEST(RouterLink, ReadingBeyondAPortIsAnErrorThatSaysWhy) {
  World w({.ports = 2}, {.ports = 2});
  const auto beyond = [&](uint8_t adapter) {
    const Route route{adapter};
    EXPECT_TRUE(w.a.read(ConfigSpace::kRouter, 0, 0, 1, 0, route).empty());
    const auto code = w.a.error;
    EXPECT_EQ(w.a.error_adapter, adapter);
    EXPECT_FALSE(w.a.write(ConfigSpace::kRouter, 0, 1, {0, 0, 0, 0}, route));
    EXPECT_EQ(w.a.error, code);
    return code.value_or(255);
  };
  EXPECT_EQ(beyond(1), kNotConnected);
  w.plug(0);
  EXPECT_EQ(beyond(1), kAdapterLocked);
  EXPECT_EQ(beyond(3), kNotConnected);
  ASSERT_TRUE(w.a.unlock(0));
  EXPECT_EQ(beyond(1), kRouteLoop);  // another domain: Linux begins discovery
  EXPECT_EQ(beyond(2), kNoSuchAdapter);
  EXPECT_EQ(beyond(5), kNoSuchAdapter);
  EXPECT_EQ(beyond(63), kNoSuchAdapter);
  w.pull(0);
  EXPECT_EQ(beyond(1), kNotConnected);
  w.plug(0);
  EXPECT_EQ(beyond(1), kAdapterLocked);  // what comes anew is locked anew
  EXPECT_TRUE(w.b.news.empty());
}

TEST(RouterLink, AManagerCannotLock) {
  World w;
  ASSERT_TRUE(w.a.change_adapter(1, kAdapterCs4, 0, kAdapterLock));
  EXPECT_EQ(w.a.adapter(1, kAdapterCs4) & kAdapterLock, 0u);
}

XDomainPacket message(Route route, bool response = false) {
  XDomainPacket p{.route = route,
                  .from_router = false,
                  .response = response,
                  .sequence = 3,
                  .protocol = kDiscoveryProtocol,
                  .body = {}};
  for (uint32_t i = 0; i < 20; ++i) p.body.push(0x01020304 * i);
  return p;
}

TEST(RouterLink, MessagesReachTheOtherHostUnderItsOwnRoute) {
  World w({.ports = 3}, {.ports = 3});
  w.plug(2);
  ASSERT_TRUE(w.a.unlock(2));
  ASSERT_TRUE(w.b.unlock(2));
  for (const bool response : {false, true}) {
    for (Host* from : {&w.a, &w.b}) {
      XDomainPacket sent = message({5}, response);
      EXPECT_TRUE(from->send(sent).empty());
      Host& to = w.peer(*from);
      ASSERT_EQ(to.news.size(), 1u);
      sent.from_router = true;  // the route happens to be the same
      EXPECT_EQ(std::get<XDomainPacket>(to.news[0]), sent);
      to.news.clear();
    }
  }
  EXPECT_EQ(w.a.model().counters().forwarded, 2u);
  EXPECT_EQ(w.a.model().counters().delivered, 2u);
}

TEST(RouterLink, TheRouteIsThatOfTheReceiversPort) {
  World w({.ports = 8}, {.ports = 8});
  ControlFrame frame;
  encode_control_packet(message({1}), frame);
  for (uint32_t port = 0; port < 8; ++port) {
    w.plug(port);
    RouterOutput out;
    w.b.model().handle_cable(port, 6, frame.span(), out);
    const auto said = w.deliver(w.b, out);
    ASSERT_EQ(said.size(), 1u);
    const auto& packet = std::get<XDomainPacket>(said[0]);
    EXPECT_EQ(packet.route, (Route{2 * port + 1}));
    EXPECT_TRUE(packet.from_router);
    EXPECT_EQ(packet.body, message({1}).body);
  }
}

TEST(RouterLink, NothingPassesAPortThatIsDownOrLocked) {
  World w({.ports = 2}, {.ports = 2});
  EXPECT_TRUE(w.a.send(message({1})).empty());
  w.plug(0);
  EXPECT_TRUE(w.a.send(message({1})).empty());  // locked
  ASSERT_TRUE(w.a.unlock(0));
  EXPECT_TRUE(w.a.send(message({3})).empty());       // the other port
  EXPECT_TRUE(w.a.send(message({2})).empty());       // lane 1
  EXPECT_TRUE(w.a.send(message({5})).empty());       // the NHI
  EXPECT_TRUE(w.a.send(message({0})).empty());       // this host
  EXPECT_TRUE(w.a.send(message({0x0101})).empty());  // no host is on the way to another
  EXPECT_EQ(w.a.model().counters().unreachable, 7u);
  EXPECT_TRUE(w.b.news.empty());
  EXPECT_TRUE(w.a.send(message({1})).empty());
  EXPECT_EQ(w.b.news.size(), 1u);
  // On its way when the cable was pulled.
  ControlFrame frame;
  encode_control_packet(message({1}), frame);
  w.pull(0);
  RouterOutput out;
  w.b.model().handle_cable(0, 6, frame.span(), out);
  EXPECT_EQ(out.count, 0u);
  EXPECT_EQ(w.b.model().counters().unreachable, 1u);
  EXPECT_EQ(w.a.model().counters().malformed, 0u);
}

TEST(RouterLink, DamagedMessagesAndFalseSendersAreDropped) {
  World w;
  w.plug(0);
  ASSERT_TRUE(w.a.unlock(0));
  ControlFrame frame;
  encode_control_packet(message({1}), frame);
  uint64_t dropped = 0;
  const auto refused = [&](uint8_t pdf, std::span<const std::byte> bytes) {
    w.a.send_bytes(pdf, bytes);
    RouterOutput out;
    const auto copy = exact(bytes);
    w.b.model().handle_cable(0, pdf, copy, out);
    ++dropped;
    EXPECT_EQ(out.count, 0u);
    EXPECT_EQ(w.a.model().counters().malformed, dropped);
    EXPECT_EQ(w.b.model().counters().malformed, dropped);
    EXPECT_TRUE(w.b.news.empty());
  };
  for (size_t bytes = 0; bytes < frame.bytes; ++bytes) refused(6, frame.span().first(bytes));
  for (size_t bit = 0; bit < frame.bytes * 8; bit += 5) {
    auto damaged = exact(frame.span());
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    refused(7, damaged);
  }
  auto longer = exact(frame.span());
  longer.resize(260);
  base::store_be(longer.data() + 256, wire::crc32c(std::span(longer).first(256)));
  refused(6, longer);
  XDomainPacket forged = message({1});
  forged.from_router = true;  // only the last router may say so
  encode_control_packet(forged, frame);
  refused(6, frame.span());
}

TEST(RouterLink, OnlyMessagesComeOverTheCable) {
  World w;
  w.plug(0);
  ControlFrame frame;
  encode_control_packet(ReadRequest{.route = {1}, .address = {}}, frame);
  RouterOutput out;
  w.b.model().handle_cable(0, static_cast<uint8_t>(frame.pdf), frame.span(), out);
  EXPECT_EQ(out.count, 0u);
  EXPECT_EQ(w.b.model().counters().malformed, 1u);
}

}  // namespace
}  // namespace tbt::rail::emulated
