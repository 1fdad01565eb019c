// Two routers and the cables between them, and a connection manager's hands: what the tests of the
// router model share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "rail/emulated/router_model.h"
#include "wire/crc32c.h"

namespace tbt::rail::emulated::testing {

using namespace wire::tb;  // NOLINT: a test's

// A heap copy of exactly these bytes, so that a sanitizer sees a read past them.
inline std::vector<std::byte> exact(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

class World;

// A host: its router, and what the router has told it that was no answer.
class Host {
 public:
  Host(World& world, const RouterShape& shape) : world_(world) {
    power_on(*silicon_, shape);
    model_.emplace(*silicon_);
  }

  RouterModel& model() { return *model_; }
  RouterSilicon& silicon() { return *silicon_; }

  // Everything that the router says to `bytes`.
  std::vector<ControlPacket> send_bytes(uint8_t pdf, std::span<const std::byte> bytes);
  std::vector<ControlPacket> send(const ControlPacket& packet) {
    ControlFrame frame;
    encode_control_packet(packet, frame);
    return send_bytes(static_cast<uint8_t>(frame.pdf), frame.span());
  }

  // The answer to a request; what else comes goes to `news`.
  template <typename Reply>
  std::optional<Reply> ask(const ControlPacket& request) {
    std::optional<Reply> found;
    error.reset();
    for (const ControlPacket& packet : send(request)) {
      if (const auto* reply = std::get_if<Reply>(&packet)) {
        EXPECT_FALSE(found) << "two answers";
        found = *reply;
      } else if (const auto* e = std::get_if<Notification>(&packet)) {
        error = e->code;
        error_adapter = e->adapter;
      } else {
        news.push_back(packet);
      }
    }
    EXPECT_NE(found.has_value(), error.has_value()) << "neither an answer nor an error, or both";
    return found;
  }

  std::vector<uint32_t> read(ConfigSpace space, uint32_t adapter, uint32_t offset,
                             uint32_t length = 1, uint8_t sequence = 0, Route route = {}) {
    const ConfigAddress address{.offset = static_cast<uint16_t>(offset),
                                .length = static_cast<uint8_t>(length),
                                .adapter = static_cast<uint8_t>(adapter),
                                .space = space,
                                .sequence = sequence};
    const auto reply = ask<ReadReply>(ReadRequest{route, address});
    if (!reply) return {};
    EXPECT_EQ(reply->route, route);
    ConfigAddress expected = address;
    expected.adapter = static_cast<uint8_t>(nhi_adapter(model().ports()));
    EXPECT_EQ(reply->address, expected);
    return {reply->data.span().begin(), reply->data.span().end()};
  }
  bool write(ConfigSpace space, uint32_t adapter, uint32_t offset,
             const std::vector<uint32_t>& values, Route route = {}) {
    const ConfigAddress address{.offset = static_cast<uint16_t>(offset),
                                .length = static_cast<uint8_t>(values.size()),
                                .adapter = static_cast<uint8_t>(adapter),
                                .space = space,
                                .sequence = 2};
    WriteRequest request{.route = route, .address = address, .data = {}};
    request.data.push(values);
    const auto reply = ask<WriteReply>(request);
    if (!reply) return false;
    ConfigAddress expected = address;
    expected.adapter = static_cast<uint8_t>(nhi_adapter(model().ports()));
    EXPECT_EQ(reply->address, expected);
    return true;
  }

  uint32_t router(uint32_t dword) { return read(ConfigSpace::kRouter, 0, dword).at(0); }
  uint32_t adapter(uint32_t number, uint32_t dword) {
    return read(ConfigSpace::kAdapter, number, dword).at(0);
  }
  bool set_router(uint32_t dword, uint32_t value) {
    return write(ConfigSpace::kRouter, 0, dword, {value});
  }
  bool set_adapter(uint32_t number, uint32_t dword, uint32_t value) {
    return write(ConfigSpace::kAdapter, number, dword, {value});
  }
  // Reads, changes and writes back.
  bool change_adapter(uint32_t number, uint32_t dword, uint32_t clear, uint32_t set) {
    return set_adapter(number, dword, (adapter(number, dword) & ~clear) | set);
  }
  void enumerate() { ASSERT_TRUE(set_router(kRouterCs3, kRouterValid)); }
  bool unlock(uint32_t port) {
    return change_adapter(lane_adapter(port), kAdapterCs4, kAdapterLock, 0);
  }
  uint32_t lane_state(uint32_t number) {
    return adapter(number, kLaneCs1) >> kLaneStateShift & 0xf;
  }
  uint32_t speed(uint32_t number) { return adapter(number, kLaneCs1) >> kSpeedShift & 0xf; }
  uint32_t width(uint32_t number) { return adapter(number, kLaneCs1) >> kWidthShift & 0x3f; }

  // The hot-plug events since the last call.
  std::vector<HotPlug> events() {
    std::vector<HotPlug> taken;
    for (const ControlPacket& packet : news) {
      if (const auto* event = std::get_if<HotPlug>(&packet)) taken.push_back(*event);
    }
    std::erase_if(news, [](const auto& p) { return std::holds_alternative<HotPlug>(p); });
    return taken;
  }

  std::vector<ControlPacket> news;
  std::optional<uint8_t> error;  // of the last read or write
  uint8_t error_adapter = 0;

 private:
  friend class World;
  World& world_;
  std::unique_ptr<RouterSilicon> silicon_ = std::make_unique<RouterSilicon>();
  std::optional<RouterModel> model_;
};

// Port k of host a is joined to port k of host b.
class World {
 public:
  explicit World(const RouterShape& shape_a = {}, const RouterShape& shape_b = {})
      : a(*this, shape_a), b(*this, shape_b) {
    cables.resize(std::min(shape_a.ports, shape_b.ports), {.plugged = false});
  }

  void plug(uint32_t port, uint8_t generation_max = 4) {
    cables[port] = {.plugged = true, .generation_max = generation_max};
    retrain(port);
  }
  void pull(uint32_t port) {
    cables[port].plugged = false;
    retrain(port);
  }
  void retrain(uint32_t port) {
    RouterOutput out_a, out_b;
    train(cables[port], a.model(), port, out_a, b.model(), port, out_b);
    for (const auto& packet : deliver(a, out_a)) a.news.push_back(packet);
    for (const auto& packet : deliver(b, out_b)) b.news.push_back(packet);
  }
  Host& peer(const Host& host) { return &host == &a ? b : a; }

  // Takes to where they go what a router sent, and returns what went to its own host.
  std::vector<ControlPacket> deliver(Host& from, const RouterOutput& out) {
    std::vector<ControlPacket> mine;
    for (size_t i = 0; i < out.count; ++i) {
      const RouterOutput::Packet& packet = out.packets[i];
      const auto bytes = exact(packet.frame.span());
      if (packet.to == RouterOutput::kHost) {
        ControlPacket decoded;
        const auto result =
            decode_control_packet(static_cast<uint8_t>(packet.frame.pdf), bytes, decoded);
        EXPECT_EQ(result, PacketError::kNone) << packet_error_name(result);
        if (result == PacketError::kNone) mine.push_back(decoded);
        continue;
      }
      RouterOutput arrived;
      Host& to = peer(from);
      to.model().handle_cable(packet.to, static_cast<uint8_t>(packet.frame.pdf), bytes, arrived);
      for (const auto& p : deliver(to, arrived)) to.news.push_back(p);
    }
    for (uint32_t port = 0; port < cables.size(); ++port) {
      if ((out.retrain >> port & 1) != 0) retrain(port);
    }
    return mine;
  }

  Host a, b;
  std::vector<CableLink> cables;
};

inline std::vector<ControlPacket> Host::send_bytes(uint8_t pdf, std::span<const std::byte> bytes) {
  RouterOutput out;
  const auto copy = exact(bytes);
  model_->handle_host(pdf, copy, out);
  return world_.deliver(*this, out);
}

}  // namespace tbt::rail::emulated::testing
