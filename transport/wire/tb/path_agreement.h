// Path agreement: the messages by which two hosts that run this project agree on the HopIDs of the
// frames between them, and say when these are no longer taken. A protocol of our own between hosts
// (XDomain); docs/wire.md, section 6.7. State is elsewhere: fabric/path_negotiator.h.
#pragma once

#include <cstdint>
#include <variant>

#include "wire/tb/control_packet.h"
#include "wire/tb/uuid.h"
#include "wire/tb/xdomain.h"

namespace tbt::wire::tb {

inline constexpr Uuid kPathProtocol = uuid("d74a4068-eb95-49d7-a86b-c0e2e88b0c15");
inline constexpr uint32_t kPathVersion = 1;
// HopIDs below the first are the specification's own.
inline constexpr uint16_t kPathHopIdMin = 8, kPathHopIdMax = 0x7ff;
inline constexpr uint32_t kPathRailsMax = 16;  // rail numbers are below
inline constexpr uint32_t kPathRingEntriesMin = 2, kPathRingEntriesMax = 0xffff;

enum PathFeature : uint32_t {
  kPathFeatureE2e = 1u << 0,  // this end's rings can run with the hardware's end-to-end credits
  // This end tries the hardware's credits first where both have them, and has credits in software
  // (flow_agreement.h).
  kPathFeatureCredits = 1u << 1,
};

// Which of a host's ends of this cable is meant, of all that there ever were.
struct PathEpoch {
  uint64_t incarnation = 1;  // of the host's daemon: random, not 0
  uint32_t generation = 0;   // counts how often it has lost its end by itself, a pulled cable's say
  friend bool operator==(const PathEpoch&, const PathEpoch&) = default;
};

// What a host says of its end. It says so only once frames that come by `hop_id` are taken.
struct PathOffer {
  PathEpoch epoch;
  uint8_t rail = 0;  // the sender's number of this cable
  uint16_t hop_id = kPathHopIdMin;
  uint16_t ring_entries = kPathRingEntriesMin;  // of its receive ring
  uint32_t features = 0;                        // PathFeature; unknown bits are ignored
  friend bool operator==(const PathOffer&, const PathOffer&) = default;
};

struct PathRequest {
  PathOffer offer;
  friend bool operator==(const PathRequest&, const PathRequest&) = default;
};
struct PathResponse {
  PathEpoch answered;  // of the request
  PathOffer offer;
  friend bool operator==(const PathResponse&, const PathResponse&) = default;
};

// Codes of PathRefusal; other codes are let through.
enum PathRefusalCode : uint32_t {
  kPathNotReady = 1,        // ask again; or wait until you are asked
  kPathUnknownVersion = 2,  // of the request; the refusal says which one is spoken
  kPathWrongHost = 3,       // the destination, or the source, is somebody else
  kPathBadHopId = 4,        // no frame can leave by the offered HopID
};
// The answer to a request that is not granted.
struct PathRefusal {
  uint32_t code = kPathNotReady;
  friend bool operator==(const PathRefusal&, const PathRefusal&) = default;
};

// From now on the sender takes no more frames.
struct PathWithdraw {
  PathEpoch epoch;
  friend bool operator==(const PathWithdraw&, const PathWithdraw&) = default;
};
// Its answer, whether or not there was anything to withdraw.
struct PathWithdrawn {
  PathEpoch answered;
  friend bool operator==(const PathWithdrawn&, const PathWithdrawn&) = default;
};

struct PathMessage {
  Uuid source, destination;  // hosts
  std::variant<PathRequest, PathResponse, PathRefusal, PathWithdraw, PathWithdrawn> content;
  friend bool operator==(const PathMessage&, const PathMessage&) = default;
};

// The fields must be in their ranges (asserted).
XDomainPacket encode_path_message(const PathMessage& message, const XDomainAddress& address);

// `out` is only written on kNone. On kUnknownVersion `source` and `destination` of it are, so that
// a request can be refused.
XDomainError decode_path_message(const XDomainPacket& packet, PathMessage& out);

const char* path_refusal_name(uint32_t code) noexcept;

}  // namespace tbt::wire::tb
