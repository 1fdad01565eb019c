// Directory: what a host's daemon tells its processes, in HostMemory::directory(): this host's
// ports and addresses, the peers that answered hello, and the state of each cable. The daemon is
// the only writer.
//
// Readers copy it whole with read_directory (a sequence lock: retried while the daemon writes) when
// `generation` has changed; reading costs no system call. Nothing in it is trusted by the peer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "rail/host_memory.h"
#include "wire/control.h"

namespace tbt::fabric {

inline constexpr uint32_t kCablesMax = rail::kRailsMax - 1;
inline constexpr uint32_t kPeersMax = 16;
inline constexpr uint8_t kAggregate = 0xff;

// One verbs device of this host, or of a peer. lid 0: unused entry.
struct PortEntry {
  uint16_t lid = 0;
  uint8_t cable = kAggregate;  // ordinal on the host that owns the port
  uint8_t gid_count = 0;
  std::array<wire::GidBytes, wire::kGidsPerPortMax> gids{};
  uint64_t guid = 0;  // only for this host's ports
};

// Silent: the peer has stopped answering a moment ago. Nothing new begins there; what is under way
// goes on.
enum class LinkState : uint8_t { kDown = 0, kUnplugged = 1, kConnecting = 2, kUp = 3, kSilent = 4 };

struct CableEntry {
  LinkState state = LinkState::kDown;
  uint8_t peer = 0xff;     // index into peers once hello was exchanged
  uint8_t peer_cable = 0;  // ordinal of this cable on the peer
  uint8_t flags = 0;
  uint32_t tag = 0;         // session tag of frames on it
  uint32_t speed_gbps = 0;  // 80 for the ideal cable
};

struct PeerEntry {
  bool known = false;
  bool gone = false;  // said farewell, or came back with another incarnation (in another entry)
  uint64_t incarnation = 0;
  std::array<uint8_t, 16> uuid{};
  std::array<char, 64> name{};
  std::array<PortEntry, wire::kPortsMax> ports{};
};

// News that a process is gone: local QP numbers [first, first + count), modulo 2^18, of `slot` on
// the host whose aggregate LID is `lid` (this host's own, for local processes) exist no longer.
struct GoneEntry {
  uint16_t lid = 0;
  uint8_t slot = 0;
  uint32_t first = 0;
  uint32_t count = 0;
};
inline constexpr uint32_t kGoneMax = 64;

struct DirectoryData {
  uint32_t host_index = 0;
  uint32_t cables = 0;
  uint64_t incarnation = 0;
  uint16_t vendor_id = 0, device_id = 0;  // PCI ids of the NHI
  bool controller_lost = false;           // it is gone for good
  std::array<char, 64> host_name{};
  std::array<char, 64> fabric_name{};
  std::array<PortEntry, wire::kPortsMax> ports{};  // [0] is the aggregate tbt0, [1 + k] is tbt0c<k>
  std::array<CableEntry, kCablesMax> links{};
  std::array<PeerEntry, kPeersMax> peers{};
  // The last kGoneMax departures; number i since the daemon started is at gone[i % kGoneMax]. A
  // reader keeps the count that it has handled; if it fell behind by more than kGoneMax, the oldest
  // ones are lost to it.
  std::array<GoneEntry, kGoneMax> gone{};
  uint64_t gone_count = 0;
};
static_assert(std::is_trivially_copyable_v<DirectoryData>);

struct Directory {
  std::atomic<uint32_t> generation;  // odd while the daemon writes
  std::atomic<uint32_t> daemon_pid;  // 0: the daemon has ended in good order
  alignas(8) DirectoryData data;
  // The daemon's own: what `data` was before a write that was not finished.
  alignas(8) DirectoryData last;
};
static_assert(sizeof(Directory) <= rail::kDirectoryBytes);

// Cut to 63 bytes; the rest is zero.
void set_name(std::array<char, 64>& to, std::string_view name) noexcept;

// LIDs of hosts, without memory of its own: processes use it where nothing may fail.
class LidList {
 public:
  void add(const std::array<PortEntry, wire::kPortsMax>& ports) noexcept {
    for (const PortEntry& port : ports) {
      if (port.lid != 0 && count_ < lids_.size()) lids_[count_++] = port.lid;
    }
  }
  [[nodiscard]] std::span<const uint16_t> all() const noexcept {
    return std::span(lids_).first(count_);
  }

 private:
  // This host, each peer, and each peer as it was before.
  std::array<uint16_t, wire::kPortsMax*(2 * kPeersMax + 1)> lids_;
  size_t count_ = 0;
};

// The LIDs of peers that were there and are not any more, or have another incarnation now: what was
// connected to them has nobody at its other end, though the LIDs may lead somewhere again.
LidList departed_lids(const DirectoryData& before, const DirectoryData& now);

Directory& directory_of(rail::HostMemory& memory) noexcept;
uint32_t directory_generation(rail::HostMemory& memory) noexcept;
// Copies a consistent state and returns its generation. If the daemon does not come to the end of a
// write (it was killed in the middle), `out` stays as it is and the answer is odd.
uint32_t read_directory(rail::HostMemory& memory, DirectoryData& out) noexcept;
// Daemon only: what its predecessor, which may have been killed in the middle of a write, has
// finished last. Incarnation 0: nothing.
void recover_directory(rail::HostMemory& memory, DirectoryData& out) noexcept;
// Daemon only: replaces the data and wakes every attached process.
void write_directory(rail::HostMemory& memory, const DirectoryData& data) noexcept;

}  // namespace tbt::fabric
