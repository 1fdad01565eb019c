// The router model under the sequence of requests that Linux makes from loading its driver until
// two hosts talk. Order and kind of the steps are those seen of 7.3.4; what 6.1 does otherwise is
// beside them. Each step expects what the kernel needs to go on.
#include "router_world.h"

namespace tbt::rail::emulated {
namespace {

using namespace testing;  // NOLINT

constexpr ConfigSpace kRouter = ConfigSpace::kRouter;
constexpr ConfigSpace kAdapter = ConfigSpace::kAdapter;
constexpr ConfigSpace kPath = ConfigSpace::kPath;

struct Adapter {
  uint32_t type = 0, max_hop = 0;
  uint32_t lane = 0, usb4 = 0, tmu = 0;  // offsets of capabilities
};

// The driver's steps, each named after what it is for. A step that the kernel would not survive
// fails the test.
class Linux {
 public:
  Linux(Host& host, bool old_kernel) : host_(host), old_(old_kernel) {}

  void load() {
    identify();
    enumerate();
    operations();
    adapters();
    time();
    for (const uint32_t n : with_usb4()) {
      ASSERT_TRUE(host_.change_adapter(n, kAdapterCs5, kNoHotPlug, 0));
    }
    if (!old_ && usb4_version_ == 1) reset_ports();
    if (old_) scan();
    handle_events();
  }

  // The work that hot-plug events set going, acknowledged when they arrive.
  void handle_events() {
    for (auto events = host_.events(); !events.empty(); events = host_.events()) {
      for (const HotPlug& event : events) {
        EXPECT_EQ(event.route, Route{});
        host_.send(HotPlugAck{.route = {}, .adapter = event.adapter, .unplug = event.unplug});
      }
      for (const HotPlug& event : events) {
        if (event.unplug) {
          std::erase(domains, event.adapter);
          ASSERT_TRUE(host_.change_adapter(event.adapter, usb4(event.adapter) + 0x13, 1u << 4, 0));
        } else {
          scan(event.adapter);
        }
      }
    }
  }

  // A lane adapter with two lanes, below generation 4.
  void bond(uint32_t lane0, bool drive) {
    for (const uint32_t n : {lane0, lane0 + 1}) {
      ASSERT_TRUE(host_.change_adapter(n, lane(n) + 1, 3u << 4, 3u << 4));
    }
    if (drive) {
      ASSERT_TRUE(host_.change_adapter(lane0, lane(lane0) + 1, 0, 1u << 15));
    }
  }

  // Disables what is left, then reads, changes and writes the entry.
  void activate(uint32_t n, uint32_t hop, uint32_t next, uint32_t egress) {
    deactivate(n, hop);
    auto entry = host_.read(kPath, n, 2 * hop, 2);
    ASSERT_EQ(entry.size(), 2u);
    const bool lane_adapter = adapters_[n].type == 1;
    entry[0] = (entry[0] & (lane_adapter ? 0 : 0x7fu << 17)) | next | egress << 11 | 1u << 31;
    entry[1] = (entry[1] & (lane_adapter ? 0 : 1u << 24 | 1u << 26)) | 5u << 8 | 1;
    if (lane_adapter) entry[0] |= 14u << 17, entry[1] |= 1u << 24;
    entry[1] |= lane_adapter ? 0 : 1u << 25;
    ASSERT_TRUE(host_.write(kPath, n, 2 * hop, entry));
  }
  void deactivate(uint32_t n, uint32_t hop) {
    auto entry = host_.read(kPath, n, 2 * hop, 2);
    ASSERT_EQ(entry.size(), 2u);
    if ((entry[0] >> 31) == 0) return;
    entry[0] &= ~(1u << 31);
    ASSERT_TRUE(host_.write(kPath, n, 2 * hop, entry));
    int polls = 0;
    do {
      entry = host_.read(kPath, n, 2 * hop, 2);
      ASSERT_LT(++polls, 100) << "the path never drains";
    } while ((entry[1] >> 28 & 1) != 0);
    entry[1] &= ~(0xfu << 24);
    ASSERT_TRUE(host_.write(kPath, n, 2 * hop, entry));
  }

  [[nodiscard]] uint32_t upstream() const { return upstream_; }
  [[nodiscard]] uint32_t max_hop(uint32_t n) const { return adapters_[n].max_hop; }

  std::vector<uint8_t> domains;  // lane adapters behind which another domain is

