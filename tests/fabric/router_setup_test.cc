// Setting up a router that a test has written by hand, dword by dword, and refusing one that is not
// ours to drive.
#include "fabric/router_setup.h"

#include "scripted_router.h"

namespace tbt::fabric {
namespace {

constexpr uint32_t kBusy = 1u << 31;
constexpr uint16_t kLaneCap = 0x10, kPortCap = 0x20;

// Adapters 1 and 2 are the lanes of a port, 3 is missing, 4 is something else, 5 the NHI's.
class Router : public ScriptedRouter {
 public:
  Router() {
    fill(Space::kRouter, 0, 0, 27);
    router(0) = 0x5781'8086;
    router(1) = 5u << 14 | 5u << 8 | 0x30;
    router(4) = 0x4000'00ff;
    router(6) = 1u << 24;
    router(7) = 0x33221100;
    router(8) = 0x77665544;
    for (const uint8_t number : {1, 2, 4, 5}) fill(Space::kAdapter, number, 0, 8);
    for (const uint8_t number : {1, 2}) {
      adapter(number, 1) = kLaneCap;
      adapter(number, 2) = 1;
      adapter(number, 4) = 60u << 20;
      adapter(number, 5) = 25u << 11 | 30;
      adapter(number, kLaneCap) = 1 << 8 | (number == 1 ? kPortCap : 0);
    }
    adapter(1, kPortCap) = 6 << 8;
    path(1, 0, 0) = 2u << 17;
    path(1, 0, 1);
    adapter(4, 2) = 0x0e0101;
    adapter(5, 2) = 2;
    adapter(5, 5) = 11u << 11 | 10;
    before = [this](const ConfigAccess& access) {
      if (access.write && access.offset == 26) command_ = access.data.span()[0];
      if (!access.write && access.offset == 25 && command_) operate();
    };
  }

  std::string refusal() {
    run(setup);
    return setup.failure();
  }

  RouterSetup setup;
  uint32_t answer = 0;  // of the operation, in its command dword
  uint32_t busy_reads = 0;

