#include "wire/tb/service.h"

#include <algorithm>

#include "base/assert.h"
#include "wire/tb/thunderbolt_ip.h"

namespace tbt::wire::tb {
namespace {

constexpr size_t kNameMax = 63;
constexpr std::string_view kVendorId = "vendorid", kDeviceId = "deviceid", kRevision = "devicerv",
                           kMaxHopId = "maxhopid";
constexpr std::string_view kProtocolId = "prtcid", kProtocolVersion = "prtcvers",
                           kProtocolRevision = "prtcrevs", kProtocolSettings = "prtcstns";
constexpr std::string_view kMaxFrame = "maxframe", kMaxRails = "maxrails";

// A peer's text goes to terminals and logs.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, kNameMax));
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '?';
  }
  return out;
}

uint32_t value_or(const PropertyDirectory& dir, std::string_view key, uint32_t otherwise) {
  const uint32_t* value = dir.find_value(key);
  return value != nullptr ? *value : otherwise;
}
std::string text_or_empty(const PropertyDirectory& dir, std::string_view key) {
  const std::string* text = dir.find_text(key);
  return text != nullptr ? printable(*text) : std::string();
}

bool legal(const TbtService& s) {
  return s.max_frame >= kTbtFrameMin && s.max_frame <= kTbtFrameMax && s.max_rails >= 1 &&
         s.max_rails <= kTbtRailsMax;
}

}  // namespace

PropertyDirectory host_directory(const HostProperties& host) {
  PropertyDirectory root;
  root.add(kVendorId, host.vendor_id);
  root.add(kVendorId, host.vendor_name);
  root.add(kDeviceId, host.device_id);
  root.add(kDeviceId, host.device_name);
  root.add(kRevision, host.device_revision);
  root.add(kMaxHopId, host.max_hop_id);
  return root;
}

bool read_host(const PropertyDirectory& root, HostProperties& out) {
  const uint32_t* vendor = root.find_value(kVendorId);
  const uint32_t* device = root.find_value(kDeviceId);
  if (vendor == nullptr || device == nullptr) return false;
  out.vendor_id = *vendor;
  out.vendor_name = text_or_empty(root, kVendorId);
  out.device_id = *device;
  out.device_name = text_or_empty(root, kDeviceId);
  out.device_revision = value_or(root, kRevision, 0);
  const uint32_t hop_id = value_or(root, kMaxHopId, HostProperties{}.max_hop_id);
  out.max_hop_id = static_cast<uint16_t>(std::min<uint32_t>(hop_id, kHopIdMax));
  return true;
}

std::vector<ServiceInfo> list_services(const PropertyDirectory& root) {
  std::vector<ServiceInfo> services;
  for (const Property& property : root.entries) {
    const auto* dir = std::get_if<PropertyDirectory>(&property.value);
    if (dir == nullptr) continue;
    services.push_back({.key = printable(property.key.name()),
                        .uuid = dir->uuid,
                        .protocol_id = value_or(*dir, kProtocolId, 0),
                        .version = value_or(*dir, kProtocolVersion, 0),
                        .revision = value_or(*dir, kProtocolRevision, 0),
                        .settings = value_or(*dir, kProtocolSettings, 0)});
  }
  return services;
}

void add_tbt_service(const TbtService& service, PropertyDirectory& root) {
  TBT_ASSERT(legal(service));
  PropertyDirectory dir;
  dir.uuid = kTbtServiceUuid;
  dir.add(kProtocolId, kTbtServiceProtocolId);
  dir.add(kProtocolVersion, kTbtServiceVersion);
  dir.add(kProtocolRevision, service.revision);
  dir.add(kProtocolSettings, service.settings);
  dir.add(kMaxFrame, service.max_frame);
  dir.add(kMaxRails, service.max_rails);
  root.add(kTbtServiceKey, std::move(dir));
}

ServiceError read_tbt_service(const PropertyDirectory& root, TbtService& out) {
  const PropertyDirectory* dir = root.find_directory(kTbtServiceKey);
  if (dir == nullptr || dir->uuid != kTbtServiceUuid ||
      value_or(*dir, kProtocolId, 0) != kTbtServiceProtocolId) {
    return ServiceError::kAbsent;
  }
  if (value_or(*dir, kProtocolVersion, 0) != kTbtServiceVersion) {
    return ServiceError::kUnknownVersion;
  }
  const TbtService service{.revision = value_or(*dir, kProtocolRevision, 0),
                           .settings = value_or(*dir, kProtocolSettings, 0),
                           .max_frame = value_or(*dir, kMaxFrame, 0),
                           .max_rails = value_or(*dir, kMaxRails, 0)};
  if (!legal(service)) return ServiceError::kBadField;
  out = service;
  return ServiceError::kNone;
}

}  // namespace tbt::wire::tb
