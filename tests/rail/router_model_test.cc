// The router model by its configuration spaces: what a connection manager reads, what it may write,
// which errors it gets; router operations, paths and malformed packets.
#include "rail/emulated/router_model.h"

#include "router_world.h"

namespace tbt::rail::emulated {
namespace {

using namespace testing;  // NOLINT
using wire::tb::ConfigSpace;

constexpr ConfigSpace kPath = ConfigSpace::kPath;

TEST(RouterModel, ABarlowRidgeOfUsb4Version2) {
  World w({.ports = 2, .hop_count = 12, .usb4_v2 = true, .unique_id = 0x1122334455667788});
  const auto cs = w.a.read(ConfigSpace::kRouter, 0, 0, 9);
  ASSERT_EQ(cs.size(), 9u);
  EXPECT_EQ(cs[0], 0x57818087u);
  EXPECT_EQ(cs[1] >> kUpstreamShift & 0x3f, 5u);
  EXPECT_EQ(cs[1] >> kMaxAdapterShift & 0x3f, 5u);
  EXPECT_EQ(cs[3] & kRouterValid, 0u);
  EXPECT_EQ(cs[4] >> 29, 2u);  // the major version of USB4
  EXPECT_EQ(cs[7], 0x55667788u);
  EXPECT_EQ(cs[8], 0x11223344u);
}

TEST(RouterModel, AmdAndOlderIntelRoutersSayWhatTheyAre) {
  World w({.usb4_v2 = false, .intel = false}, {.usb4_v2 = false, .intel = true});
  EXPECT_EQ(w.a.router(kRouterCs0) & 0xffff, 0x0438u);
  EXPECT_EQ(w.b.router(kRouterCs0), 0x463e8087u);
  EXPECT_EQ(w.a.router(kRouterCs4) >> 29, 1u);
  EXPECT_EQ(w.b.adapter(1, kLaneCs0) >> kSpeedShift & 0xf, kSpeedGen2 | kSpeedGen3);
}

TEST(RouterModel, EveryAdapterIsOfItsKind) {
  World w({.ports = 8, .hop_count = 32});
  for (uint32_t n = 1; n <= 17; ++n) {
    const auto cs = w.a.read(ConfigSpace::kAdapter, n, 0, 8);
    ASSERT_EQ(cs.size(), 8u);
    EXPECT_EQ(cs[2], n == 17 ? kTypeNhi : kTypeLane);
    EXPECT_EQ(cs[3] >> kAdapterNumberShift & 0x3f, n);
    EXPECT_EQ(cs[5] & 0x7ff, 31u);
    EXPECT_EQ(cs[5] >> kMaxHopOutShift & 0x7ff, 31u);
  }
  World small({.ports = 1, .hop_count = 3});
  EXPECT_EQ(small.a.adapter(3, kAdapterCs5), 2u | 2u << kMaxHopOutShift);
  EXPECT_EQ(small.a.adapter(3, kAdapterCs1) & 0xff, 0u);  // no capabilities
}

// The ids of the capabilities in the order of their chain.
std::vector<uint32_t> capabilities(Host& host, uint32_t adapter) {
  std::vector<uint32_t> ids;
  for (uint32_t at = host.adapter(adapter, kAdapterCs1) & 0xff; at != 0 && ids.size() < 9;) {
    const uint32_t header = host.adapter(adapter, at);
    ids.push_back(header >> 8 & 0xff);
    at = header & 0xff;
  }
  return ids;
}

TEST(RouterModel, CapabilitiesFormChains) {
  World w;
  EXPECT_EQ(capabilities(w.a, 1), (std::vector<uint32_t>{1, 3, 6}));
  EXPECT_EQ(capabilities(w.a, 2), (std::vector<uint32_t>{1, 3}));
  const uint32_t tmu = w.a.router(kRouterCs1) & 0xff;
  EXPECT_EQ(w.a.router(tmu) & 0xffff, kCapabilityTmu << 8);
  EXPECT_EQ(w.a.read(ConfigSpace::kRouter, 0, tmu, 26).size(), 26u);
}

TEST(RouterModel, AnswersCarryTheUpstreamAdapterAndTheSequence) {
  World w({.ports = 3});
  for (uint8_t sequence = 0; sequence < 4; ++sequence) {
    const auto reply = w.a.ask<ReadReply>(
        ReadRequest{.route = {}, .address = {.adapter = 1, .sequence = sequence}});
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->address.adapter, 7u);
    EXPECT_EQ(reply->address.sequence, sequence);
  }
}

void expect_error(Host& host, uint8_t code, ConfigSpace space, uint32_t adapter, uint32_t offset,
                  uint32_t length = 1) {
  const std::string where = "adapter " + std::to_string(adapter) + " space " +
                            std::to_string(static_cast<int>(space)) + " offset " +
                            std::to_string(offset);
  EXPECT_TRUE(host.read(space, adapter, offset, length).empty()) << where;
  EXPECT_EQ(host.error, code) << where;
  EXPECT_EQ(host.error_adapter, adapter) << where;
  EXPECT_FALSE(host.write(space, adapter, offset, std::vector<uint32_t>(length))) << where;
  EXPECT_EQ(host.error, code) << where;
}

TEST(RouterModel, WhatIsNotThereIsAnError) {
  World w({.ports = 2, .hop_count = 12});
  for (const auto space : {ConfigSpace::kAdapter, kPath, ConfigSpace::kCounters}) {
    expect_error(w.a, kNoSuchAdapter, space, 6, 0);
    expect_error(w.a, kNoSuchAdapter, space, 63, 0);
  }
  expect_error(w.a, kBadAddress, ConfigSpace::kAdapter, 0, 0);  // the control adapter
  expect_error(w.a, kBadAddress, kPath, 0, 0);
  expect_error(w.a, kBadAddress, kPath, 2, 0);  // lane 1
  expect_error(w.a, kBadAddress, ConfigSpace::kCounters, 1, 0);
  expect_error(w.a, kBadAddress, ConfigSpace::kRouter, 0, kRouterDwords);
  expect_error(w.a, kBadAddress, ConfigSpace::kRouter, 0, 8191, 60);
  expect_error(w.a, kBadAddress, ConfigSpace::kRouter, 0, kRouterDwords - 1, 2);
  expect_error(w.a, kBadAddress, ConfigSpace::kAdapter, 1, kAdapterDwords - 1, 2);
  expect_error(w.a, kBadAddress, ConfigSpace::kAdapter, 2, kLane1Dwords);
  expect_error(w.a, kBadAddress, ConfigSpace::kAdapter, 5, kAdapterBasicDwords);
  expect_error(w.a, kBadAddress, kPath, 1, 2 * 32 - 1, 2);
  expect_error(w.a, kBadAddress, kPath, 5, 2 * 12);
  EXPECT_EQ(w.a.model().counters().refused, 2u * 18);
}

TEST(RouterModel, TheLastDwordOfEverySpaceIsThere) {
  World w({.ports = 2, .hop_count = 12});
  EXPECT_EQ(w.a.read(ConfigSpace::kRouter, 0, kRouterDwords - 1).size(), 1u);
  EXPECT_EQ(w.a.read(ConfigSpace::kAdapter, 3, kAdapterDwords - 60, 60).size(), 60u);
  EXPECT_EQ(w.a.read(ConfigSpace::kAdapter, 4, kLane1Dwords - 1).size(), 1u);
  EXPECT_EQ(w.a.read(kPath, 3, 62, 2).size(), 2u);
  EXPECT_EQ(w.a.read(kPath, 5, 22, 2).size(), 2u);
}

TEST(RouterModel, OnlyWritableBitsChange) {
  World w({.ports = 2, .unique_id = 7});
  const auto space = [&](ConfigSpace which, uint32_t adapter, uint32_t dwords) {
    std::vector<uint32_t> all;
    for (uint32_t i = 0; i < dwords; ++i) all.push_back(w.a.read(which, adapter, i).at(0));
    return all;
  };
  const auto router = space(ConfigSpace::kRouter, 0, kRouterDwords);
  const auto lane = space(ConfigSpace::kAdapter, 1, kAdapterDwords);
  for (const uint32_t value : {0xffffffffu, 0u}) {
    for (uint32_t i = 0; i < kRouterDwords; ++i) {
      if (i == kRouterCs26) continue;
      EXPECT_TRUE(w.a.set_router(i, value));
    }
    for (uint32_t i = 0; i < kAdapterDwords; ++i) {
      if (i == kPortCs1) continue;
      EXPECT_TRUE(w.a.set_adapter(1, i, value));
    }
    EXPECT_EQ(w.a.router(kRouterCs0), router[kRouterCs0]);
    EXPECT_EQ(w.a.router(kRouterCs1) & ~kRouterDepthMask, router[kRouterCs1]);
    EXPECT_EQ(w.a.router(kRouterCs4) >> 24, kUsb4V2);
    EXPECT_EQ(w.a.router(kRouterCs4) & 0xffff, value & 0xffff);
    EXPECT_EQ(w.a.router(kRouterCs7), 7u);
    EXPECT_EQ(w.a.router(kRouterTmu) & 0xf000ffff, router[kRouterTmu] & 0xf000ffff);
    EXPECT_EQ(w.a.router(kRouterTmu + kTmuPostTime), 0u);  // taken at once
    EXPECT_EQ(w.a.adapter(1, kAdapterCs2), kTypeLane);
    EXPECT_EQ(w.a.adapter(1, kAdapterCs3), lane[kAdapterCs3]);
    EXPECT_EQ(w.a.adapter(1, kLaneCs0), lane[kLaneCs0]);
    EXPECT_EQ(w.a.adapter(1, kAdapterTmu), lane[kAdapterTmu]);
    EXPECT_EQ(w.a.adapter(1, kPortCs18), kBondingEnabled);
  }
}

TEST(RouterModel, ReadyWhenEnumeratedAndConfiguredWhenTold) {
  World w;
  EXPECT_EQ(w.a.router(kRouterCs6) & (kRouterReady | kRouterConfigurationReady), 0u);
  w.a.enumerate();
  EXPECT_EQ(w.a.router(kRouterCs6) & (kRouterReady | kRouterConfigurationReady), kRouterReady);
  EXPECT_TRUE(w.a.set_router(kRouterCs5, kRouterConfigurationValid));
  EXPECT_NE(w.a.router(kRouterCs6) & kRouterConfigurationReady, 0u);
  EXPECT_TRUE(w.a.set_router(kRouterCs5, kRouterConfigurationValid | kRouterSleep));
  EXPECT_NE(w.a.router(kRouterCs6) & kRouterSleepReady, 0u);
  w.a.enumerate();  // what a manager does after sleep
  EXPECT_EQ(w.a.router(kRouterCs6) & kRouterSleepReady, 0u);
  EXPECT_EQ(w.a.router(kRouterCs5), kRouterConfigurationValid);
}

// ---- router operations

uint32_t operate(Host& host, uint32_t opcode) {
  EXPECT_TRUE(host.set_router(kRouterCs25, 0));
  EXPECT_TRUE(host.set_router(kRouterCs26, opcode | kOperationValid));
  const uint32_t result = host.router(kRouterCs26);
  EXPECT_EQ(result & kOperationValid, 0u);
  EXPECT_EQ(result & kOperationOpcodeMask, opcode);
  EXPECT_EQ(result >> 24 & 0x3f, 0u);
  return result;
}

TEST(RouterModel, SaysHowManyBuffersToSetAsideForDma) {
  World w({.ports = 2});
  EXPECT_TRUE(w.a.write(ConfigSpace::kRouter, 0, kRouterCs9, std::vector<uint32_t>(16, ~0u)));
  EXPECT_EQ(operate(w.a, kBufferAllocation) & kOperationNotSupported, 0u);
  const uint32_t count = w.a.router(kRouterCs25) & 0xff;
  ASSERT_LE(count, 16u);
  const auto data = w.a.read(ConfigSpace::kRouter, 0, kRouterCs9, 16);
  std::array<int, 6> value;
  value.fill(-1);
  for (uint32_t i = 0; i < 16; ++i) {
    if (i < count) {
      value.at(data[i] & 0xffff) = static_cast<int>(data[i] >> 16);
    } else {
      EXPECT_EQ(data[i], 0u);
    }
  }
  EXPECT_EQ(value[kBaMaxHi], 14);  // as many as Linux takes for a path if it may
  EXPECT_GE(value[kBaMinDpAux], 0);
  EXPECT_GE(value[kBaMinDpMain], 0);
}

TEST(RouterModel, OtherOperationsAreNotSupported) {
  World w;
  for (const uint32_t opcode : {0x10u, 0x20u, 0x21u, 0x22u, 0x24u, 0x25u, 0x80u, 0xffffu}) {
    EXPECT_NE(operate(w.a, opcode) & kOperationNotSupported, 0u) << opcode;
  }
}

TEST(RouterModel, AnOperationStartsByItsValidBitOnly) {
  World w;
  EXPECT_TRUE(w.a.set_router(kRouterCs26, kBufferAllocation));
  EXPECT_EQ(w.a.router(kRouterCs9), 0u);
  EXPECT_EQ(w.a.router(kRouterCs25), 0u);
}

// ---- the sideband of a port

uint32_t sideband(Host& host, uint32_t target, uint32_t reg, bool write, uint32_t value = 0) {
  EXPECT_TRUE(host.set_adapter(1, kPortCs2, value));
  EXPECT_TRUE(host.set_adapter(1, kPortCs1,
                               reg | 4u << 8 | target << kSidebandTargetShift |
                                   (target == 2 ? 1u << 20 : 0) | (write ? kSidebandWrite : 0) |
                                   kSidebandPending));
  const uint32_t result = host.adapter(1, kPortCs1);
  EXPECT_EQ(result & kSidebandPending, 0u);
  return result & (kSidebandNoResponse | kSidebandResultCode);
}

TEST(RouterModel, ThePortEnumeratesRetimersAndHasNone) {
  World w;
  EXPECT_EQ(sideband(w.a, 0, kSidebandOpcode, true, kSidebandEnumerate), 0u);
  EXPECT_EQ(sideband(w.a, 0, kSidebandOpcode, false, 77), 0u);
  EXPECT_EQ(w.a.adapter(1, kPortCs2), 0u);
  for (const uint32_t reg : {kSidebandVendor, kSidebandMetadata, kSidebandOpcode}) {
    EXPECT_EQ(sideband(w.a, 2, reg, false), kSidebandNoResponse);
    EXPECT_EQ(sideband(w.a, 2, reg, true), kSidebandNoResponse);
  }
}

TEST(RouterModel, SidebandRegistersOfThePort) {
  World w;
  EXPECT_EQ(sideband(w.a, 0, kSidebandMetadata, true, 0xabcd), 0u);
  EXPECT_EQ(sideband(w.a, 0, kSidebandMetadata, false), 0u);
  EXPECT_EQ(w.a.adapter(1, kPortCs2), 0xabcdu);
  EXPECT_EQ(sideband(w.a, 0, kSidebandVendor, false), 0u);
  EXPECT_EQ(w.a.adapter(1, kPortCs2), 0x8087u);
  EXPECT_EQ(sideband(w.a, 0, kSidebandOpcode, true, 0x50434452), 0u);  // lane margining
  EXPECT_EQ(sideband(w.a, 0, kSidebandOpcode, false), 0u);
  EXPECT_EQ(w.a.adapter(1, kPortCs2), kSidebandNotSupported);
  EXPECT_EQ(sideband(w.a, 0, 200, false), kSidebandResultCode);
}

// ---- packets that are not requests, or none at all

TEST(RouterModel, WhatNoRouterCanReadIsDropped) {
  World w;
  ControlFrame frame;
  encode_control_packet(ReadRequest{.route = {}, .address = {.length = 5}}, frame);
  uint64_t dropped = 0;
  for (size_t bytes = 0; bytes < frame.bytes; ++bytes) {
    EXPECT_TRUE(w.a.send_bytes(1, frame.span().first(bytes)).empty());
    EXPECT_EQ(w.a.model().counters().malformed, ++dropped);
  }
  for (size_t bit = 0; bit < frame.bytes * 8; ++bit) {
    auto damaged = exact(frame.span());
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_TRUE(w.a.send_bytes(1, damaged).empty());
    EXPECT_EQ(w.a.model().counters().malformed, ++dropped);
  }
  for (uint32_t pdf = 0; pdf < 256; ++pdf) {
    if (pdf >= 1 && pdf <= 9) continue;
    EXPECT_TRUE(w.a.send_bytes(static_cast<uint8_t>(pdf), frame.span()).empty());
    EXPECT_EQ(w.a.model().counters().malformed, ++dropped);
  }
  EXPECT_EQ(w.a.model().counters().reads, 0u);
}

TEST(RouterModel, WhatOnlyRoutersSayIsIgnored) {
  World w;
  w.plug(0);
  const std::vector<ControlPacket> packets = {ReadReply{.route = {},
                                                        .address = {},
                                                        .data =
                                                            [] {
                                                              ConfigData data;
                                                              data.push(0u);
                                                              return data;
                                                            }()},
                                              WriteReply{},
                                              Notification{},
                                              HotPlug{.route = {}, .adapter = 1},
                                              Reset{},
                                              HotPlugAck{.route = {}, .adapter = 2},
                                              HotPlugAck{.route = {}, .adapter = 63},
                                              HotPlugAck{.route = {1}, .adapter = 1}};
  for (size_t i = 0; i < packets.size(); ++i) {
    EXPECT_TRUE(w.a.send(packets[i]).empty()) << i;
    EXPECT_EQ(w.a.model().counters().ignored, i + 1);
  }
  EXPECT_TRUE(w.b.news.empty());
}

TEST(RouterModel, NotificationsAreCountedUntilAcknowledged) {
  World w({.ports = 2});
  RouterOutput out;
  w.a.model().notify(kLinkRecovery, 1, out);
  const auto said = w.deliver(w.a, out);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(std::get<Notification>(said[0]),
            (Notification{.route = {}, .code = kLinkRecovery, .adapter = 3}));
  EXPECT_EQ(w.a.model().counters().notifications, 1u);
  EXPECT_EQ(w.a.model().counters().notifications_acknowledged, 0u);
  EXPECT_TRUE(w.a.send(NotificationAck{}).empty());
  EXPECT_EQ(w.a.model().counters().notifications_acknowledged, 1u);
}

}  // namespace
}  // namespace tbt::rail::emulated
