// What Linux's own driver said over ring 0, recorded once (golden/), against the code of today:
// its requests against the router model, and its side of XDomain against our connection manager.
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "fabric/connection_manager.h"
#include "rail/emulated/router_model.h"
#include "wire/tb/xdomain.h"

namespace tbt::fabric {
namespace {

using namespace wire::tb;
using rail::emulated::RouterModel;
using rail::emulated::RouterOutput;

struct Line {
  bool by_linux = false;
  uint8_t pdf = 0;
  std::vector<std::byte> bytes;

  [[nodiscard]] bool is_xdomain() const { return pdf == 6 || pdf == 7; }
};

std::vector<Line> load_trace() {
  std::ifstream file(TBT_GOLDEN "/linux_7_3.trace");
  std::vector<Line> lines;
  for (std::string text; std::getline(file, text);) {
    if (text.empty() || text[0] == '#') continue;
    std::istringstream words(text);
    std::string time, direction, word;
    unsigned pdf = 0;
    words >> time >> direction >> word >> pdf;
    Line line{direction == "tx", static_cast<uint8_t>(pdf), {}};
    while (words >> word) {
      line.bytes.resize(line.bytes.size() + 4);
      base::store_be(line.bytes.data() + line.bytes.size() - 4,
                     static_cast<uint32_t>(std::stoul(word, nullptr, 16)));
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

// Two routers of a fabric with one cable and seed 1, as they were.
class GoldenTrace : public ::testing::Test {
 protected:
  GoldenTrace() {
    for (uint32_t h = 0; h < 2; ++h) {
      rail::emulated::RouterShape shape;
      shape.unique_id = (8 + h + 1) * 0x9e37'79b9'7f4a'7c15;
      power_on(silicon_[h], shape);
    }
    train();
  }

  void train() {
    RouterOutput out[2];
    rail::emulated::train({}, routers_[0], 0, out[0], routers_[1], 0, out[1]);
    take(0, out[0]);
    take(1, out[1]);
  }
  // What `host`'s router sends: to its host, or over the cable.
  void take(uint32_t host, const RouterOutput& out) {
    for (size_t i = 0; i < out.count; ++i) {
      auto& queue = out.packets[i].to == RouterOutput::kHost ? to_host_[host] : over_cable_[host];
      queue.push_back(out.packets[i].frame);
    }
    if (out.retrain != 0) train();
  }
  void from_host(uint32_t host, uint8_t pdf, std::span<const std::byte> bytes) {
    RouterOutput out;
    routers_[host].handle_host(pdf, bytes, out);
    take(host, out);
  }
  void from_cable(uint32_t host, uint8_t pdf, std::span<const std::byte> bytes) {
    RouterOutput out;
    routers_[host].handle_cable(0, pdf, bytes, out);
    take(host, out);
  }

  const std::vector<Line> trace_ = load_trace();
  rail::emulated::RouterSilicon silicon_[2] = {};
  RouterModel routers_[2] = {RouterModel(silicon_[0]), RouterModel(silicon_[1])};
  std::deque<ControlFrame> to_host_[2], over_cable_[2];
};

TEST_F(GoldenTrace, TheRouterAnswersLinuxAsItDid) {
  ASSERT_GT(trace_.size(), 200u);
  size_t answers = 0, locked_out = 0;
  for (size_t i = 0; i < trace_.size(); ++i) {
    const Line& line = trace_[i];
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

// Our manager on host 0; Linux's answers and questions come out of the record.
class GoldenPeer : public GoldenTrace {
 protected:
  GoldenPeer() : manager_(config()) {}

  static ManagerConfig config() {
    ManagerConfig config;
    config.host_name = "host0";
    return config;
  }
  static bool read(const ControlFrame& frame, XDomainMessage& message) {
    return read(static_cast<uint8_t>(frame.pdf), frame.span(), message);
  }
  static bool read(uint8_t pdf, std::span<const std::byte> bytes, XDomainMessage& message) {
    ControlPacket packet;
    return decode_control_packet(pdf, bytes, packet) == PacketError::kNone &&
           std::holds_alternative<XDomainPacket>(packet) &&
           decode_xdomain(std::get<XDomainPacket>(packet), message) == XDomainError::kNone;
  }
  static bool fits(const XDomainMessage& question, const XDomainMessage& answer) {
    if (std::holds_alternative<UuidRequest>(question)) {
      return std::holds_alternative<UuidResponse>(answer);
    }
    if (const auto* asked = std::get_if<PropertiesRequest>(&question)) {
      const auto* block = std::get_if<PropertiesResponse>(&answer);
      return block != nullptr && block->offset == asked->offset;
    }
    return std::holds_alternative<PropertiesChangedRequest>(question) &&
           std::holds_alternative<PropertiesChangedResponse>(answer);
  }

  // Until nothing moves; our questions are answered with what Linux answered, our answers kept.
  void run() {
    bool moved = true;
    while (moved) {
      moved = false;
      ControlFrame frame;
      while (manager_.poll_transmit(now_, frame)) {
        from_host(0, static_cast<uint8_t>(frame.pdf), frame.span());
        moved = true;
      }
      for (; !to_host_[0].empty(); to_host_[0].pop_front()) {
        const ControlFrame& got = to_host_[0].front();
        manager_.handle_packet(now_, static_cast<uint8_t>(got.pdf), got.span());
        moved = true;
      }
      for (; !over_cable_[0].empty(); over_cable_[0].pop_front()) {
        answer_as_linux(over_cable_[0].front());
        moved = true;
      }
      for (ManagerEvent event; manager_.poll_event(event);) {
        if (const auto* found = std::get_if<PeerFound>(&event)) peer_ = found->peer;
      }
    }
  }
  void answer_as_linux(const ControlFrame& ours) {
    XDomainMessage message;
    ASSERT_TRUE(read(ours, message));
    if (is_response(message)) {
      answers_.push_back(message);
      return;
    }
    for (const Line& line : trace_) {
      XDomainMessage answer;
      if (!line.by_linux || line.pdf != 7 || !read(line.pdf, line.bytes, answer)) continue;
      if (!fits(message, answer)) continue;
      from_cable(0, line.pdf, line.bytes);
      return;
    }
    ++unanswered_;
  }

  ConnectionManager manager_;
  Instant now_{1'000'000'000};
  std::optional<PeerStatus> peer_;
  std::vector<XDomainMessage> answers_;
  size_t unanswered_ = 0;
};

TEST_F(GoldenPeer, OurManagerFindsLinux) {
  manager_.start(now_);
  for (int turn = 0; turn < 100 && !peer_; ++turn) {
    run();
    now_ = std::max(now_, std::min(manager_.poll_timeout(), now_ + Duration::from_ms(100)));
    manager_.handle_timeout(now_);
  }
  ASSERT_TRUE(peer_);
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
  for (const Line& line : trace_) {
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
