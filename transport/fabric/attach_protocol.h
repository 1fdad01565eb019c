// The texts that a process and its host's daemon exchange: JSON objects of at most 64 KiB and 16
// levels. docs/daemon.md is the description. Decoding trusts nothing: unknown operations, missing
// or ill-typed fields and values out of range are refused, extra fields are passed over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fabric/cable_settings.h"
#include "rail/nhi/pci_device.h"
#include "wire/control.h"
#include "tbt/status.h"

namespace tbt::fabric {

inline constexpr uint32_t kAttachVersion = 1;

enum class Operation : uint8_t {
  kAttach,  // a slot, and the descriptors of everything
  kStatus,  // what the daemon knows, as JSON for people and tools
  kCable,   // change an emulated cable
  kGuest,   // the descriptors of everything, to play the controller for a virtual machine
  kRemove,  // take the emulated controller away
  kGid,     // give a port another GID, or take it away
};

struct Request {
  Operation operation = Operation::kStatus;
  uint32_t cable = 0;        // kCable: the fabric's number of it
  CableSettings settings{};  // kCable
  uint32_t port = 0;         // kGid: 0 is the aggregate, 1 + k that of cable k
  wire::GidBytes gid{};      // kGid
  bool present = true;       // kGid: afterwards
};

// What an attaching process is told beside its descriptors, which are in this order: the silicon,
// the memory of each host, the interrupt of each host. Of a host whose controller is a PCI device
// of the machine: that device, the host's memory, its interrupt.
struct AttachGrant {
  uint16_t slot = 0;
  uint32_t host = 0;
  uint32_t hosts = 0;                            // 0 beside a controller
  std::optional<rail::nhi::PciIdentity> vfio{};  // the controller, if it is one of the machine
  // Where the controller finds memory that the process itself maps for it, by VFIO's container,
  // which is a fourth descriptor then. Nothing: it maps none.
  std::optional<rail::nhi::DmaRange> own{};
};

// The same for whoever plays the host's controller, which is to seem this one.
struct GuestGrant {
  uint32_t host = 0;
  uint32_t hosts = 0;
  uint16_t vendor_id = 0;
  uint16_t device_id = 0;
};

struct Reply {
  int code = 0;      // 0, or the errno value of a refusal
  std::string text;  // of a refusal
  AttachGrant grant{};
  GuestGrant guest{};
};

enum class Expected : uint8_t { kDone, kAttachGrant, kGuestGrant };

std::string encode_request(const Request& request);
// EPROTO: not of this protocol or version. EINVAL: a field is missing or out of range.
Status decode_request(std::string_view text, Request& out);

std::string encode_grant(const AttachGrant& grant);
std::string encode_guest_grant(const GuestGrant& grant);
std::string encode_done();
std::string encode_refusal(int code, std::string_view text);
// The reply to kAttach, kGuest, or the others.
Status decode_reply(std::string_view text, Expected expected, Reply& out);

}  // namespace tbt::fabric
