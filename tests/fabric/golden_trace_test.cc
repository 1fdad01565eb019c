// The golden trace against the code of today: Linux's requests against the router model, and its
// side of XDomain against our connection manager.
#include "golden_trace.h"

namespace tbt::fabric {
namespace {

TEST_F(GoldenTrace, TheRouterAnswersLinuxAsItDid) {
  ASSERT_GT(trace_.size(), 200u);
  size_t answers = 0, locked_out = 0;
  for (size_t i = 0; i < trace_.size(); ++i) {
    const GoldenLine& line = trace_[i];
    if (line.by_linux) {
      // Linux answers our first questions before it has unlocked the port; those get lost.
      const bool locked = silicon_[1].ports[0].lane0[rail::emulated::kAdapterCs4] >> 31 != 0;
      const size_t before = over_cable_[1].size();
      from_host(1, line.pdf, line.bytes);
      const bool crosses = line.is_xdomain() && !locked;
      locked_out += line.is_xdomain() && locked ? 1 : 0;
      EXPECT_EQ(over_cable_[1].size() - before, crosses ? 1u : 0u) << "packet " << i;
    } else if (!line.is_xdomain()) {
      ASSERT_FALSE(to_host_[1].empty()) << "packet " << i << " does not come any more";
      const ControlFrame frame = to_host_[1].front();
      to_host_[1].pop_front();
      EXPECT_EQ(static_cast<uint8_t>(frame.pdf), line.pdf) << "packet " << i;
      EXPECT_TRUE(std::ranges::equal(frame.span(), line.bytes)) << "packet " << i;
      ++answers;
    }
  }
  EXPECT_TRUE(to_host_[1].empty());
  EXPECT_GT(answers, 100u);
  EXPECT_EQ(locked_out, 4u);
  EXPECT_EQ(routers_[1].counters().malformed, 0u);
  EXPECT_EQ(routers_[1].counters().vendor_bits_changed, 0u);
}

TEST_F(GoldenPeer, OurManagerFindsLinux) {
  manager_.start(now_);
  ASSERT_TRUE(run_until([&] { return peer_.has_value(); }));
  EXPECT_EQ(peer_->host_name, "host1");
  EXPECT_TRUE(peer_->thunderbolt_net);
  EXPECT_FALSE(peer_->runs_tbt());
  std::vector<std::string> keys;
  for (const ServiceInfo& service : peer_->services) keys.push_back(service.key);
  EXPECT_EQ(keys, (std::vector<std::string>{"network", "stream"}));
  EXPECT_EQ(unanswered_, 0u) << "we ask Linux what it was not asked then";
}

TEST_F(GoldenPeer, OurManagerAnswersLinux) {
  manager_.start(now_);
  run();
  answers_.clear();
  std::vector<XDomainMessage> asked;
  for (const GoldenLine& line : trace_) {
    XDomainMessage question;
    if (!line.by_linux || line.pdf != 6) continue;
    ASSERT_TRUE(read(line.pdf, line.bytes, question)) << "a question that we cannot read";
    asked.push_back(question);
    from_cable(0, line.pdf, line.bytes);
    run();
  }
  ASSERT_GE(asked.size(), 4u);
  ASSERT_EQ(answers_.size(), asked.size());
  for (size_t i = 0; i < asked.size(); ++i) EXPECT_TRUE(fits(asked[i], answers_[i])) << i;
}

}  // namespace
}  // namespace tbt::fabric
