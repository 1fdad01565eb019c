#include "wire/tb/flow_agreement.h"

#include <array>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "wire/crc32c.h"

namespace tbt::wire::tb {
namespace {

enum Type : uint32_t { kTypeRequest = 1, kTypeAnswer = 2 };

bool legal(const FlowMessage& m) {
  const bool tested = m.step == FlowStep::kTested;
  return m.from.incarnation != 0 && m.to.incarnation != 0 &&
         tested == (m.outcome != FlowOutcome::kOpen);
}

void put(DwordList<kXDomainBodyMax>& body, const PathEpoch& epoch) {
  body.push(static_cast<uint32_t>(epoch.incarnation >> 32));
  body.push(static_cast<uint32_t>(epoch.incarnation));
  body.push(epoch.generation);
}

PathEpoch take_epoch(DwordReader& r) {
  const uint64_t high = r.take();
  const uint64_t incarnation = high << 32 | r.take();
  return {incarnation, r.take()};
}

}  // namespace

XDomainPacket encode_flow_message(const FlowMessage& message, const XDomainAddress& address) {
  TBT_ASSERT(legal(message));
  XDomainPacket packet{.route = address.route,
                       .from_router = address.from_router,
                       .response = message.answer,
                       .sequence = address.sequence,
                       .protocol = kFlowProtocol,
                       .body = {}};
  packet.body.push(message.answer ? kTypeAnswer : kTypeRequest);
  packet.body.push(kFlowVersion);
  packet.body.push(message.source);
  packet.body.push(message.destination);
  put(packet.body, message.from);
  put(packet.body, message.to);
  packet.body.push(static_cast<uint32_t>(message.step));
  packet.body.push(static_cast<uint32_t>(message.outcome));
  return packet;
}

XDomainError decode_flow_message(const XDomainPacket& packet, FlowMessage& out) {
  if (packet.protocol != kFlowProtocol) return XDomainError::kOtherProtocol;
  DwordReader r(packet.body.span());
  const uint32_t type = r.take(), version = r.take();
  FlowMessage message;
  message.source = r.take_uuid();
  message.destination = r.take_uuid();
  if (r.truncated()) return XDomainError::kBadLength;
  if (version != kFlowVersion) return XDomainError::kUnknownVersion;
  if (type != kTypeRequest && type != kTypeAnswer) return XDomainError::kUnknownType;
  message.answer = type == kTypeAnswer;
  if (message.answer != packet.response) return XDomainError::kWrongKind;
  message.from = take_epoch(r);
  message.to = take_epoch(r);
  const uint32_t step = r.take(), outcome = r.take();
  if (!r.exhausted()) return XDomainError::kBadLength;
  if (step > static_cast<uint32_t>(FlowStep::kTested) ||
      outcome > static_cast<uint32_t>(FlowOutcome::kNothing)) {
    return XDomainError::kBadField;
  }
  message.step = static_cast<FlowStep>(step);
  message.outcome = static_cast<FlowOutcome>(outcome);
  if (!legal(message)) return XDomainError::kBadField;
  out = message;
  return XDomainError::kNone;
}

uint32_t path_session(const PathEpoch& a, const PathEpoch& b) noexcept {
  const auto key = [](const PathEpoch& e) { return std::tuple(e.incarnation, e.generation); };
  const bool in_order = key(a) <= key(b);
  std::array<std::byte, 24> bytes{};
  std::byte* at = bytes.data();
  for (const PathEpoch& epoch : {in_order ? a : b, in_order ? b : a}) {
    base::store_be(at, epoch.incarnation);
    base::store_be(at + 8, epoch.generation);
    at += 12;
  }
  const uint32_t session = crc32c(bytes);
  return session != 0 ? session : 1;
}

const char* path_flow_name(PathFlow flow) noexcept {
  switch (flow) {
    case PathFlow::kNone:
      return "none";
    case PathFlow::kE2e:
      return "e2e";
    case PathFlow::kCredits:
      return "credits";
  }
  return "?";
}

const char* flow_outcome_name(FlowOutcome outcome) noexcept {
  switch (outcome) {
    case FlowOutcome::kOpen:
      return "open";
    case FlowOutcome::kHeld:
      return "held";
    case FlowOutcome::kMissing:
      return "missing";
    case FlowOutcome::kNothing:
      return "nothing";
  }
  return "?";
}

}  // namespace tbt::wire::tb
