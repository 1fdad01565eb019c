#include "fabric/attach_protocol.h"

#include <charconv>

#include "fabric/json_text.h"
#include "rail/rail.h"

namespace tbt::fabric {
namespace {

using nlohmann::json;

struct OperationName {
  Operation operation;
  const char* name;
};
constexpr OperationName kOperations[] = {{Operation::kAttach, "attach"},
                                         {Operation::kStatus, "status"},
                                         {Operation::kCable, "cable"},
                                         {Operation::kGuest, "guest"},
                                         {Operation::kRemove, "remove"},
                                         {Operation::kGid, "gid"}};

// 32 digits.
std::string gid_digits(const wire::GidBytes& gid) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : gid) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool parse_gid(std::string_view text, wire::GidBytes& out) {
  if (text.size() != 2 * out.size()) return false;
  for (size_t i = 0; i < out.size(); i++) {
    const char* const at = text.data() + 2 * i;
    const auto [end, error] = std::from_chars(at, at + 2, out[i], 16);
    if (error != std::errc() || end != at + 2) return false;
  }
  return true;
}

json encode_settings(const CableSettings& settings) {
  json out = json::object();
  for (size_t i = 0; i < kCableFields; i++) {
    if (settings.values[i]) out[cable_field_name(static_cast<CableField>(i))] = *settings.values[i];
  }
  return out;
}

Status decode_settings(const json& message, CableSettings& out) {
  const auto it = message.find("settings");
  if (it == message.end() || !it->is_object()) return Status(EINVAL, "cable without settings");
  size_t known = 0;
  for (size_t i = 0; i < kCableFields; i++) {
    const auto field = static_cast<CableField>(i);
    if (!it->contains(cable_field_name(field))) continue;
    out.values[i] = json_uint(*it, cable_field_name(field), cable_field_max(field));
    if (!out.values[i]) return Status(EINVAL, "cable setting out of range");
    known++;
  }
  return known == it->size() ? Status{} : Status(EINVAL, "unknown cable setting");
}

Status decode_cable(const json& message, Request& out) {
  const auto cable = json_uint(message, "cable", rail::emulated::kCablesMax - 1);
  if (!cable) return Status(EINVAL, "cable number missing or out of range");
  out.cable = static_cast<uint32_t>(*cable);
  return decode_settings(message, out.settings);
}

Status decode_gid(const json& message, Request& out) {
  const auto port = json_uint(message, "port", wire::kPortsMax - 1);
  const auto gid = json_string(message, "gid");
  const auto present = json_uint(message, "present", 1);
  if (!port || !gid || !present || !parse_gid(*gid, out.gid)) {
    return Status(EINVAL, "port, gid or present missing or out of range");
  }
  out.port = static_cast<uint32_t>(*port);
  out.present = *present != 0;
  return {};
}

std::optional<rail::nhi::PciIdentity> decode_identity(const FlatObject& message) {
  const auto vendor = message.number("vendor_id", UINT16_MAX);
  const auto device = message.number("device_id", UINT16_MAX);
  if (!vendor || !device) return std::nullopt;
  return rail::nhi::PciIdentity{static_cast<uint16_t>(*vendor), static_cast<uint16_t>(*device)};
}

std::optional<rail::nhi::DmaRange> decode_own(const FlatObject& message) {
  const auto first = message.number("dma_first", UINT64_MAX / 2);
  const auto bytes = message.number("dma_bytes", UINT64_MAX / 2);
  if (!first || !bytes || *first == 0 || *bytes == 0) return std::nullopt;
  return rail::nhi::DmaRange{*first, *bytes};
}

// Of an emulated host it says how many there are, of one with a controller which that is.
Status decode_grant(const FlatObject& message, AttachGrant& out) {
  if (message.number("version", UINT32_MAX) != kAttachVersion) {
    return Status(EPROTO, "the daemon speaks another version");
  }
  const auto slot = message.number("slot", rail::kSlotsMax - 1u);
  const auto host = message.number("host", rail::emulated::kHostsMax - 1);
  const auto hosts = message.number("hosts", rail::emulated::kHostsMax);
  const auto vfio = decode_identity(message);
  if (!slot || *slot == rail::kDaemonSlot || !host || vfio.has_value() == hosts.has_value() ||
      (hosts && *host >= *hosts)) {
    return Status(EPROTO, "the daemon's answer makes no sense");
  }
  out = {static_cast<uint16_t>(*slot), static_cast<uint32_t>(*host),
         static_cast<uint32_t>(hosts.value_or(0)), vfio, decode_own(message)};
  return {};
}

Status decode_guest_grant(const FlatObject& message, GuestGrant& out) {
  const auto hosts = message.number("hosts", rail::emulated::kHostsMax);
  const auto host = message.number("host", rail::emulated::kHostsMax - 1);
  const auto identity = decode_identity(message);
  if (message.number("version", UINT32_MAX) != kAttachVersion) {
    return Status(EPROTO, "the daemon speaks another version");
  }
  if (!hosts || !host || *host >= *hosts || !identity) {
    return Status(EPROTO, "the daemon's answer makes no sense");
  }
  out = {static_cast<uint32_t>(*host), static_cast<uint32_t>(*hosts), identity->vendor,
         identity->device};
  return {};
}

// Without a tree, for the same reason as FlatObject.
std::string attach_request() {
  return "{\"op\":\"attach\",\"version\":" + std::to_string(kAttachVersion) + "}";
}

}  // namespace

