// What stands in property blocks: what a host says of itself, the services that it offers, and our
// own service, by which two hosts running this project recognise each other; docs/wire.md,
// sections 6.4 and 6.5.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "wire/tb/property_block.h"
#include "wire/tb/uuid.h"

namespace tbt::wire::tb {

// The entries of the root that are not services. The defaults are what the kernel says of itself:
// the system is Linux, whoever drives the controller.
struct HostProperties {
  uint32_t vendor_id = 0x1d6b;
  std::string vendor_name = "Linux";
  uint32_t device_id = 4;
  std::string device_name;  // of the host
  uint32_t device_revision = 0x80000100;
  uint16_t max_hop_id = 15;  // the highest that it can receive by; 15 where a host does not say
  friend bool operator==(const HostProperties&, const HostProperties&) = default;
};

// Any service, as Linux lists it under /sys/bus/thunderbolt/devices.
struct ServiceInfo {
  std::string key;
  Uuid uuid;
  uint32_t protocol_id = 0;
  uint32_t version = 0;
  uint32_t revision = 0;
  uint32_t settings = 0;
  friend bool operator==(const ServiceInfo&, const ServiceInfo&) = default;
};

inline constexpr std::string_view kTbtServiceKey = "tbtrdma";
inline constexpr Uuid kTbtServiceUuid = uuid("0f906f46-8038-46fc-86a1-bd489bb7de7b");
inline constexpr uint32_t kTbtServiceProtocolId = 1;
inline constexpr uint32_t kTbtServiceVersion = 1;
inline constexpr uint32_t kTbtFrameMin = 256, kTbtFrameMax = 4096;
inline constexpr uint32_t kTbtRailsMax = 16;

enum TbtServiceSettings : uint32_t {
  kTbtSettingE2e = 1u << 0,  // the host can use the hardware's end-to-end credits
};

struct TbtService {
  uint32_t revision = 0;
  uint32_t settings = 0;              // TbtServiceSettings; unknown bits are ignored
  uint32_t max_frame = kTbtFrameMax;  // bytes of the longest frame that it takes
  uint32_t max_rails = 1;             // ring pairs that it can give to this cable
  friend bool operator==(const TbtService&, const TbtService&) = default;
};

enum class ServiceError : uint8_t {
  kNone,
  kAbsent,          // no entry of our key, or it belongs to somebody else
  kUnknownVersion,  // ours, but never to be guessed
  kBadField,
};

// The root of a host's block, as yet without services.
PropertyDirectory host_directory(const HostProperties& host);
// False if the entries that Linux requires (vendor and device id) are not there. Names come out
// printable and at most 63 bytes long.
bool read_host(const PropertyDirectory& root, HostProperties& out);

// All directories of the root.
std::vector<ServiceInfo> list_services(const PropertyDirectory& root);

// Our service, added to a root; fields in their ranges (asserted).
void add_tbt_service(const TbtService& service, PropertyDirectory& root);
ServiceError read_tbt_service(const PropertyDirectory& root, TbtService& out);

}  // namespace tbt::wire::tb
