// Control messages to bytes and back. One `legal` function per message serves both directions: what
// the decoder lets in is exactly what the encoder may put out, so decode and encode are inverse to
// each other.
#include "wire/control.h"

#include <algorithm>

#include "base/assert.h"
#include "base/bytes.h"

namespace tbt::wire {
namespace {

enum Type : uint8_t { kHello = 1, kRefuse = 2, kHeartbeat = 3, kBye = 4, kProcessGone = 5 };
constexpr uint8_t kFlagReply = 1;
constexpr uint16_t kLidMax = 0xbfff;  // the unicast LIDs of the IBA
constexpr uint32_t kLocalQpns = 1u << 18;
constexpr uint8_t kSlots = 64;
constexpr uint8_t kNoCable = 0xff;

class Writer {
 public:
  void u8(uint8_t v) { bytes_.push_back(static_cast<std::byte>(v)); }
  void u16(uint16_t v) { put(v); }
  void u32(uint32_t v) { put(v); }
  void u64(uint64_t v) { put(v); }
  void raw(const void* from, size_t n) {
    const auto* p = static_cast<const std::byte*>(from);
    bytes_.insert(bytes_.end(), p, p + n);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  template <typename T>
  void put(T v) {
    std::byte buffer[sizeof v];
    base::store_be(buffer, v);
    raw(buffer, sizeof v);
  }
  std::vector<std::byte> bytes_;
};

// Reads past the end yield zeros and set `truncated`, which is looked at once, before anything is
// believed.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}
  uint8_t u8() { return get<uint8_t>(); }
  uint16_t u16() { return get<uint16_t>(); }
  uint32_t u32() { return get<uint32_t>(); }
  uint64_t u64() { return get<uint64_t>(); }
  void raw(void* to, size_t n) {
    const std::span<const std::byte> from = take(n);
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
  }
  [[nodiscard]] bool truncated() const { return truncated_; }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> take(size_t n) {
    if (n > rest_.size()) {
      truncated_ = true;
      rest_ = {};
      return {};
    }
    const std::span<const std::byte> taken = rest_.first(n);
    rest_ = rest_.subspan(n);
    return taken;
  }
  template <typename T>
  T get() {
    const std::span<const std::byte> from = take(sizeof(T));
    if (from.empty()) return 0;
    if constexpr (sizeof(T) == 1) {
      return static_cast<T>(from[0]);
    } else {
      return base::load_be<T>(from.data());
    }
  }
  std::span<const std::byte> rest_;
  bool truncated_ = false;
};

bool lid_is_legal(uint16_t lid) { return lid != 0 && lid <= kLidMax; }

bool ports_are_legal(const std::vector<PortIdentity>& ports) {
  if (ports.empty() || ports.size() > kPortsMax) return false;
  for (size_t i = 0; i < ports.size(); ++i) {
    const PortIdentity& port = ports[i];
    if (!lid_is_legal(port.lid)) return false;
    if (port.cable != kNoCable && port.cable >= kPortsMax - 1) return false;
    if (port.gids.empty() || port.gids.size() > kGidsPerPortMax) return false;
    for (size_t k = 0; k < i; ++k) {
      if (ports[k].lid == port.lid || ports[k].cable == port.cable) return false;
    }
  }
  return true;
}

bool legal(const Hello& m) {
  return m.incarnation != 0 && m.cable < kPortsMax - 1 && host_name_is_legal(m.host_name) &&
         ports_are_legal(m.ports);
}
bool legal(const Refuse& m) {
  return m.reason >= kRefuseVersion && m.reason <= kRefuseDuplicateLid;
}
bool legal(const Heartbeat& m) { return m.incarnation != 0; }
bool legal(const Bye& m) { return m.incarnation != 0; }
bool legal(const ProcessGone& m) {
  return m.slot < kSlots && m.first < kLocalQpns && m.count <= kLocalQpns && lid_is_legal(m.lid);
}

void put_start(Writer& w, Type type, uint8_t flags, uint16_t version) {
  w.u8(type);
  w.u8(flags);
  w.u16(version);
}

void put(Writer& w, const Hello& m) {
  put_start(w, kHello, m.reply ? kFlagReply : 0, m.version);
  w.u64(m.features);
  w.u64(m.incarnation);
  w.u64(m.peer_incarnation);
  w.raw(m.uuid.data(), m.uuid.size());
  w.u8(m.cable);
  w.u8(static_cast<uint8_t>(m.host_name.size()));
  w.u8(static_cast<uint8_t>(m.ports.size()));
  w.u8(0);
  w.raw(m.host_name.data(), m.host_name.size());
  for (const PortIdentity& port : m.ports) {
    w.u16(port.lid);
    w.u8(port.cable);
    w.u8(static_cast<uint8_t>(port.gids.size()));
    for (const GidBytes& gid : port.gids) w.raw(gid.data(), gid.size());
  }
}

void put(Writer& w, const Refuse& m) {
  put_start(w, kRefuse, 0, m.version);
  w.u16(m.reason);
  w.u16(0);
}

void put(Writer& w, const Heartbeat& m) {
  put_start(w, kHeartbeat, m.reply ? kFlagReply : 0, kProtocolVersion);
  w.u64(m.incarnation);
  w.u64(m.sequence);
}

void put(Writer& w, const Bye& m) {
  put_start(w, kBye, 0, kProtocolVersion);
  w.u64(m.incarnation);
}

void put(Writer& w, const ProcessGone& m) {
  put_start(w, kProcessGone, 0, kProtocolVersion);
  w.u8(m.slot);
  w.u8(0);
  w.u16(m.lid);
  w.u32(m.first);
  w.u32(m.count);
}

ControlError finish(const Reader& r, bool fields_ok) {
  if (r.truncated()) return ControlError::kTruncated;
  return fields_ok && r.at_end() ? ControlError::kNone : ControlError::kBadField;
}

void get_ports(Reader& r, size_t count, std::vector<PortIdentity>& ports) {
  for (size_t i = 0; i < count && !r.truncated(); ++i) {
    PortIdentity port;
    port.lid = r.u16();
    port.cable = r.u8();
    const uint8_t gids = r.u8();
    for (uint8_t k = 0; k < gids && !r.truncated(); ++k) {
      r.raw(port.gids.emplace_back().data(), sizeof(GidBytes));
    }
    ports.push_back(std::move(port));
  }
}

ControlError get(Reader& r, Hello& m) {
  m.features = r.u64();
  m.incarnation = r.u64();
  m.peer_incarnation = r.u64();
  r.raw(m.uuid.data(), m.uuid.size());
  m.cable = r.u8();
  const uint8_t name_bytes = r.u8();
  const uint8_t ports = r.u8();
  const uint8_t reserved = r.u8();
  // Before the lists are read, so that a peer cannot make us build long ones.
  if (!r.truncated() && (name_bytes > kHostNameMax || ports > kPortsMax || reserved != 0)) {
    return ControlError::kBadField;
  }
  m.host_name.resize(name_bytes);
  r.raw(m.host_name.data(), name_bytes);
  get_ports(r, ports, m.ports);
  return finish(r, legal(m));
}

ControlError get(Reader& r, Refuse& m) {
  m.reason = r.u16();
  const uint16_t reserved = r.u16();
  return finish(r, reserved == 0 && legal(m));
}

ControlError get(Reader& r, Heartbeat& m) {
  m.incarnation = r.u64();
  m.sequence = r.u64();
  return finish(r, legal(m));
}

ControlError get(Reader& r, Bye& m) {
  m.incarnation = r.u64();
  return finish(r, legal(m));
}

ControlError get(Reader& r, ProcessGone& m) {
  m.slot = r.u8();
  const uint8_t reserved = r.u8();
  m.lid = r.u16();
  m.first = r.u32();
  m.count = r.u32();
  return finish(r, reserved == 0 && legal(m));
}

template <typename T>
ControlError decode_as(Reader& r, T message, ControlMessage& out) {
  const ControlError error = get(r, message);
  if (error == ControlError::kNone) out = std::move(message);
  return error;
}

// Sets the reply flag and the version where the message has them; false if a flag is set that it
// has not.
bool take_start(uint8_t type, uint8_t flags, Hello& hello, Heartbeat& heartbeat) {
  const bool may_reply = type == kHello || type == kHeartbeat;
  if ((flags & ~(may_reply ? kFlagReply : 0)) != 0) return false;
  hello.reply = heartbeat.reply = (flags & kFlagReply) != 0;
  return true;
}

}  // namespace

std::vector<std::byte> encode_control(const ControlMessage& message) {
  Writer w;
  std::visit(
      [&w](const auto& m) {
        TBT_ASSERT(legal(m));
        put(w, m);
      },
      message);
  return w.take();
}

ControlError decode_control(std::span<const std::byte> bytes, ControlMessage& out) {
  if (bytes.size() > kControlMessageMax) return ControlError::kBadField;
  Reader r(bytes);
  const uint8_t type = r.u8();
  const uint8_t flags = r.u8();
  const uint16_t version = r.u16();
  if (r.truncated()) return ControlError::kTruncated;
  if (type < kHello || type > kProcessGone) return ControlError::kUnknownType;
  Hello hello;
  hello.version = version;
  // A refusal can be read in any version, because it is the answer to an unknown one.
  if (version != kProtocolVersion && type != kRefuse) {
    if (type == kHello) out = std::move(hello);
    return ControlError::kUnknownVersion;
  }
  Heartbeat heartbeat;
  if (!take_start(type, flags, hello, heartbeat)) return ControlError::kBadField;
  switch (type) {
    case kHello:
      return decode_as(r, std::move(hello), out);
    case kRefuse:
      return decode_as(r, Refuse{.version = version, .reason = 0}, out);
    case kHeartbeat:
      return decode_as(r, heartbeat, out);
    case kBye:
      return decode_as(r, Bye{}, out);
    default:
      return decode_as(r, ProcessGone{}, out);
  }
}

const char* control_error_name(ControlError error) noexcept {
  switch (error) {
    case ControlError::kNone:
      return "none";
    case ControlError::kTruncated:
      return "truncated";
    case ControlError::kUnknownType:
      return "unknown type";
    case ControlError::kBadField:
      return "bad field";
    case ControlError::kUnknownVersion:
      return "unknown version";
  }
  return "?";
}

bool host_name_is_legal(std::string_view name) noexcept {
  return !name.empty() && name.size() <= kHostNameMax &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
}

uint32_t session_tag(uint64_t incarnation_a, uint64_t incarnation_b) noexcept {
  const auto [low, high] = std::minmax(incarnation_a, incarnation_b);
  // Two rounds of a 64-bit finalizer (multiply, xor-shift): every bit of both reaches every bit of
  // the tag.
  uint64_t z = low * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 32)) + high;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  const auto tag = static_cast<uint32_t>(z ^ (z >> 31));
  return tag != 0 ? tag : 1;
}

}  // namespace tbt::wire