 private:
  void identify() {
    const auto first = host_.ask<ReadReply>(ReadRequest{.route = {}, .address = {.length = 1}});
    ASSERT_TRUE(first);
    upstream_ = first->address.adapter;
    header_ = host_.read(kRouter, 0, 0, 5);
    ASSERT_EQ(header_.size(), 5u);
    usb4_version_ = header_[4] >> 29;
    ASSERT_GT(usb4_version_, 0u) << "not a USB4 router";
    // Vendor-specific capabilities are looked for four times; USB4 has none of them.
    for (int i = 0; i < 4; ++i) EXPECT_EQ(router_capability(5), 0u);
  }

  void enumerate() {
    std::vector<uint32_t> words(header_.begin() + 1, header_.end());
    words[0] = (words[0] & ~(0x3fu << 8)) | upstream_ << 8;
    words[2] |= 1u << 31;
    words[3] = (words[3] & 0xffff0000) | 0xff | (usb4_version_ >= 2 ? 0x2000 : 0x1000);
    ASSERT_TRUE(host_.write(kRouter, 0, 1, words));
  }

  void operations() {
    EXPECT_EQ(host_.read(kRouter, 0, 7, 2).size(), 2u);
    EXPECT_NE(host_.router(26) & 0xffff, 0x21u);  // no new firmware to be told of
    EXPECT_FALSE(operation(0x25));                // and there can be none
    ASSERT_TRUE(operation(0x33));
    const uint32_t length = host_.router(25) & 0xff;
    ASSERT_LE(length, 16u);
    int dma = -1;
    const auto data = host_.read(kRouter, 0, 9, 16);
    for (uint32_t i = 0; i < length; ++i) {
      if ((data[i] & 0xffff) == 5) dma = static_cast<int>(data[i] >> 16);
    }
    EXPECT_GT(dma, 0) << "host router is missing baMaxHI";
    for (int i = 0; i < 4; ++i) EXPECT_FALSE(operation(0x24));
  }

  void adapters() {
    const uint32_t last = header_[1] >> 14 & 0x3f;
    adapters_.resize(last + 1);
    for (uint32_t n = 1; n <= last; ++n) {
      const auto cs = host_.read(kAdapter, n, 0, 8);
      ASSERT_EQ(cs.size(), 8u);
      Adapter& a = adapters_[n];
      a.type = cs[2] & 0xffffff;
      a.max_hop = cs[5] & 0x7ff;
      if (a.type != 1) continue;
      a.lane = capability(n, 1);
      ASSERT_GT(a.lane, 0u) << "non switch port without a PHY";
      a.usb4 = capability(n, 6);
      // 6.1 reads this of lane 1, too, and lives with the error.
      if (a.usb4 == 0 && !old_) continue;
      const auto control = host_.read(kPath, n, 0, 2);
      EXPECT_EQ(control.empty(), a.usb4 == 0);
    }
    ASSERT_EQ(adapters_[upstream_].type, 2u);
    EXPECT_EQ(with_usb4().size(), last / 2);
  }

  void time() {
    const uint32_t tmu = router_capability(3);
    ASSERT_GT(tmu, 0u);
    for (uint32_t n = 1; n < adapters_.size(); ++n) adapters_[n].tmu = capability(n, 3);
    for (const auto& [dword, set] :
         {std::pair{0u, 30u << 16}, {15u, 0x41041u}, {3u, 1000u << 16}}) {
      const uint32_t value = host_.router(tmu + dword) | set;
      ASSERT_TRUE(host_.set_router(tmu + dword, value));
      EXPECT_EQ(host_.router(tmu + dword), value);
    }
  }

  void reset_ports() {
    for (const uint32_t n : with_usb4()) {
      ASSERT_TRUE(host_.change_adapter(n, usb4(n) + 0x13, 0, 1));
      ASSERT_TRUE(host_.change_adapter(n, usb4(n) + 0x13, 1, 0));
      for (uint32_t hop = 8; hop <= max_hop(n); ++hop) deactivate(n, hop);
    }
  }

  void scan() {
    for (const uint32_t n : with_usb4()) scan(n);
  }

  void scan(uint32_t n) {
    const uint32_t state = host_.read(kAdapter, n, lane(n), 2).at(1) >> 26 & 0xf;
    if (state < 2 || state > 6) return;
    ASSERT_TRUE(host_.change_adapter(n, 4, 1u << 31, 0));
    EXPECT_TRUE(host_.read(kRouter, 0, 0, 1, 0, Route{n}).empty());
    ASSERT_TRUE(host_.error) << "a router answers behind the port";
    EXPECT_NE(host_.error, kAdapterLocked);
    retimers(n);
    if (std::ranges::find(domains, n) != domains.end()) return;
    domains.push_back(static_cast<uint8_t>(n));
    EXPECT_EQ(host_.adapter(n, usb4(n) + 0x12) >> 9 & 1, 0u) << "Thunderbolt 3 link";
    ASSERT_TRUE(host_.change_adapter(n, usb4(n) + 0x13, 0, 1u << 4));
    EXPECT_NE(host_.adapter(n, usb4(n) + 0x13) & 1u << 4, 0u);
  }

