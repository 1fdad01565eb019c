// Messages between two hosts' daemons in control frames: hello, its refusal, heartbeat, farewell
// and the news that a process is gone. Big endian, docs/wire.md. Everything that comes in is
// checked for length and range.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "wire/packet.h"

namespace tbt::wire {

inline constexpr uint16_t kProtocolVersion = 1;
inline constexpr size_t kHostNameMax = 63;
inline constexpr size_t kPortsMax = 16;
inline constexpr size_t kGidsPerPortMax = 4;
inline constexpr size_t kControlMessageMax = 2048;

enum FeatureBits : uint64_t {
  kFeaturePayloadCheck = 1u << 0,  // sender will set kFlagPayloadChecked
  kFeatureUcWait = 1u << 1,        // UC credit messages are understood
  kFeatureRcSack = 1u << 2,        // RC SACK is understood
};

// One verbs device of the sending host: the aggregate, or the one of a cable.
struct PortIdentity {
  uint16_t lid = 0;
  uint8_t cable = 0xff;        // cable ordinal on that host, 0xff for the aggregate
  std::vector<GidBytes> gids;  // 1..kGidsPerPortMax
};

// Sent when a cable comes up, again every heartbeat until answered, and as the answer (reply =
// true).
struct Hello {
  uint16_t version = kProtocolVersion;
  bool reply = false;
  uint64_t features = 0;
  uint64_t incarnation = 0;       // random, drawn when the sender's host state was made
  uint64_t peer_incarnation = 0;  // what the sender has heard of the receiver, 0 if nothing
  std::array<uint8_t, 16> uuid{};
  uint8_t cable = 0;  // the sender's ordinal of this cable
  std::string host_name;
  std::vector<PortIdentity> ports;
};

struct Refuse {
  uint16_t version = kProtocolVersion;
  uint16_t reason = 0;
};
enum RefuseReason : uint16_t { kRefuseVersion = 1, kRefuseSelf = 2, kRefuseDuplicateLid = 3 };

struct Heartbeat {
  uint64_t incarnation = 0;
  uint64_t sequence = 0;
  bool reply = false;
};
struct Bye {
  uint64_t incarnation = 0;
};

// The process in `slot` of the sender is gone; its QPs are those whose local number (QPN bits 17:0)
// lies in [first, first + count) modulo 2^18. `lid` is the aggregate LID of the sender's host.
struct ProcessGone {
  uint8_t slot = 0;
  uint32_t first = 0;
  uint32_t count = 0;
  uint16_t lid = 0;
};

using ControlMessage = std::variant<Hello, Refuse, Heartbeat, Bye, ProcessGone>;

// The bytes of a message, at most kControlMessageMax. Its fields must be in the ranges of
// docs/wire.md (asserted): in particular a Hello needs an incarnation, a name and 1..kPortsMax
// ports of different LIDs.
std::vector<std::byte> encode_control(const ControlMessage& message);

enum class ControlError : uint8_t { kNone, kTruncated, kUnknownType, kBadField, kUnknownVersion };
// On kUnknownVersion of a Hello, `out` is a Hello with only `version` set, so that it can be
// refused by name.
ControlError decode_control(std::span<const std::byte> bytes, ControlMessage& out);

const char* control_error_name(ControlError error) noexcept;

// What a host name may consist of: 1..kHostNameMax printable ASCII characters, no space.
bool host_name_is_legal(std::string_view name) noexcept;

// The session tag of a cable: both incarnations, the same from both ends. Never 0, the tag of a
// hello.
uint32_t session_tag(uint64_t incarnation_a, uint64_t incarnation_b) noexcept;

}  // namespace tbt::wire
