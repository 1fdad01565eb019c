// What Linux's own driver said over ring 0, recorded once (golden/), and what it is replayed
// against: models of the two routers, and our connection manager on the host that was ours.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fabric/connection_manager.h"
#include "rail/emulated/router_model.h"
#include "wire/tb/thunderbolt_ip.h"
#include "wire/tb/xdomain.h"

namespace tbt::fabric {

using namespace wire::tb;
using rail::emulated::RouterModel;
using rail::emulated::RouterOutput;

struct GoldenLine {
  Instant at;
  bool by_linux = false;
  uint8_t pdf = 0;
  std::vector<std::byte> bytes;

  [[nodiscard]] bool is_xdomain() const { return pdf == 6 || pdf == 7; }
};

std::vector<GoldenLine> load_trace();

inline bool read_ip(uint8_t pdf, std::span<const std::byte> bytes, IpMessage& message) {
  ControlPacket packet;
  return decode_control_packet(pdf, bytes, packet) == PacketError::kNone &&
         std::holds_alternative<XDomainPacket>(packet) &&
         decode_thunderbolt_ip(std::get<XDomainPacket>(packet), message) == XDomainError::kNone;
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

  const std::vector<GoldenLine> trace_ = load_trace();
  rail::emulated::RouterSilicon silicon_[2] = {};
  RouterModel routers_[2] = {RouterModel(silicon_[0]), RouterModel(silicon_[1])};
  std::deque<ControlFrame> to_host_[2], over_cable_[2];
};

constexpr uint32_t kIpRing = 2;
constexpr IpMac kOurMac = {2, 0, 0, 0, 0, 7};

// Our manager on host 0; Linux's answers and questions come out of the record.
class GoldenPeer : public GoldenTrace {
 protected:
  explicit GoldenPeer(uint32_t ip_rings = 0) : manager_(config(ip_rings)) {}

  static ManagerConfig config(uint32_t ip_rings) {
    ManagerConfig config;
    config.host_name = "host0";
    config.first_ip_ring = kIpRing;
    config.ip_rings = ip_rings;
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
        moved = true;
        if (const auto* found = std::get_if<PeerFound>(&event)) peer_ = found->peer;
        if (const auto* wanted = std::get_if<IpRingsWanted>(&event)) {
          manager_.ip_rings(now_, wanted->port, kOurMac);
        }
        events_.push_back(event);
      }
    }
  }
  void answer_as_linux(const ControlFrame& ours) {
    XDomainMessage message;
    IpMessage ip;
    if (read_ip(static_cast<uint8_t>(ours.pdf), ours.span(), ip)) return answer_ip(ip);
    ASSERT_TRUE(read(ours, message));
    if (is_response(message)) {
      answers_.push_back(message);
      return;
    }
    // Its last answer: it was asked for its properties before it had all of them.
    for (auto line = trace_.rbegin(); line != trace_.rend(); ++line) {
      XDomainMessage answer;
      if (!line->by_linux || line->pdf != 7 || !read(line->pdf, line->bytes, answer)) continue;
      if (!fits(message, answer)) continue;
      from_cable(0, line->pdf, line->bytes);
      return;
    }
    ++unanswered_;
  }
  void answer_ip(const IpMessage& ours) {
    if (std::holds_alternative<IpLogin>(ours.content)) {
      say_as_linux<IpLoginResponse>();
    } else if (std::holds_alternative<IpLogout>(ours.content)) {
      say_as_linux<IpStatus>();
    } else {
      ip_answers_.push_back(ours);
    }
  }
  // The first message of its kind that Linux sent.
  template <typename T>
  void say_as_linux() {
    for (const GoldenLine& line : trace_) {
      IpMessage message;
      if (!line.by_linux || !read_ip(line.pdf, line.bytes, message)) continue;
      if (!std::holds_alternative<T>(message.content)) continue;
      return from_cable(0, line.pdf, line.bytes);
    }
    FAIL() << "not in the record";
  }
  // Lets time pass until the condition holds; false: not within a hundred time-outs.
  template <typename Condition>
  bool run_until(Condition condition) {
    for (int turn = 0; turn < 100; ++turn) {
      run();
      if (condition()) return true;
      now_ = std::max(now_, std::min(manager_.poll_timeout(), now_ + Duration::from_ms(100)));
      manager_.handle_timeout(now_);
    }
    return false;
  }

  ConnectionManager manager_;
  Instant now_{1'000'000'000};
  std::optional<PeerStatus> peer_;
  std::vector<XDomainMessage> answers_;
  std::vector<IpMessage> ip_answers_;
  std::vector<ManagerEvent> events_;
  size_t unanswered_ = 0;
};

}  // namespace tbt::fabric