  void retimers(uint32_t n) {
    EXPECT_EQ(sideband(n, 0, 8, 0x4d554e45), 0);
    EXPECT_EQ(sideband(n, 2, 9, std::nullopt), -19) << "status of the first retimer";
    EXPECT_EQ(sideband(n, 2, 8, 0x5453414c), -19) << "is it the last one?";
  }
  // 0, or the negative errno that the kernel makes of it: ENODEV or EIO.
  int sideband(uint32_t n, uint32_t target, uint32_t reg, std::optional<uint32_t> value) {
    if (value) {
      EXPECT_TRUE(host_.set_adapter(n, usb4(n) + 2, *value));
    }
    const uint32_t command = reg | 4u << 8 | target << 16 | (target == 2 ? 1u << 20 : 0) |
                             (value ? 1u << 24 : 0) | 1u << 31;
    EXPECT_TRUE(host_.set_adapter(n, usb4(n) + 1, command));
    EXPECT_EQ(host_.adapter(n, usb4(n) + 1) >> 31, 0u) << "still pending";
    const uint32_t result = host_.adapter(n, usb4(n) + 1);
    if ((result & 1u << 25) != 0) return -19;
    return (result & 1u << 26) != 0 ? -5 : 0;
  }

  // True if the router supports it.
  bool operation(uint32_t opcode) {
    EXPECT_TRUE(host_.set_router(25, 0));
    EXPECT_TRUE(host_.set_router(26, opcode | 1u << 31));
    EXPECT_EQ(host_.router(26) >> 31, 0u) << "still busy";
    const uint32_t result = host_.router(26);
    EXPECT_EQ(result >> 24 & 0x3f, 0u);
    return (result >> 30 & 1) == 0;
  }

  uint32_t router_capability(uint32_t id) {
    for (uint32_t at = header_[1] & 0xff; at != 0;) {
      const auto header = host_.read(kRouter, 0, at, 2);
      EXPECT_EQ(header.size(), 2u);
      if (header.empty() || (header[0] >> 8 & 0xff) == id) return header.empty() ? 0 : at;
      at = header[0] & 0xff;
    }
    return 0;
  }
  uint32_t capability(uint32_t n, uint32_t id) {
    for (uint32_t at = host_.adapter(n, 1) & 0xff; at != 0;) {
      const uint32_t header = host_.adapter(n, at);
      if ((header >> 8 & 0xff) == id) return at;
      at = header & 0xff;
    }
    return 0;
  }

  std::vector<uint32_t> with_usb4() {
    std::vector<uint32_t> found;
    for (uint32_t n = 1; n < adapters_.size(); ++n) {
      if (adapters_[n].usb4 != 0) found.push_back(n);
    }
    return found;
  }
  uint32_t usb4(uint32_t n) { return adapters_.at(n).usb4; }
  uint32_t lane(uint32_t n) { return adapters_.at(n).lane; }

