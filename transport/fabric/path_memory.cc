// One record per port, with a mark that is set after all else is written: whoever is killed in the
// middle has kept nothing.
#include "fabric/path_memory.h"

#include <array>
#include <atomic>
#include <new>
#include <type_traits>

#include "fabric/directory.h"

namespace tbt::fabric {
namespace {

struct Record {
  std::atomic<uint32_t> version;  // 0: nothing is kept
  uint64_t incarnation;
  PathStatus path;
};
using Records = std::array<Record, kCablesMax>;
static_assert(std::is_trivially_copyable_v<PathStatus>);

constexpr size_t kOffset = (sizeof(Directory) + 63) / 64 * 64;
static_assert(kOffset + sizeof(Records) <= rail::kDirectoryBytes);

Records& records_of(rail::HostMemory& memory) noexcept {
  return *std::launder(reinterpret_cast<Records*>(memory.directory() + kOffset));
}

}  // namespace

void keep_path(rail::HostMemory& memory, uint64_t incarnation, const PathStatus& path) noexcept {
  if (path.port >= kCablesMax) return;
  Record& record = records_of(memory)[path.port];
  record.version.store(0, std::memory_order_seq_cst);
  record.incarnation = incarnation;
  record.path = path;
  record.version.store(kPathMemoryVersion, std::memory_order_release);
}

void forget_path(rail::HostMemory& memory, uint32_t port) noexcept {
  if (port < kCablesMax) records_of(memory)[port].version.store(0, std::memory_order_release);
}

void forget_paths(rail::HostMemory& memory) noexcept {
  for (uint32_t port = 0; port < kCablesMax; ++port) forget_path(memory, port);
}

std::vector<PathStatus> kept_paths(rail::HostMemory& memory, uint64_t incarnation) {
  std::vector<PathStatus> paths;
  for (uint32_t port = 0; port < kCablesMax; ++port) {
    const Record& record = records_of(memory)[port];
    if (record.version.load(std::memory_order_acquire) != kPathMemoryVersion) continue;
    if (record.incarnation == incarnation && record.path.port == port) paths.push_back(record.path);
  }
  return paths;
}

}  // namespace tbt::fabric
