#include "fabric/addresses.h"

#include "base/bytes.h"

namespace tbt::fabric {
namespace {

constexpr uint16_t kLidsPerHost = 64;
constexpr uint64_t kLocallyAdministered = 0x02ull << 56;
constexpr uint64_t kGroupAddress = 0x01ull << 56;

// FNV-1a, then the finalizer of splitmix64, so that neighbouring names differ in all bits.
class Hash {
 public:
  void add(std::string_view text) noexcept {
    for (const char c : text) add(static_cast<uint64_t>(static_cast<uint8_t>(c)));
  }
  void add(uint64_t value) noexcept { state_ = (state_ ^ value) * 0x100000001b3ull; }
  [[nodiscard]] uint64_t value() const noexcept {
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

wire::GidBytes link_local_gid(uint64_t guid) noexcept {
  wire::GidBytes gid{0xfe, 0x80};
  base::store_be(reinterpret_cast<std::byte*>(gid.data() + 8), guid);
  return gid;
}

wire::GidBytes ipv4_gid(uint8_t subnet, uint32_t host) noexcept {
  wire::GidBytes gid{};
  gid[10] = gid[11] = 0xff;
  gid[12] = 10;
  gid[13] = 55;
  gid[14] = subnet;
  gid[15] = static_cast<uint8_t>(host + 1);
  return gid;
}

uint64_t port_guid(const PortName& name) noexcept {
  Hash hash;
  hash.add(name.fabric);
  hash.add(0x100 + name.host);
  hash.add(0x200 + static_cast<uint64_t>(name.cable));
  return (hash.value() | kLocallyAdministered) & ~kGroupAddress;
}

}  // namespace

uint16_t aggregate_lid(uint32_t host) noexcept {
  return static_cast<uint16_t>(kLidsPerHost * (host + 1));
}

PortEntry port_entry(const PortName& name) noexcept {
  PortEntry entry;
  const uint32_t offset = name.cable == kAggregate ? 0 : 1u + name.cable;
  entry.lid = static_cast<uint16_t>(aggregate_lid(name.host) + offset);
  entry.cable = name.cable;
  entry.guid = port_guid(name);
  entry.gid_count = 2;
  entry.gids[0] = link_local_gid(entry.guid);
  entry.gids[1] = ipv4_gid(name.subnet, name.host);
  return entry;
}

std::array<uint8_t, 16> host_uuid(std::string_view fabric, uint32_t host) noexcept {
  std::array<uint8_t, 16> uuid{};
  for (uint64_t half = 0; half < 2; half++) {
    Hash hash;
    hash.add(0x300 + half);
    hash.add(fabric);
    hash.add(0x100 + host);
    base::store_be(reinterpret_cast<std::byte*>(uuid.data() + 8 * half), hash.value());
  }
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x80);  // RFC 9562: version 8, our own rule
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

}  // namespace tbt::fabric
