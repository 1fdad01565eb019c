// The messages of vfio-user, the protocol by which a virtual machine uses a PCI device that another
// process plays (QEMU: docs/interop/vfio-user.rst). Pure: bytes to values and back.
//
// The peer is not trusted: a length that does not fit, a count that disagrees with it, a reply
// where a command belongs, are malformed, and whoever sent them is not talked to any more. A
// command that is well formed and asks for what is not there gets a reply with an errno value.
// Integers are in the order of the machine, which both ends share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "tbt/status.h"

namespace tbt::rail::emulated::vfio_user {

inline constexpr size_t kHeaderBytes = 16;
inline constexpr size_t kPayloadBytesMax = 8192;
inline constexpr uint32_t kTransferBytesMax = 4096;  // of one REGION_READ or REGION_WRITE
inline constexpr size_t kMessageFdsMax = 16;         // as our VERSION says

inline constexpr uint32_t kFlagTypeMask = 0xf;  // 0: command, 1: reply
inline constexpr uint32_t kFlagReply = 0x1;
inline constexpr uint32_t kFlagNoReply = 0x10;
inline constexpr uint32_t kFlagError = 0x20;

enum class Command : uint16_t {
  kVersion = 1,
  kDmaMap = 2,
  kDmaUnmap = 3,
  kDeviceGetInfo = 4,
  kDeviceGetRegionInfo = 5,
  kDeviceGetRegionIoFds = 6,
  kDeviceGetIrqInfo = 7,
  kDeviceSetIrqs = 8,
  kRegionRead = 9,
  kRegionWrite = 10,
  kDeviceReset = 13,
};

struct Header {
  uint16_t id = 0;
  Command command{};  // may be one that is not known
  uint32_t payload_bytes = 0;
  bool no_reply = false;  // a posted write
};

struct Version {
  uint16_t major = 0, minor = 0;
  std::string_view capabilities;  // JSON, not looked into
};

struct DmaMap {
  uint64_t file_offset = 0, iova = 0, bytes = 0;
  bool readable = false, writeable = false;
};

struct DmaUnmap {
  uint64_t iova = 0, bytes = 0;
  bool all = false;
};

struct DeviceGetInfo {};

// GET_REGION_INFO and GET_IRQ_INFO: `room` is what the client has for the reply.
struct GetRegionInfo {
  uint32_t room = 0, index = 0;
};
struct GetIrqInfo {
  uint32_t room = 0, index = 0;
};

struct SetIrqs {
  enum class Data : uint8_t { kNone, kBool, kEventFd };
  enum class Action : uint8_t { kMask, kUnmask, kTrigger };
  Data data{};
  Action action{};
  uint32_t index = 0, start = 0, count = 0;
  std::span<const std::byte> bools;  // kBool: `count` of them
};

struct RegionRead {
  uint64_t offset = 0;
  uint32_t region = 0, count = 0;
};

struct RegionWrite {
  uint64_t offset = 0;
  uint32_t region = 0;
  std::span<const std::byte> data;
};

struct DeviceReset {};
struct Unknown {};  // a command that we do not have

using Request = std::variant<Version, DmaMap, DmaUnmap, DeviceGetInfo, GetRegionInfo, GetIrqInfo,
                             SetIrqs, RegionRead, RegionWrite, DeviceReset, Unknown>;

// EPROTO and what is wrong, if it is malformed. Views in a request are of `payload`.
Result<Header> decode_header(std::span<const std::byte, kHeaderBytes> bytes) noexcept;
Result<Request> decode_request(const Header& header, std::span<const std::byte> payload) noexcept;

// ---- replies: header and payload, ready to be sent

using Message = std::vector<std::byte>;

Message encode_error(const Header& request, int code);
Message encode_done(const Header& request);  // no payload
Message encode_version(const Header& request, const Version& version);
Message encode_dma_unmap(const Header& request, const DmaUnmap& unmap);
Message encode_device_info(const Header& request, uint32_t regions, uint32_t irqs);

struct RegionInfo {
  uint32_t index = 0;
  bool readable = false, writeable = false;
  uint64_t bytes = 0;
};
Message encode_region_info(const Header& request, const RegionInfo& info);

struct IrqInfo {
  uint32_t index = 0;
  uint32_t count = 0;
};
Message encode_irq_info(const Header& request, const IrqInfo& info);
Message encode_region_read(const Header& request, const RegionRead& read,
                           std::span<const std::byte> data);
Message encode_region_write(const Header& request, const RegionWrite& write);

}  // namespace tbt::rail::emulated::vfio_user
