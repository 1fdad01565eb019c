// Each kind of packet has a `put` that writes its words and a `get` that reads and checks them.
// Both directions share `legal`, so that what is let in is exactly what may be put out.
#include "wire/tb/control_packet.h"

#include "base/bytes.h"
#include "wire/crc32c.h"

namespace tbt::wire::tb {
namespace {

constexpr size_t kWordsMax = kControlPacketMax / 4 - 1;  // without the checksum
constexpr uint32_t kFromRouter = 1u << 31;
constexpr size_t kHeaderWords = 2;  // the route
constexpr size_t kUuidWords = 4;
constexpr uint32_t kSequenceShift = 27, kSequenceMax = 3;
constexpr uint32_t kConfigReserved = 7u << 29;
constexpr uint32_t kXDomainLengthMask = 0x3f;
constexpr uint32_t kXDomainReserved = ~(kXDomainLengthMask | kSequenceMax << kSequenceShift);
constexpr uint32_t kNotificationReserved = 0xffffu << 14;
constexpr uint32_t kPlugged = 2, kUnplugged = 3;  // the PG field of an acknowledgement
constexpr uint32_t kPgShift = 30;
constexpr uint32_t kHotPlugReserved = 0x1ffffffu << 6;
constexpr uint32_t kUnplugBit = 1u << 31;

using Words = DwordList<kWordsMax>;

bool legal(const ConfigAddress& a) {
  return a.offset < 1u << 13 && a.length >= 1 && a.length <= kConfigDataMax &&
         a.adapter <= kAdapterMax && a.space <= ConfigSpace::kCounters &&
         a.sequence <= kSequenceMax;
}
bool legal(const ReadRequest& p) { return legal(p.address); }
bool legal(const ReadReply& p) { return legal(p.address) && p.data.size() == p.address.length; }
bool legal(const WriteRequest& p) { return legal(p.address) && p.data.size() == p.address.length; }
bool legal(const WriteReply& p) { return legal(p.address); }
bool legal(const Notification& p) { return p.code != kHotPlugAckCode && p.adapter <= kAdapterMax; }
bool legal(const NotificationAck& /*p*/) { return true; }
bool legal(const HotPlug& p) { return p.adapter <= kAdapterMax; }
bool legal(const HotPlugAck& p) { return p.adapter <= kAdapterMax; }
bool legal(const Reset& /*p*/) { return true; }
bool legal(const XDomainPacket& p) { return p.sequence <= kSequenceMax; }

void put_route(Words& w, Route route, bool from_router) {
  w.push(route_high(route) | (from_router ? kFromRouter : 0));
  w.push(route_low(route));
}

void put_address(Words& w, const ConfigAddress& a) {
  w.push(a.offset | uint32_t{a.length} << 13 | uint32_t{a.adapter} << 19 |
         static_cast<uint32_t>(a.space) << 25 | uint32_t{a.sequence} << kSequenceShift);
}

Pdf put(Words& w, const ReadRequest& p) {
  put_route(w, p.route, false);
  put_address(w, p.address);
  return Pdf::kRead;
}
Pdf put(Words& w, const ReadReply& p) {
  put_route(w, p.route, true);
  put_address(w, p.address);
  w.push(p.data.span());
  return Pdf::kRead;
}
Pdf put(Words& w, const WriteRequest& p) {
  put_route(w, p.route, false);
  put_address(w, p.address);
  w.push(p.data.span());
  return Pdf::kWrite;
}
Pdf put(Words& w, const WriteReply& p) {
  put_route(w, p.route, true);
  put_address(w, p.address);
  return Pdf::kWrite;
}
Pdf put(Words& w, const Notification& p) {
  put_route(w, p.route, true);
  w.push(p.code | uint32_t{p.adapter} << 8);
  return Pdf::kError;
}
Pdf put(Words& w, const NotificationAck& p) {
  put_route(w, p.route, false);
  return Pdf::kNotificationAck;
}
Pdf put(Words& w, const HotPlug& p) {
  put_route(w, p.route, true);
  w.push(p.adapter | (p.unplug ? kUnplugBit : 0));
  return Pdf::kHotPlug;
}
Pdf put(Words& w, const HotPlugAck& p) {
  put_route(w, p.route, false);
  w.push(kHotPlugAckCode | uint32_t{p.adapter} << 8 |
         (p.unplug ? kUnplugged : kPlugged) << kPgShift);
  return Pdf::kError;
}
Pdf put(Words& w, const Reset& p) {
  put_route(w, p.route, p.from_router);
  return Pdf::kReset;
}
Pdf put(Words& w, const XDomainPacket& p) {
  put_route(w, p.route, p.from_router);
  w.push(static_cast<uint32_t>(kUuidWords + p.body.size()) | uint32_t{p.sequence}
                                                                 << kSequenceShift);
  w.push(p.protocol);
  w.push(p.body.span());
  return p.response ? Pdf::kXDomainResponse : Pdf::kXDomainRequest;
}

// The bytes without their checksum as words.
PacketError open(std::span<const std::byte> bytes, Words& w) {
  if (bytes.size() % 4 != 0 || bytes.size() > kControlPacketMax ||
      bytes.size() < 4 * (kHeaderWords + 1)) {
    return PacketError::kBadSize;
  }
  const std::span<const std::byte> covered = bytes.first(bytes.size() - 4);
  if (base::load_be<uint32_t>(bytes.data() + covered.size()) != crc32c(covered)) {
    return PacketError::kBadChecksum;
  }
  for (size_t at = 0; at < covered.size(); at += 4) {
    w.push(base::load_be<uint32_t>(covered.data() + at));
  }
  return PacketError::kNone;
}

struct Header {
  Route route;
  bool from_router = false;
};

PacketError get_header(DwordReader& r, Header& out) {
  const uint32_t high = r.take();
  const uint32_t low = r.take();
  if ((high & ~(kFromRouter | kRouteHighMask)) != 0) return PacketError::kReserved;
  out.route = route_from_dwords(high, low);
  out.from_router = (high & kFromRouter) != 0;
  return route_is_legal(out.route) ? PacketError::kNone : PacketError::kBadRoute;
}

// The address, and the data if the packet has any in its direction.
PacketError get_config(DwordReader& r, bool with_data, ConfigAddress& a, ConfigData& data) {
  const uint32_t word = r.take();
  if (r.truncated()) return PacketError::kBadLength;
  if ((word & kConfigReserved) != 0) return PacketError::kReserved;
  a.offset = word & 0x1fff;
  a.length = word >> 13 & 0x3f;
  a.adapter = word >> 19 & 0x3f;
  a.space = static_cast<ConfigSpace>(word >> 25 & 3);
  a.sequence = word >> kSequenceShift & kSequenceMax;
  if (a.length == 0 || a.length > kConfigDataMax) return PacketError::kBadField;
  if (with_data) data.push(r.take(a.length));
  return r.exhausted() ? PacketError::kNone : PacketError::kBadLength;
}

PacketError get_read(DwordReader& r, const Header& h, ControlPacket& out) {
  ReadReply p{.route = h.route, .address = {}, .data = {}};
  const PacketError error = get_config(r, h.from_router, p.address, p.data);
  if (error != PacketError::kNone) return error;
  if (h.from_router) {
    out = p;
  } else {
    out = ReadRequest{.route = p.route, .address = p.address};
  }
  return PacketError::kNone;
}

PacketError get_write(DwordReader& r, const Header& h, ControlPacket& out) {
  WriteRequest p{.route = h.route, .address = {}, .data = {}};
  const PacketError error = get_config(r, !h.from_router, p.address, p.data);
  if (error != PacketError::kNone) return error;
  if (h.from_router) {
    out = WriteReply{.route = p.route, .address = p.address};
  } else {
    out = p;
  }
  return PacketError::kNone;
}

PacketError get_error(DwordReader& r, const Header& h, ControlPacket& out) {
  const uint32_t word = r.take();
  if (!r.exhausted()) return PacketError::kBadLength;
  if ((word & kNotificationReserved) != 0) return PacketError::kReserved;
  const auto code = static_cast<uint8_t>(word);
  const auto adapter = static_cast<uint8_t>(word >> 8 & kAdapterMax);
  const uint32_t pg = word >> kPgShift;
  if ((code == kHotPlugAckCode) == h.from_router) return PacketError::kDirection;
  if (h.from_router) {
    if (pg != 0) return PacketError::kBadField;
    out = Notification{.route = h.route, .code = code, .adapter = adapter};
    return PacketError::kNone;
  }
  if (pg != kPlugged && pg != kUnplugged) return PacketError::kBadField;
  out = HotPlugAck{.route = h.route, .adapter = adapter, .unplug = pg == kUnplugged};
  return PacketError::kNone;
}

PacketError get_notification_ack(DwordReader& r, const Header& h, ControlPacket& out) {
  if (!r.exhausted()) return PacketError::kBadLength;
  if (h.from_router) return PacketError::kDirection;
  out = NotificationAck{.route = h.route};
  return PacketError::kNone;
}

PacketError get_hot_plug(DwordReader& r, const Header& h, ControlPacket& out) {
  const uint32_t word = r.take();
  if (!r.exhausted()) return PacketError::kBadLength;
  if ((word & kHotPlugReserved) != 0) return PacketError::kReserved;
  if (!h.from_router) return PacketError::kDirection;
  out = HotPlug{.route = h.route,
                .adapter = static_cast<uint8_t>(word & kAdapterMax),
                .unplug = (word & kUnplugBit) != 0};
  return PacketError::kNone;
}

PacketError get_reset(DwordReader& r, const Header& h, ControlPacket& out) {
  if (!r.exhausted()) return PacketError::kBadLength;
  out = Reset{.route = h.route, .from_router = h.from_router};
  return PacketError::kNone;
}

PacketError get_xdomain(DwordReader& r, const Header& h, bool response, ControlPacket& out) {
  const uint32_t word = r.take();
  if (r.truncated()) return PacketError::kBadLength;
  if ((word & kXDomainReserved) != 0) return PacketError::kReserved;
  if ((word & kXDomainLengthMask) != r.rest().size()) return PacketError::kBadLength;
  XDomainPacket p;
  p.route = h.route;
  p.from_router = h.from_router;
  p.response = response;
  p.sequence = word >> kSequenceShift & kSequenceMax;
  p.protocol = r.take_uuid();
  if (r.truncated()) return PacketError::kBadLength;
  p.body.push(r.rest());
  out = p;
  return PacketError::kNone;
}

}  // namespace

void encode_control_packet(const ControlPacket& packet, ControlFrame& out) {
  Words w;
  out.pdf = std::visit(
      [&w](const auto& p) {
        TBT_ASSERT(route_is_legal(p.route) && legal(p));
        return put(w, p);
      },
      packet);
  size_t at = 0;
  for (const uint32_t word : w.span()) {
    base::store_be(out.buffer.data() + at, word);
    at += 4;
  }
  base::store_be(out.buffer.data() + at, crc32c(std::span(out.buffer).first(at)));
  out.bytes = at + 4;
}

PacketError decode_control_packet(uint8_t pdf, std::span<const std::byte> bytes,
                                  ControlPacket& out) {
  if (pdf >= static_cast<uint8_t>(Pdf::kIcmEvent) &&
      pdf <= static_cast<uint8_t>(Pdf::kIcmResponse)) {
    return PacketError::kFirmware;
  }
  Words words;
  if (const PacketError error = open(bytes, words); error != PacketError::kNone) return error;
  DwordReader r(words.span());
  Header header;
  if (const PacketError error = get_header(r, header); error != PacketError::kNone) return error;
  switch (static_cast<Pdf>(pdf)) {
    case Pdf::kRead:
      return get_read(r, header, out);
    case Pdf::kWrite:
      return get_write(r, header, out);
    case Pdf::kError:
      return get_error(r, header, out);
    case Pdf::kNotificationAck:
      return get_notification_ack(r, header, out);
    case Pdf::kHotPlug:
      return get_hot_plug(r, header, out);
    case Pdf::kXDomainRequest:
      return get_xdomain(r, header, false, out);
    case Pdf::kXDomainResponse:
      return get_xdomain(r, header, true, out);
    case Pdf::kReset:
      return get_reset(r, header, out);
    default:
      return PacketError::kUnknownPdf;
  }
}

const char* packet_error_name(PacketError error) noexcept {
  switch (error) {
    case PacketError::kNone:
      return "none";
    case PacketError::kBadSize:
      return "bad size";
    case PacketError::kBadChecksum:
      return "bad checksum";
    case PacketError::kUnknownPdf:
      return "unknown pdf";
    case PacketError::kFirmware:
      return "firmware connection manager";
    case PacketError::kBadLength:
      return "bad length";
    case PacketError::kReserved:
      return "reserved bit set";
    case PacketError::kBadRoute:
      return "bad route";
    case PacketError::kDirection:
      return "wrong direction";
    case PacketError::kBadField:
      return "bad field";
  }
  return "?";
}

const char* notification_name(uint8_t code) noexcept {
  switch (code) {
    case kNotConnected:
      return "not connected";
    case kLinkError:
      return "link error";
    case kBadAddress:
      return "bad address";
    case kNoSuchAdapter:
      return "no such adapter";
    case kRouteLoop:
      return "route loop";
    case kNotAuthorised:
      return "not authorised";
    case kBadLength:
      return "bad length";
    case kHecError:
      return "header error";
    case kFlowControlError:
      return "flow control error";
    case kAdapterLocked:
      return "adapter locked";
    case kDpBandwidth:
      return "dp bandwidth";
    case kRouterOperationDone:
      return "router operation done";
    case kPortOperationDone:
      return "port operation done";
    case kPcieWake:
      return "pcie wake";
    case kDpConnectionChange:
      return "dp connection change";
    case kDpTxDiscovery:
      return "dp tx discovery";
    case kLinkRecovery:
      return "link recovery";
    case kAsymmetricLink:
      return "asymmetric link";
    default:
      return "unknown";
  }
}

}  // namespace tbt::wire::tb
