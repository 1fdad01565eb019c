#include "rail/emulated/vfio_user_message.h"

#include "base/bytes.h"

namespace tbt::rail::emulated::vfio_user {
namespace {

using base::load;
using base::store;

constexpr uint32_t kMapReadable = 1, kMapWriteable = 2;
constexpr uint32_t kUnmapAll = 2;
constexpr uint32_t kDeviceReset = 1, kDevicePci = 2;
constexpr uint32_t kRegionReadable = 1, kRegionWriteable = 2;
constexpr uint32_t kIrqEventFd = 1, kIrqNoResize = 8;
constexpr uint32_t kSetDataMask = 7, kSetActionMask = 7u << 3;

constexpr size_t kDmaMapBytes = 32;
constexpr size_t kDmaUnmapBytes = 24;
constexpr size_t kDeviceInfoBytes = 16;
constexpr size_t kRegionInfoBytes = 32;
constexpr size_t kIrqInfoBytes = 16;
constexpr size_t kSetIrqsBytes = 20;
constexpr size_t kRegionAccessBytes = 16;

using Payload = std::span<const std::byte>;

Status malformed(const char* what) noexcept { return Status(EPROTO, what); }

uint32_t u32(Payload p, size_t at) noexcept { return load<uint32_t>(p.data() + at); }
uint64_t u64(Payload p, size_t at) noexcept { return load<uint64_t>(p.data() + at); }

Result<Request> decode_version(Payload p) noexcept {
  if (p.size() < 4) return malformed("VERSION is too short");
  Version v{load<uint16_t>(p.data()), load<uint16_t>(p.data() + 2), {}};
  const Payload json = p.subspan(4);
  if (json.empty()) return Request(v);
  if (json.back() != std::byte{0}) return malformed("VERSION's capabilities have no end");
  v.capabilities = {reinterpret_cast<const char*>(json.data()), json.size() - 1};
  return Request(v);
}

Result<Request> decode_dma_map(Payload p) noexcept {
  if (p.size() != kDmaMapBytes) return malformed("DMA_MAP has the wrong size");
  DmaMap m;
  m.readable = (u32(p, 4) & kMapReadable) != 0;
  m.writeable = (u32(p, 4) & kMapWriteable) != 0;
  m.file_offset = u64(p, 8);
  m.iova = u64(p, 16);
  m.bytes = u64(p, 24);
  return Request(m);
}

Result<Request> decode_dma_unmap(Payload p) noexcept {
  if (p.size() != kDmaUnmapBytes) return malformed("DMA_UNMAP has the wrong size");
  return Request(DmaUnmap{u64(p, 8), u64(p, 16), (u32(p, 4) & kUnmapAll) != 0});
}

// One bit of the data flags and one of the actions (<linux/vfio.h>, VFIO_IRQ_SET_*).
bool decode_set_flags(uint32_t flags, SetIrqs& out) noexcept {
  switch (flags & kSetDataMask) {
    case 1:
      out.data = SetIrqs::Data::kNone;
      break;
    case 2:
      out.data = SetIrqs::Data::kBool;
      break;
    case 4:
      out.data = SetIrqs::Data::kEventFd;
      break;
    default:
      return false;
  }
  switch ((flags & kSetActionMask) >> 3) {
    case 1:
      out.action = SetIrqs::Action::kMask;
      return true;
    case 2:
      out.action = SetIrqs::Action::kUnmask;
      return true;
    case 4:
      out.action = SetIrqs::Action::kTrigger;
      return true;
    default:
      return false;
  }
}

Result<Request> decode_set_irqs(Payload p) noexcept {
  if (p.size() < kSetIrqsBytes) return malformed("SET_IRQS is too short");
  SetIrqs s;
  if ((u32(p, 4) & ~(kSetDataMask | kSetActionMask)) != 0 || !decode_set_flags(u32(p, 4), s)) {
    return malformed("SET_IRQS has impossible flags");
  }
  s.index = u32(p, 8);
  s.start = u32(p, 12);
  s.count = u32(p, 16);
  s.bools = p.subspan(kSetIrqsBytes);
  // Descriptors travel beside the message, whatever argsz says.
  const size_t wanted = s.data == SetIrqs::Data::kBool ? s.count : 0;
  if (s.bools.size() != wanted) return malformed("SET_IRQS disagrees with its count");
  return Request(s);
}

Result<Request> decode_region_read(Payload p) noexcept {
  if (p.size() != kRegionAccessBytes) return malformed("REGION_READ has the wrong size");
  const RegionRead r{u64(p, 0), u32(p, 8), u32(p, 12)};
  if (r.count > kTransferBytesMax) return malformed("REGION_READ asks for too much");
  return Request(r);
}

Result<Request> decode_region_write(Payload p) noexcept {
  if (p.size() < kRegionAccessBytes) return malformed("REGION_WRITE is too short");
  const RegionWrite w{u64(p, 0), u32(p, 8), p.subspan(kRegionAccessBytes)};
  if (w.data.size() != u32(p, 12)) return malformed("REGION_WRITE disagrees with its count");
  if (w.data.size() > kTransferBytesMax) return malformed("REGION_WRITE is too long");
  return Request(w);
}

// A reply with `payload` bytes after its header, all zero.
Message make_reply(const Header& request, size_t payload, uint32_t flags = 0, uint32_t error = 0) {
  Message m(kHeaderBytes + payload);
  store<uint16_t>(m.data(), request.id);
  store<uint16_t>(m.data() + 2, static_cast<uint16_t>(request.command));
  store<uint32_t>(m.data() + 4, static_cast<uint32_t>(m.size()));
  store<uint32_t>(m.data() + 8, kFlagReply | flags);
  store<uint32_t>(m.data() + 12, error);
  return m;
}

void put32(Message& m, size_t at, uint32_t value) noexcept {
  store<uint32_t>(m.data() + kHeaderBytes + at, value);
}
void put64(Message& m, size_t at, uint64_t value) noexcept {
  store<uint64_t>(m.data() + kHeaderBytes + at, value);
}

}  // namespace

Result<Header> decode_header(std::span<const std::byte, kHeaderBytes> bytes) noexcept {
  const Payload p(bytes);
  const uint32_t size = u32(p, 4);
  const uint32_t flags = u32(p, 8);
  if (size < kHeaderBytes) return malformed("a message is shorter than its header");
  if (size - kHeaderBytes > kPayloadBytesMax) return malformed("a message is too long");
  if ((flags & kFlagTypeMask) != 0) return malformed("a reply to a command that was never sent");
  Header h;
  h.id = load<uint16_t>(p.data());
  h.command = static_cast<Command>(load<uint16_t>(p.data() + 2));
  h.payload_bytes = static_cast<uint32_t>(size - kHeaderBytes);
  h.no_reply = (flags & kFlagNoReply) != 0;
  return h;
}

Result<Request> decode_request(const Header& header, std::span<const std::byte> payload) noexcept {
  if (payload.size() != header.payload_bytes) return malformed("a message is not whole");
  switch (header.command) {
    case Command::kVersion:
      return decode_version(payload);
    case Command::kDmaMap:
      return decode_dma_map(payload);
    case Command::kDmaUnmap:
      return decode_dma_unmap(payload);
    case Command::kDeviceGetInfo:
      if (payload.size() != kDeviceInfoBytes) return malformed("GET_INFO has the wrong size");
      return Request(DeviceGetInfo{});
    case Command::kDeviceGetRegionInfo:
      if (payload.size() != kRegionInfoBytes) {
        return malformed("GET_REGION_INFO has the wrong size");
      }
      return Request(GetRegionInfo{u32(payload, 0), u32(payload, 8)});
    case Command::kDeviceGetIrqInfo:
      if (payload.size() != kIrqInfoBytes) return malformed("GET_IRQ_INFO has the wrong size");
      return Request(GetIrqInfo{u32(payload, 0), u32(payload, 8)});
    case Command::kDeviceSetIrqs:
      return decode_set_irqs(payload);
    case Command::kRegionRead:
      return decode_region_read(payload);
    case Command::kRegionWrite:
      return decode_region_write(payload);
    case Command::kDeviceReset:
      if (!payload.empty()) return malformed("RESET has a payload");
      return Request(DeviceReset{});
    case Command::kDeviceGetRegionIoFds:
      break;
  }
  return Request(Unknown{});
}

Message encode_error(const Header& request, int code) {
  return make_reply(request, 0, kFlagError, static_cast<uint32_t>(code));
}

Message encode_done(const Header& request) { return make_reply(request, 0); }

Message encode_version(const Header& request, const Version& version) {
  const std::string_view json = version.capabilities;
  Message m = make_reply(request, 4 + json.size() + 1);
  store<uint16_t>(m.data() + kHeaderBytes, version.major);
  store<uint16_t>(m.data() + kHeaderBytes + 2, version.minor);
  std::memcpy(m.data() + kHeaderBytes + 4, json.data(), json.size());
  return m;
}

Message encode_dma_unmap(const Header& request, const DmaUnmap& unmap) {
  Message m = make_reply(request, kDmaUnmapBytes);
  put32(m, 0, kDmaUnmapBytes);
  put32(m, 4, unmap.all ? kUnmapAll : 0);
  put64(m, 8, unmap.iova);
  put64(m, 16, unmap.bytes);
  return m;
}

Message encode_device_info(const Header& request, uint32_t regions, uint32_t irqs) {
  Message m = make_reply(request, kDeviceInfoBytes);
  put32(m, 0, kDeviceInfoBytes);
  put32(m, 4, kDeviceReset | kDevicePci);
  put32(m, 8, regions);
  put32(m, 12, irqs);
  return m;
}

Message encode_region_info(const Header& request, const RegionInfo& info) {
  Message m = make_reply(request, kRegionInfoBytes);
  put32(m, 0, kRegionInfoBytes);
  put32(m, 4, (info.readable ? kRegionReadable : 0) | (info.writeable ? kRegionWriteable : 0));
  put32(m, 8, info.index);
  put64(m, 16, info.bytes);
  return m;
}

Message encode_irq_info(const Header& request, const IrqInfo& info) {
  Message m = make_reply(request, kIrqInfoBytes);
  put32(m, 0, kIrqInfoBytes);
  put32(m, 4, info.count != 0 ? kIrqEventFd | kIrqNoResize : 0);
  put32(m, 8, info.index);
  put32(m, 12, info.count);
  return m;
}

Message encode_region_read(const Header& request, const RegionRead& read,
                           std::span<const std::byte> data) {
  Message m = make_reply(request, kRegionAccessBytes + data.size());
  put64(m, 0, read.offset);
  put32(m, 8, read.region);
  put32(m, 12, static_cast<uint32_t>(data.size()));
  if (!data.empty()) {
    std::memcpy(m.data() + kHeaderBytes + kRegionAccessBytes, data.data(), data.size());
  }
  return m;
}

Message encode_region_write(const Header& request, const RegionWrite& write) {
  Message m = make_reply(request, kRegionAccessBytes);
  put64(m, 0, write.offset);
  put32(m, 8, write.region);
  put32(m, 12, static_cast<uint32_t>(write.data.size()));
  return m;
}

}  // namespace tbt::rail::emulated::vfio_user
