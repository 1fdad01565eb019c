// ControlChannel: the connection manager's side of ring 0, between packets and what they mean. It
// reads and writes the configuration of routers, repeats what is not answered, and acknowledges
// what routers tell of themselves; messages between hosts pass through it both ways.
//
// Inputs:  post, cancel, send, handle_packet, handle_timeout. They never call out.
// Outputs: poll_transmit, poll_event, poll_timeout; ask until empty after each input.
//
// A router answers one request at a time, so one is outstanding per route; the others wait in
// order. A reply must be equal to its request in route, space, offset, length and sequence number;
// its adapter is the router's upstream one and says nothing. An error names no request: it belongs
// to the one that is outstanding. As the kernel's drivers/thunderbolt/ctl.c.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <variant>
#include <vector>

#include "base/time.h"
#include "wire/tb/control_packet.h"

namespace tbt::fabric {

inline constexpr Duration kConfigTimeout = Duration::from_ms(100);
// Attempts in all, as many as there are sequence numbers: these run on from request to request, so
// that a late reply to one of the last three attempts is not taken for that of this one.
inline constexpr uint32_t kConfigAttempts = 4;
// A router repeats a hot-plug event until it is acknowledged; the same one within this time is no
// news.
inline constexpr Duration kHotPlugRepeat = Duration::from_ms(50);

// One read or write of 1..kConfigDataMax dwords.
struct ConfigAccess {
  wire::tb::Route route;
  wire::tb::ConfigSpace space = wire::tb::ConfigSpace::kRouter;
  uint8_t adapter = 0;
  uint16_t offset = 0;  // dwords
  uint8_t length = 1;   // dwords to read; of a write it is that of `data`
  bool write = false;
  wire::tb::ConfigData data;
};
ConfigAccess config_read(wire::tb::ConfigSpace space, uint8_t adapter, uint16_t offset,
                         uint8_t length);
ConfigAccess config_write(wire::tb::ConfigSpace space, uint8_t adapter, uint16_t offset,
                          std::span<const uint32_t> data);

enum class ConfigOutcome : uint8_t { kDone, kRefused, kNoAnswer };

struct ConfigResult {
  uint32_t ticket = 0;
  ConfigOutcome outcome = ConfigOutcome::kDone;
  uint8_t error = 0;          // kRefused: the router's NotificationCode
  wire::tb::ConfigData data;  // of a read: as many words as were asked for

  [[nodiscard]] bool done() const noexcept { return outcome == ConfigOutcome::kDone; }
  [[nodiscard]] uint32_t word(size_t index) const { return data.span()[index]; }
};

// A packet of firmware that is a connection manager itself: this controller is not ours to drive.
struct FirmwareSeen {};

// Hot-plug events and notifications have been acknowledged when they come out.
using ChannelEvent = std::variant<ConfigResult, wire::tb::HotPlug, wire::tb::Notification,
                                  wire::tb::XDomainPacket, FirmwareSeen>;

struct ChannelStats {
  uint64_t requests = 0;
  uint64_t retries = 0;
  uint64_t unanswered = 0;     // given up
  uint64_t errors = 0;         // error answers
  uint64_t stray_replies = 0;  // of no outstanding request: late, or twice
  uint64_t stray_errors = 0;
  uint64_t hot_plugs = 0;
  uint64_t repeated_hot_plugs = 0;
  uint64_t notifications = 0;
  uint64_t firmware = 0;
  uint64_t unexpected = 0;               // good packets that only a router should get
  uint64_t overflows = 0;                // acknowledgements dropped, because too many were waiting
  std::array<uint64_t, 10> malformed{};  // by wire::tb::PacketError
};

class ControlChannel {
 public:
  // Returns the ticket by which the result is told apart; never 0.
  uint32_t post(const ConfigAccess& access);
  // Its result does not come any more; it may have taken effect all the same.
  void cancel(uint32_t ticket);
  void send(const wire::tb::XDomainPacket& packet);

  void handle_packet(Instant now, uint8_t pdf, std::span<const std::byte> bytes);
  void handle_timeout(Instant now);

  bool poll_transmit(Instant now, wire::tb::ControlFrame& out);
  bool poll_event(ChannelEvent& out);
  [[nodiscard]] Instant poll_timeout() const;

  [[nodiscard]] const ChannelStats& stats() const noexcept { return stats_; }
  // Nothing is waiting to be sent or answered.
  [[nodiscard]] bool idle() const noexcept {
    return requests_.empty() && acknowledgements_.empty() && messages_.empty();
  }

 private:
  struct Request {
    uint32_t ticket = 0;
    ConfigAccess access;
    uint32_t attempts = 0;
    uint8_t sequence = 0;
    bool outstanding = false;
    Instant deadline = Instant::never();
  };
  struct Seen {
    wire::tb::HotPlug event;
    Instant at;
  };

  void on(Instant now, const wire::tb::ReadReply& reply);
  void on(Instant now, const wire::tb::WriteReply& reply);
  void on(Instant now, const wire::tb::Notification& notification);
  void on(Instant now, const wire::tb::HotPlug& event);
  void on(Instant now, const wire::tb::XDomainPacket& packet);
  template <typename T>
  void on(Instant now, const T& packet);

  void take_reply(wire::tb::Route route, const wire::tb::ConfigAddress& address, bool write,
                  const wire::tb::ConfigData& data);
  void finish(const Request& request, ConfigResult result);
  void acknowledge(const wire::tb::ControlPacket& packet);
  [[nodiscard]] Request* outstanding_on(wire::tb::Route route);
  Request* next_request();

  uint32_t last_ticket_ = 0;
  uint8_t sequence_ = 0;
  std::deque<Request> requests_;
  std::deque<wire::tb::ControlPacket> acknowledgements_;
  std::deque<wire::tb::XDomainPacket> messages_;
  std::vector<Seen> seen_;  // hot-plug events of late
  std::deque<ChannelEvent> events_;
  ChannelStats stats_;
};

}  // namespace tbt::fabric