 private:
  void operate() {
    router(26) = *command_;
    if (busy_reads > 0 && busy_reads-- > 0) return;
    router(26) = (*command_ & ~kBusy) | answer;
    router(25) = 3;
    router(9) = 7u << 16 | 4;
    router(10) = 6u << 16 | 5;
    router(11) = 9u << 16 | 1;
    router(12) = 99u << 16 | 5;  // beyond its length
  }
  std::optional<uint32_t> command_;
};

TEST(RouterSetup, FindsOutWhatTheRouterIs) {
  Router router;
  EXPECT_EQ(router.refusal(), "");
  const RouterStatus& status = router.setup.router();
  EXPECT_EQ(status.vendor_id, 0x8086);
  EXPECT_EQ(status.device_id, 0x5781);
  EXPECT_EQ(status.usb4_version, 2u);
  EXPECT_EQ(status.max_adapter, 5);
  EXPECT_EQ(status.nhi_adapter, 5);
  EXPECT_EQ(status.nhi_hop_id_max, 10);
  EXPECT_EQ(status.max_hi_credits, 6u);
  EXPECT_EQ(status.uuid, wire::tb::uuid("00112233-4455-6677-ffff-ffffffffffff"));
  EXPECT_TRUE(router.setup.warnings().empty());
  const auto& adapters = router.setup.adapters();
  ASSERT_EQ(adapters.size(), 4u);
  EXPECT_EQ(adapters[0].lane, kLaneCap);
  EXPECT_EQ(adapters[0].usb4_port, kPortCap);
  EXPECT_EQ(adapters[0].max_in_hop_id, 30);
  EXPECT_EQ(adapters[0].max_out_hop_id, 25);
  EXPECT_EQ(adapters[0].buffers, 60u);
  EXPECT_EQ(adapters[0].control_credits, 2u);
  EXPECT_EQ(adapters[1].number, 2);
  EXPECT_EQ(adapters[1].lane, kLaneCap);
  EXPECT_EQ(adapters[1].usb4_port, 0);
  EXPECT_EQ(adapters[2].number, 4);
  EXPECT_EQ(adapters[2].lane, 0);
}

TEST(RouterSetup, EnumeratesItForAManagerOfItsVersion) {
  for (const uint32_t version : {1u, 2u}) {
    Router router;
    router.router(4) = version << 29 | 0x00ab'cdff;
    EXPECT_EQ(router.refusal(), "");
    const ConfigAccess write = router.writes()[0];
    EXPECT_EQ(write.offset, 1);
    ASSERT_EQ(write.length, 4);
    EXPECT_EQ(write.data.span()[0], 5u << 14 | 5u << 8 | 0x30u) << "as it was";
    EXPECT_EQ(write.data.span()[1], 0u);
    EXPECT_EQ(write.data.span()[2], 1u << 31);
    EXPECT_EQ(write.data.span()[3],
              version << 29 | 0x00ab'000a | (version == 1 ? 0x1000u : 0x2000u));
  }
}

TEST(RouterSetup, WhatCannotBeDrivenIsRefusedInWords) {
  {
    Router router;
    router.silent = true;
    EXPECT_EQ(router.refusal(), "the router does not answer on the control channel: no answer");
    EXPECT_EQ(router.log.size(), 1u);
  }
  {
    Router router;
    for (uint16_t i = 0; i < 5; ++i) router.router(i) = UINT32_MAX;
    EXPECT_EQ(router.refusal(), "the controller is gone: its registers are all ones");
  }
  {
    Router router;
    router.router(4) = 0x1f00'0000;
    EXPECT_EQ(router.refusal(),
              "a Thunderbolt 3 router: only routers of USB4 and later can be driven");
    EXPECT_TRUE(router.writes().empty()) << "it is left as it was";
  }
  {
    Router router;
    router.router(1) |= 1u << 20;
    EXPECT_EQ(router.refusal(), "not a host router: it has a router above it");
    EXPECT_TRUE(router.writes().empty());
  }
  {
    Router router;
    router.router(7) = router.router(8) = 0;
    EXPECT_EQ(router.refusal(), "the router has no unique id");
  }
  {
    Router router;
    router.remove_adapter(5);
    EXPECT_EQ(router.refusal(), "the router has no host interface adapter");
  }
  {
    Router router;
    router.adapter(1, kLaneCap) = 1 << 8;
    EXPECT_EQ(router.refusal(), "the router has no USB4 port");
  }
  {
    Router router;
    router.adapter(1, kPortCap) = 6 << 8 | kLaneCap;
    EXPECT_EQ(router.refusal(), "an adapter's list of capabilities has no end");
  }
}

TEST(RouterSetup, ARouterThatFallsSilentAtAnyStepIsRefusedInBoundedTime) {
  Router whole;
  whole.run(whole.setup);
  const size_t accesses = whole.log.size();
  ASSERT_GT(accesses, 12u);
  for (size_t step = 0; step < accesses; ++step) {
    Router router;
    const auto before = router.before;
    size_t count = 0;
    router.before = [&](const ConfigAccess& access) {
      before(access);
      if (count++ == step) router.silent = true;
    };
    const Instant begun = router.now;
    // Without the buffers' answer it goes on, and falls over the first adapter.
    EXPECT_NE(router.refusal(), "") << step;
    EXPECT_LT(router.now - begun, Duration::from_s(2)) << step;
  }
}

TEST(RouterSetup, WaitsUntilTheRouterIsReadyButNotForEver) {
  {
    Router router;
    router.router(6) = 0;
    const Instant ready = router.now + Duration::from_ms(30);
    router.before = [&, before = router.before](const ConfigAccess& access) {
      before(access);
      if (router.now >= ready) router.router(6) = 1u << 25;
    };
    EXPECT_EQ(router.refusal(), "");
    EXPECT_TRUE(router.setup.warnings().empty());
    EXPECT_LT(router.now - ready, Duration::from_ms(3));
  }
  Router router;
  router.router(6) = 0;
  const Instant begun = router.now;
  EXPECT_EQ(router.refusal(), "");
  EXPECT_EQ(router.setup.warnings().size(), 1u);
  EXPECT_GT(router.now - begun, kRouterReadyLimit);
  EXPECT_LT(router.now - begun, kRouterReadyLimit + Duration::from_ms(10));
}

TEST(RouterSetup, BufferAllocationIsAskedForButNotNeeded) {
  {
    Router router;
    router.busy_reads = 5;
    EXPECT_EQ(router.refusal(), "");
    EXPECT_EQ(router.setup.router().max_hi_credits, 6u);
  }
  {
    Router router;
    router.answer = 1u << 30;  // not supported
    EXPECT_EQ(router.refusal(), "");
    EXPECT_FALSE(router.setup.router().max_hi_credits);
    EXPECT_TRUE(router.setup.warnings().empty());
  }
  {
    Router router;
    router.answer = 1u << 24;  // failed
    EXPECT_EQ(router.refusal(), "");
    EXPECT_FALSE(router.setup.router().max_hi_credits);
    EXPECT_EQ(router.setup.warnings().size(), 1u);
  }
  Router router;
  router.busy_reads = 1'000'000;
  const Instant begun = router.now;
  EXPECT_EQ(router.refusal(), "");
  EXPECT_EQ(router.setup.warnings().size(), 1u);
  EXPECT_LT(router.now - begun, kOperationLimit + Duration::from_ms(10));
}

}  // namespace
}  // namespace tbt::fabric
