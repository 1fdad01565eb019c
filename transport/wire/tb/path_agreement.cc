// Messages of path agreement to packet bodies and back, in the manner of xdomain.cc.
#include "wire/tb/path_agreement.h"

#include <utility>

namespace tbt::wire::tb {
namespace {

enum Type : uint32_t {
  kTypeRequest = 1,
  kTypeResponse = 2,
  kTypeRefusal = 3,
  kTypeWithdraw = 4,
  kTypeWithdrawn = 5,
};

using Body = DwordList<kXDomainBodyMax>;

uint32_t type_of(const PathRequest& /*m*/) { return kTypeRequest; }
uint32_t type_of(const PathResponse& /*m*/) { return kTypeResponse; }
uint32_t type_of(const PathRefusal& /*m*/) { return kTypeRefusal; }
uint32_t type_of(const PathWithdraw& /*m*/) { return kTypeWithdraw; }
uint32_t type_of(const PathWithdrawn& /*m*/) { return kTypeWithdrawn; }

bool is_request(uint32_t type) { return type == kTypeRequest || type == kTypeWithdraw; }

bool legal(const PathEpoch& m) { return m.incarnation != 0; }
bool legal(const PathOffer& m) {
  return legal(m.epoch) && m.rail < kPathRailsMax && m.hop_id >= kPathHopIdMin &&
         m.hop_id <= kPathHopIdMax && m.ring_entries >= kPathRingEntriesMin;
}
bool legal(const PathRequest& m) { return legal(m.offer); }
bool legal(const PathResponse& m) { return legal(m.answered) && legal(m.offer); }
bool legal(const PathRefusal& /*m*/) { return true; }
bool legal(const PathWithdraw& m) { return legal(m.epoch); }
bool legal(const PathWithdrawn& m) { return legal(m.answered); }

void put(Body& b, const PathEpoch& m) {
  b.push(static_cast<uint32_t>(m.incarnation >> 32));
  b.push(static_cast<uint32_t>(m.incarnation));
  b.push(m.generation);
}
void put(Body& b, const PathOffer& m) {
  put(b, m.epoch);
  b.push(m.rail);
  b.push(m.hop_id);
  b.push(m.ring_entries);
  b.push(m.features);
}
void put(Body& b, const PathRequest& m) { put(b, m.offer); }
void put(Body& b, const PathResponse& m) {
  put(b, m.answered);
  put(b, m.offer);
}
void put(Body& b, const PathRefusal& m) { b.push(m.code); }
void put(Body& b, const PathWithdraw& m) { put(b, m.epoch); }
void put(Body& b, const PathWithdrawn& m) { put(b, m.answered); }

bool get(DwordReader& r, PathEpoch& m) {
  const uint64_t high = r.take();
  m.incarnation = high << 32 | r.take();
  m.generation = r.take();
  return true;
}
bool get(DwordReader& r, PathOffer& m) {
  get(r, m.epoch);
  const uint32_t rail = r.take(), hop_id = r.take(), entries = r.take();
  m.rail = static_cast<uint8_t>(rail);
  m.hop_id = static_cast<uint16_t>(hop_id);
  m.ring_entries = static_cast<uint16_t>(entries);
  m.features = r.take();
  return rail < kPathRailsMax && hop_id <= kPathHopIdMax && entries <= kPathRingEntriesMax;
}
bool get(DwordReader& r, PathRequest& m) { return get(r, m.offer); }
bool get(DwordReader& r, PathResponse& m) { return get(r, m.answered) && get(r, m.offer); }
bool get(DwordReader& r, PathRefusal& m) {
  m.code = r.take();
  return true;
}
bool get(DwordReader& r, PathWithdraw& m) { return get(r, m.epoch); }
bool get(DwordReader& r, PathWithdrawn& m) { return get(r, m.answered); }

template <typename T>
XDomainError decode_as(DwordReader& r, PathMessage& message, T content, PathMessage& out) {
  const bool fields_ok = get(r, content);
  if (!r.exhausted()) return XDomainError::kBadLength;
  if (!fields_ok || !legal(content)) return XDomainError::kBadField;
  message.content = content;
  out = message;
  return XDomainError::kNone;
}

}  // namespace

XDomainPacket encode_path_message(const PathMessage& message, const XDomainAddress& address) {
  XDomainPacket packet{.route = address.route,
                       .from_router = address.from_router,
                       .response = false,
                       .sequence = address.sequence,
                       .protocol = kPathProtocol,
                       .body = {}};
  std::visit(
      [&](const auto& content) {
        TBT_ASSERT(legal(content));
        packet.response = !is_request(type_of(content));
        packet.body.push(type_of(content));
        packet.body.push(kPathVersion);
        packet.body.push(message.source);
        packet.body.push(message.destination);
        put(packet.body, content);
      },
      message.content);
  return packet;
}

XDomainError decode_path_message(const XDomainPacket& packet, PathMessage& out) {
  if (packet.protocol != kPathProtocol) return XDomainError::kOtherProtocol;
  DwordReader r(packet.body.span());
  const uint32_t type = r.take(), version = r.take();
  PathMessage message;
  message.source = r.take_uuid();
  message.destination = r.take_uuid();
  if (r.truncated()) return XDomainError::kBadLength;
  if (version != kPathVersion) {
    // The words so far are the same in all versions.
    out.source = message.source;
    out.destination = message.destination;
    return XDomainError::kUnknownVersion;
  }
  if (type < kTypeRequest || type > kTypeWithdrawn) return XDomainError::kUnknownType;
  if (is_request(type) == packet.response) return XDomainError::kWrongKind;
  switch (type) {
    case kTypeRequest:
      return decode_as(r, message, PathRequest{}, out);
    case kTypeResponse:
      return decode_as(r, message, PathResponse{}, out);
    case kTypeRefusal:
      return decode_as(r, message, PathRefusal{}, out);
    case kTypeWithdraw:
      return decode_as(r, message, PathWithdraw{}, out);
    default:
      return decode_as(r, message, PathWithdrawn{}, out);
  }
}

const char* path_refusal_name(uint32_t code) noexcept {
  switch (code) {
    case kPathNotReady:
      return "not ready";
    case kPathUnknownVersion:
      return "unknown version";
    case kPathWrongHost:
      return "wrong host";
    case kPathBadHopId:
      return "bad hop id";
    default:
      return "unknown reason";
  }
}

}  // namespace tbt::wire::tb