std::string encode_request(const Request& request) {
  if (request.operation == Operation::kAttach) return attach_request();
  json message{{"version", kAttachVersion}};
  for (const auto& [operation, name] : kOperations) {
    if (operation == request.operation) message["op"] = name;
  }
  if (request.operation == Operation::kCable) {
    message["cable"] = request.cable;
    message["settings"] = encode_settings(request.settings);
  } else if (request.operation == Operation::kGid) {
    message["port"] = request.port;
    message["gid"] = gid_digits(request.gid);
    message["present"] = request.present ? 1 : 0;
  }
  return json_dump(message);
}

Status decode_request(std::string_view text, Request& out) {
  const json message = parse_json_object(text);
  if (message.is_null()) return Status(EPROTO, "not a request of this protocol");
  if (json_uint(message, "version", UINT32_MAX) != kAttachVersion) {
    return Status(EPROTO, "this daemon speaks version 1 of its protocol only");
  }
  const auto op = json_string(message, "op");
  for (const auto& [operation, name] : kOperations) {
    if (op != name) continue;
    out.operation = operation;
    if (operation == Operation::kGid) return decode_gid(message, out);
    return operation == Operation::kCable ? decode_cable(message, out) : Status{};
  }
  return Status(EINVAL, "unknown operation");
}

std::string encode_grant(const AttachGrant& grant) {
  json message{
      {"ok", true}, {"version", kAttachVersion}, {"slot", grant.slot}, {"host", grant.host}};
  if (grant.vfio) {
    message["vendor_id"] = grant.vfio->vendor;
    message["device_id"] = grant.vfio->device;
    if (grant.own) {
      message["dma_first"] = grant.own->first;
      message["dma_bytes"] = grant.own->bytes;
    }
  } else {
    message["hosts"] = grant.hosts;
  }
  return json_dump(message);
}

std::string encode_guest_grant(const GuestGrant& grant) {
  return json_dump({{"ok", true},
                    {"version", kAttachVersion},
                    {"host", grant.host},
                    {"hosts", grant.hosts},
                    {"vendor_id", grant.vendor_id},
                    {"device_id", grant.device_id}});
}

std::string encode_done() { return json_dump({{"ok", true}}); }

std::string encode_refusal(int code, std::string_view text) {
  return json_dump({{"ok", false}, {"code", code}, {"error", std::string(text)}});
}

Status decode_reply(std::string_view text, Expected expected, Reply& out) {
  FlatObject message;
  const bool whole = message.parse(text);
  const auto ok = message.flag("ok");
  if (!whole || !ok) return Status(EPROTO, "the daemon's answer makes no sense");
  if (!*ok) {
    constexpr uint64_t kErrnoMax = 4095;
    out.code = static_cast<int>(message.number("code", kErrnoMax).value_or(EPROTO));
    if (out.code == 0) out.code = EPROTO;
    out.text = message.text("error").value_or("refused");
    return {};
  }
  out.code = 0;
  if (expected == Expected::kAttachGrant) return decode_grant(message, out.grant);
  return expected == Expected::kGuestGrant ? decode_guest_grant(message, out.guest) : Status{};
}

}  // namespace tbt::fabric
