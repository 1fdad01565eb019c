// Flow agreement: by what two ends of a path keep each other from sending more than there is room
// for, and the messages by which they try the hardware's end-to-end credits before anybody relies
// on them. A protocol of our own between hosts (XDomain); docs/wire.md, section 7.1. State is
// elsewhere: fabric/flow_negotiator.h.
#pragma once

#include <cstdint>

#include "wire/tb/path_agreement.h"

namespace tbt::wire::tb {

inline constexpr Uuid kFlowProtocol = uuid("457c935e-e719-4a66-89fd-eddda41ed963");
inline constexpr uint32_t kFlowVersion = 1;
// Receive rings that are shorter do not hold the frames of the self-test.
inline constexpr uint32_t kFlowTestRingEntriesMin = 64;

// The flow control of a path, the same at both ends.
enum class PathFlow : uint8_t {
  kNone,     // frames for which there is no buffer are lost
  kE2e,      // the hardware's end-to-end credits
  kCredits,  // credits in software (credit_frame.h)
};

// How far an end is with the self-test of the hardware's credits.
enum class FlowStep : uint8_t {
  kPreparing = 0,
  kReady = 1,   // its rail is held: the test may begin
  kTested = 2,  // for this end it is over
};

// What the self-test has found of the frames that came.
enum class FlowOutcome : uint8_t {
  kOpen = 0,     // there is no result yet
  kHeld = 1,     // the sender waited, and went on
  kMissing = 2,  // most of what was to wait did not come
  kNothing = 3,  // nothing came at all
};

// Both the request and its answer: where the sender is.
struct FlowMessage {
  Uuid source, destination;  // hosts
  bool answer = false;
  PathEpoch from, to;  // the sender's and the receiver's, of the path that is meant
  FlowStep step = FlowStep::kPreparing;
  FlowOutcome outcome = FlowOutcome::kOpen;  // kOpen, and only then, before kTested
  friend bool operator==(const FlowMessage&, const FlowMessage&) = default;
};

// The fields must be in their ranges (asserted).
XDomainPacket encode_flow_message(const FlowMessage& message, const XDomainAddress& address);

// `out` is only written on kNone.
XDomainError decode_flow_message(const XDomainPacket& packet, FlowMessage& out);

// Marks the credit frames of a path: the same at both ends, another one after each agreement, not
// 0.
uint32_t path_session(const PathEpoch& a, const PathEpoch& b) noexcept;

const char* path_flow_name(PathFlow flow) noexcept;
const char* flow_outcome_name(FlowOutcome outcome) noexcept;

}  // namespace tbt::wire::tb
