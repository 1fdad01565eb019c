// GID and P_Key tables.
//
// The port is InfiniBand, but its IPv4-mapped GIDs are typed RoCE v2: programs that look for "the
// GID of my IP address" accept only that type. Empty entries read as zero GIDs from ibv_query_gid,
// which programs call for every index of the table, and as ENODATA from the newer call.
#include <endian.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "forward.h"
#include "objects.h"

// Private symbol of the real library, which its own tools import under the private version of their
// release.
TBT_VERB int tbt_query_gid_type(ibv_context* context, uint8_t port, unsigned int index,
                                unsigned int* type);
TBT_VERB int ibv_query_gid_type(ibv_context* context, uint8_t port, unsigned int index,
                                unsigned int* type);

// One alias per private version node: configure makes the list that the version script also has.
#include "private_nodes.inc"

namespace tbt::provider {
namespace {

constexpr uint16_t kPkey = 0xffff;
constexpr uint32_t kTableLength = limits::kGidTableLen;

bool is_empty(const Gid& gid) noexcept { return gid == Gid{}; }

bool is_ipv4_mapped(const Gid& gid) noexcept {
  constexpr std::array<uint8_t, 12> kPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::equal(kPrefix.begin(), kPrefix.end(), gid.raw.begin());
}

ibv_gid_type type_of(const Gid& gid) noexcept {
  return is_ipv4_mapped(gid) ? IBV_GID_TYPE_ROCE_V2 : IBV_GID_TYPE_IB;
}

ibv_gid_entry entry_of(const Gid& gid, uint32_t index) noexcept {
  ibv_gid_entry entry{};
  std::memcpy(entry.gid.raw, gid.raw.data(), sizeof entry.gid.raw);
  entry.gid_index = index;
  entry.port_num = kPort;
  entry.gid_type = type_of(gid);
  return entry;
}

// Entries of a newer header are longer than ours.
void store(const ibv_gid_entry& entry, void* out, size_t size) noexcept {
  std::memset(out, 0, size);
  std::memcpy(out, &entry, std::min(size, sizeof entry));
}

}  // namespace
}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB int ibv_query_gid(ibv_context* context, uint8_t port, int index, ibv_gid* gid) {
  if (!is_ours(context)) TBT_FORWARD(ibv_query_gid, -1, context, port, index, gid);
  if (port != kPort || index < 0 || static_cast<uint32_t>(index) >= kTableLength) {
    errno = EINVAL;
    return -1;
  }
  const tbt::Gid found = state_of(context).impl->query_gid(static_cast<uint32_t>(index));
  std::memcpy(gid->raw, found.raw.data(), sizeof gid->raw);
  return 0;
}

TBT_VERB int _ibv_query_gid_ex(ibv_context* context, uint32_t port, uint32_t index,
                               ibv_gid_entry* entry, uint32_t flags, size_t entry_size) {
  if (!is_ours(context)) {
    TBT_FORWARD(_ibv_query_gid_ex, EOPNOTSUPP, context, port, index, entry, flags, entry_size);
  }
  if (port != kPort || index >= kTableLength) return EINVAL;
  if (flags != 0) return EOPNOTSUPP;
  const tbt::Gid gid = state_of(context).impl->query_gid(index);
  if (is_empty(gid)) return ENODATA;
  store(entry_of(gid, index), entry, entry_size);
  return 0;
}

TBT_VERB ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* entries,
                                      size_t max_entries, uint32_t flags, size_t entry_size) {
  if (!is_ours(context)) {
    TBT_FORWARD(_ibv_query_gid_table, -EOPNOTSUPP, context, entries, max_entries, flags,
                entry_size);
  }
  if (flags != 0) return -EOPNOTSUPP;
  auto* out = reinterpret_cast<std::byte*>(entries);
  size_t count = 0;
  for (uint32_t index = 0; index < kTableLength; ++index) {
    const tbt::Gid gid = state_of(context).impl->query_gid(index);
    if (is_empty(gid)) continue;
    if (count == max_entries) return -EINVAL;
    store(entry_of(gid, index), out + count * entry_size, entry_size);
    ++count;
  }
  return static_cast<ssize_t>(count);
}

TBT_VERB int tbt_query_gid_type(ibv_context* context, uint8_t port, unsigned int index,
                                unsigned int* type) {
  if (!is_ours(context)) TBT_FORWARD(ibv_query_gid_type, -1, context, port, index, type);
  if (port != kPort || index >= kTableLength) {
    errno = EINVAL;
    return -1;
  }
  // The values of this private call are those of sysfs: InfiniBand and RoCE v1 share zero.
  constexpr unsigned int kSysfsRoceV2 = 1;
  const bool v2 = type_of(state_of(context).impl->query_gid(index)) == IBV_GID_TYPE_ROCE_V2;
  *type = v2 ? kSysfsRoceV2 : 0;
  return 0;
}

TBT_VERB int ibv_query_pkey(ibv_context* context, uint8_t port, int index, __be16* pkey) {
  if (!is_ours(context)) TBT_FORWARD(ibv_query_pkey, -1, context, port, index, pkey);
  if (port != kPort || index != 0) {
    errno = EINVAL;
    return -1;
  }
  *pkey = htobe16(kPkey);
  return 0;
}

TBT_VERB int ibv_get_pkey_index(ibv_context* context, uint8_t port, __be16 pkey) {
  if (!is_ours(context)) TBT_FORWARD(ibv_get_pkey_index, -1, context, port, pkey);
  if (port == kPort && pkey == htobe16(kPkey)) return 0;
  errno = EINVAL;
  return -1;
}