  Host& host_;
  bool old_;
  uint32_t upstream_ = 0, usb4_version_ = 0;
  std::vector<uint32_t> header_;
  std::vector<Adapter> adapters_;
};

struct Kernel {
  const char* name;
  bool old;
  RouterShape shape;
};
std::ostream& operator<<(std::ostream& out, const Kernel& k) { return out << k.name; }

class RouterUnderLinux : public ::testing::TestWithParam<Kernel> {};

INSTANTIATE_TEST_SUITE_P(
    Kernels, RouterUnderLinux,
    ::testing::Values(
        Kernel{"Linux73V2", false, {.ports = 2, .hop_count = 12}},
        Kernel{"Linux73V1", false, {.ports = 2, .hop_count = 12, .usb4_v2 = false}},
        Kernel{"Linux73Amd", false, {.ports = 2, .hop_count = 3, .usb4_v2 = false, .intel = false}},
        Kernel{"Linux61V1", true, {.ports = 2, .hop_count = 12, .usb4_v2 = false}},
        Kernel{"Linux61V2", true, {.ports = 1, .hop_count = 32}}),
    [](const auto& kernel) { return kernel.param.name; });

XDomainPacket uuid_request(uint8_t adapter) {
  XDomainPacket p{.route = {adapter},
                  .from_router = false,
                  .response = false,
                  .sequence = 1,
                  .protocol = kDiscoveryProtocol,
                  .body = {}};
  p.body.push(12u);
  return p;
}

TEST_P(RouterUnderLinux, FromLoadingTheDriverToATunnel) {
  World w(GetParam().shape, GetParam().shape);
  w.plug(0);
  Linux a(w.a, GetParam().old), b(w.b, GetParam().old);
  ASSERT_NO_FATAL_FAILURE(a.load());
  EXPECT_EQ(a.domains, (std::vector<uint8_t>{1}));
  ASSERT_NO_FATAL_FAILURE(b.load());  // which may reset the port under a
  ASSERT_NO_FATAL_FAILURE(a.handle_events());
  EXPECT_EQ(a.domains, (std::vector<uint8_t>{1}));
  EXPECT_EQ(b.domains, (std::vector<uint8_t>{1}));

  // Discovery: a asks, b answers.
  w.a.send(uuid_request(1));
  ASSERT_EQ(w.b.news.size(), 1u);
  XDomainPacket answer = std::get<XDomainPacket>(w.b.news[0]);
  EXPECT_TRUE(answer.from_router);
  answer.from_router = false;
  answer.response = true;
  w.b.send(answer);
  ASSERT_EQ(w.a.news.size(), 1u);
  EXPECT_TRUE(std::get<XDomainPacket>(w.a.news[0]).response);
  w.a.news.clear();
  w.b.news.clear();

  if (w.a.model().link(0).generation < 4) {
    ASSERT_NO_FATAL_FAILURE(a.bond(1, true));  // the lower UUID
    ASSERT_NO_FATAL_FAILURE(b.bond(1, false));
  }
  EXPECT_EQ(w.a.width(1), 2u);
  EXPECT_EQ(w.b.width(2), 2u);

  // thunderbolt-net: ring 1 either way, HopID 8 on the cable.
  for (auto [host, linux] : {std::pair{&w.a, &a}, {&w.b, &b}}) {
    ASSERT_NO_FATAL_FAILURE(linux->activate(linux->upstream(), 1, 8, 1));
    ASSERT_NO_FATAL_FAILURE(linux->activate(1, 8, 1, linux->upstream()));
    const PathEntry out = host->model().path(linux->upstream(), 1);
    const PathEntry in = host->model().path(1, 8);
    EXPECT_TRUE(out.enabled && in.enabled);
    EXPECT_EQ(out.egress_adapter, 1);
    EXPECT_EQ(out.next_hop, 8);
    EXPECT_EQ(in.egress_adapter, linux->upstream());
    EXPECT_EQ(in.next_hop, 1);
    EXPECT_EQ(in.credits, 14);
    EXPECT_TRUE(in.ingress_fc && out.egress_fc);
    EXPECT_EQ(host->model().counters().vendor_bits_changed, 0u);
  }

  // The cable is pulled: paths go, the domain goes, and comes again.
  w.pull(0);
  ASSERT_NO_FATAL_FAILURE(a.handle_events());
  EXPECT_TRUE(a.domains.empty());
  w.a.model().set_stuck_pending_reads(5);
  ASSERT_NO_FATAL_FAILURE(a.deactivate(1, 8));
  ASSERT_NO_FATAL_FAILURE(a.deactivate(a.upstream(), 1));
  EXPECT_FALSE(w.a.model().path(1, 8).enabled);
  EXPECT_FALSE(w.a.model().path(a.upstream(), 1).enabled);
  w.plug(0);
  ASSERT_NO_FATAL_FAILURE(a.handle_events());
  EXPECT_EQ(a.domains, (std::vector<uint8_t>{1}));
  EXPECT_EQ(w.a.model().counters().malformed, 0u);
  EXPECT_EQ(w.a.model().counters().ignored, 0u);
}

TEST_P(RouterUnderLinux, ADriverThatIsLoadedAgainFindsItsPeerAgain) {
  World w(GetParam().shape, GetParam().shape);
  w.plug(0);
  Linux first(w.a, GetParam().old);
  ASSERT_NO_FATAL_FAILURE(first.load());
  if (!GetParam().old &&
      GetParam().shape.usb4_v2) {  // the reset of the NHI that such a driver makes
    RouterOutput out;
    w.a.model().reset(out);
    w.deliver(w.a, out);
  }
  Linux second(w.a, GetParam().old);
  ASSERT_NO_FATAL_FAILURE(second.load());
  EXPECT_EQ(second.domains, (std::vector<uint8_t>{1}));
}

TEST_P(RouterUnderLinux, ACableThatIsPluggedLaterIsFound) {
  World w(GetParam().shape, GetParam().shape);
  Linux a(w.a, GetParam().old);
  ASSERT_NO_FATAL_FAILURE(a.load());
  EXPECT_TRUE(a.domains.empty());
  w.plug(0);
  ASSERT_NO_FATAL_FAILURE(a.handle_events());
  EXPECT_EQ(a.domains, (std::vector<uint8_t>{1}));
}

}  // namespace
}  // namespace tbt::rail::emulated
