// Packets of ring 0, the control channel of a controller: reading and writing the configuration of
// routers, their errors and events, and the frame of messages between hosts (XDomain). Big endian
// words and at the end a CRC32C of everything before it; docs/wire.md, section 6, and the kernel's
// drivers/thunderbolt/{ctl.c,tb_msgs.h}.
//
// The kind of a packet is not in its bytes but in the PDF of its descriptor. What comes in is
// checked for length, checksum, reserved bits and direction before anything is believed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "wire/tb/dwords.h"
#include "wire/tb/route.h"
#include "wire/tb/uuid.h"

namespace tbt::wire::tb {

inline constexpr size_t kControlPacketMax = 256;  // with the checksum; a descriptor of ring 0
inline constexpr size_t kConfigDataMax = 60;      // dwords of one read or write
inline constexpr size_t kXDomainBodyMax = 56;     // dwords after the protocol's UUID

enum class Pdf : uint8_t {
  kRead = 1,  // requests and replies alike
  kWrite = 2,
  kError = 3,
  kNotificationAck = 4,
  kHotPlug = 5,
  kXDomainRequest = 6,
  kXDomainResponse = 7,
  kOverride = 8,
  kReset = 9,
  kIcmEvent = 10,  // these three only where firmware is the connection manager
  kIcmCommand = 11,
  kIcmResponse = 12,
};

enum class ConfigSpace : uint8_t { kPath = 0, kAdapter = 1, kRouter = 2, kCounters = 3 };

// What a read or write is about, and the same in its reply, where `adapter` is the upstream adapter
// of the router that answers.
struct ConfigAddress {
  uint16_t offset = 0;  // dwords, 13 bits
  uint8_t length = 1;   // dwords, 1..kConfigDataMax
  uint8_t adapter = 0;
  ConfigSpace space = ConfigSpace::kRouter;
  uint8_t sequence = 0;  // 0..3

  friend bool operator==(const ConfigAddress&, const ConfigAddress&) = default;
};

using ConfigData = DwordList<kConfigDataMax>;  // exactly ConfigAddress::length of them

struct ReadRequest {
  Route route;
  ConfigAddress address;
  friend bool operator==(const ReadRequest&, const ReadRequest&) = default;
};
struct ReadReply {
  Route route;
  ConfigAddress address;
  ConfigData data;
  friend bool operator==(const ReadReply&, const ReadReply&) = default;
};
struct WriteRequest {
  Route route;
  ConfigAddress address;
  ConfigData data;
  friend bool operator==(const WriteRequest&, const WriteRequest&) = default;
};
struct WriteReply {
  Route route;
  ConfigAddress address;
  friend bool operator==(const WriteReply&, const WriteReply&) = default;
};

// Codes of Notification; other values exist and are let through.
enum NotificationCode : uint8_t {
  kNotConnected = 0,
  kLinkError = 1,
  kBadAddress = 2,
  kNoSuchAdapter = 4,
  kHotPlugAckCode = 7,  // never in a Notification: it is the packet HotPlugAck
  kRouteLoop = 8,
  kNotAuthorised = 9,
  kBadLength = 11,
  kHecError = 12,
  kFlowControlError = 13,
  kAdapterLocked = 15,
  kDpBandwidth = 32,
  kRouterOperationDone = 33,
  kPortOperationDone = 34,
  kPcieWake = 35,
  kDpConnectionChange = 36,
  kDpTxDiscovery = 37,
  kLinkRecovery = 38,
  kAsymmetricLink = 39,
};

// A router's error answer, or news from it; both use the same packet.
struct Notification {
  Route route;
  uint8_t code = kNotConnected;
  uint8_t adapter = 0;
  friend bool operator==(const Notification&, const Notification&) = default;
};
// The connection manager's acknowledgement of a Notification that is news.
struct NotificationAck {
  Route route;
  friend bool operator==(const NotificationAck&, const NotificationAck&) = default;
};

struct HotPlug {
  Route route;
  uint8_t adapter = 0;
  bool unplug = false;
  friend bool operator==(const HotPlug&, const HotPlug&) = default;
};
struct HotPlugAck {
  Route route;
  uint8_t adapter = 0;
  bool unplug = false;
  friend bool operator==(const HotPlugAck&, const HotPlugAck&) = default;
};

struct Reset {
  Route route;
  bool from_router = false;
  friend bool operator==(const Reset&, const Reset&) = default;
};

// A message between hosts. The last router writes the receiver's own route to the sender into it
// and sets from_router.
struct XDomainPacket {
  Route route;
  bool from_router = false;
  bool response = false;
  uint8_t sequence = 0;  // 0..3
  Uuid protocol;
  DwordList<kXDomainBodyMax> body;
  friend bool operator==(const XDomainPacket&, const XDomainPacket&) = default;
};

using ControlPacket = std::variant<ReadRequest, ReadReply, WriteRequest, WriteReply, Notification,
                                   NotificationAck, HotPlug, HotPlugAck, Reset, XDomainPacket>;

// A packet as ring 0 takes it: `pdf` goes into SOF and EOF of its descriptor.
struct ControlFrame {
  Pdf pdf = Pdf::kRead;
  size_t bytes = 0;
  std::array<std::byte, kControlPacketMax> buffer{};

  [[nodiscard]] std::span<const std::byte> span() const noexcept { return {buffer.data(), bytes}; }
};

enum class PacketError : uint8_t {
  kNone,
  kBadSize,  // no whole number of dwords, or fewer or more than a packet can have
  kBadChecksum,
  kUnknownPdf,
  kFirmware,   // a packet of firmware that is a connection manager
  kBadLength,  // not as long as its kind or its length field says
  kReserved,   // a reserved bit is set
  kBadRoute,
  kDirection,  // a router sent what only a connection manager sends, or the other way round
  kBadField,
};

// The fields must be in their ranges (asserted).
void encode_control_packet(const ControlPacket& packet, ControlFrame& out);

// `pdf` is the EOF PDF of the descriptor. `out` is only written on kNone.
PacketError decode_control_packet(uint8_t pdf, std::span<const std::byte> bytes,
                                  ControlPacket& out);

const char* packet_error_name(PacketError error) noexcept;
const char* notification_name(uint8_t code) noexcept;

}  // namespace tbt::wire::tb
